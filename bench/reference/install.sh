#!/usr/bin/env bash
# Installs what `make bench` compares the functions with: the Python and Node.js functions' packages, and the C floor.
# As root on Debian it installs the compilers too; else it says what is missing.
#
# Usage: install.sh python|node|floor ...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Usage: need <what for> <command to try> <package>...
need() {
    if bash -c "$2" > /dev/null 2>&1; then
        return
    fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
        echo "install.sh: $1 needs something that is not here (on Debian: apt-get install ${*:3})" >&2
        exit 1
    fi
    echo "install.sh: installing ${*:3}, which $1 needs"
    apt-get install -y -qq "${@:3}" > /dev/null || { apt-get update -qq && apt-get install -y -qq "${@:3}" > /dev/null; }
}

# The newest stamp is a copy of what was installed.
installed() { cmp --silent "$1" "$2"; }

# Debian's own Python before any other: it is built with profile-guided optimisation, as AWS's is.
install_python() {
    local stamp=.venv/installed python=/usr/bin/python3
    installed python/requirements.txt "$stamp" && return
    [ -x "$python" ] || python=python3
    need "the Python reference" "$python -c 'import ensurepip, venv'" python3 python3-venv
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "install.sh: the Python reference needs Python 3.10 or later; $python is $("$python" --version)" >&2
        exit 1
    }
    echo "installing the Python reference (half a minute, the first time)"
    rm -rf .venv
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement python/requirements.txt
    cp python/requirements.txt "$stamp"
}

# The runtime client and the binding to libbz2 are compiled, with the headers that came with Node.js.
install_node() {
    local stamp=node/node_modules/installed headers
    installed node/package-lock.json "$stamp" && return
    need "the Node.js reference" "command -v node && command -v npm" nodejs npm
    node -e 'process.exit(Number(process.versions.node.split(".")[0] < 20))' || {
        echo "install.sh: the Node.js reference needs Node.js 20 or later; this is $(node --version)" >&2
        exit 1
    }
    need "the Node.js reference" "command -v cmake && command -v autoreconf && command -v libtoolize && command -v g++ \
        && command -v make && command -v python3" cmake autoconf automake libtool g++ make python3
    headers=$(node -p 'require("path").resolve(process.execPath, "../..")')
    need "the Node.js reference" "test -e $headers/include/node/node.h" libnode-dev
    echo "installing the Node.js reference (two minutes, the first time)"
    (cd node && npm ci --nodedir="$headers" --no-audit --no-fund --loglevel=error)
    cp node/package-lock.json "$stamp"
}

install_floor() {
    local stamp=bin/bzip2_floor.c
    installed bzip2_floor.c "$stamp" && return
    need "the C floor" "echo '#include <bzlib.h>' | cc -E -" gcc libc6-dev libbz2-dev
    mkdir -p bin
    cc -O2 -Wall -Wextra -o bin/bzip2_floor bzip2_floor.c -lbz2
    cp bzip2_floor.c "$stamp"
}

for part in "$@"; do
    case $part in
        python) install_python ;;
        node) install_node ;;
        floor) install_floor ;;
        *)
            echo "install.sh: there is no $part; there are python, node and floor" >&2
            exit 2
            ;;
    esac
done
