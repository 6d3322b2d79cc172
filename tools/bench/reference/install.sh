#!/usr/bin/env bash
# Installs what `make bench` compares with: the Python functions' packages, libbz2 alone in C, and nginx.
# As root on Debian it installs a compiler too; otherwise it says what is missing.
#
# Usage: install.sh python|floor|nginx ...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Usage: need <what for> <command to try> <package>...
need() {
    bash -c "$2" > /dev/null 2>&1 || ../../scripts/debian "$1" "${@:3}"
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

install_floor() {
    local stamp=bin/bzip2_floor.c
    installed bzip2_floor.c "$stamp" && return
    need "the C floor" "echo '#include <bzlib.h>' | cc -E -" gcc libc6-dev libbz2-dev
    mkdir -p bin
    cc -O2 -Wall -Wextra -o bin/bzip2_floor bzip2_floor.c -lbz2
    cp bzip2_floor.c "$stamp"
}

# Debian's own, unpacked and not installed: the package would start a server on port 80.
install_nginx() {
    [ -x bin/nginx ] && return
    command -v apt-get > /dev/null || {
        echo "install.sh: nginx is taken from Debian's package; elsewhere, link yours to $PWD/bin/nginx" >&2
        exit 1
    }
    local folder
    folder=$(mktemp --directory)
    chmod 755 "$folder"
    local apt=(apt-get --option Acquire::Retries=5 -qq)
    # The list of packages may be missing, or old.
    (cd "$folder" && { "${apt[@]}" download nginx 2> /dev/null || { "${apt[@]}" update && "${apt[@]}" download nginx; }; })
    dpkg-deb --extract "$folder"/nginx_*.deb "$folder"
    mkdir -p bin
    mv "$folder/usr/sbin/nginx" bin/nginx
    rm -r "$folder"
    bin/nginx -v 2> /dev/null || {
        rm bin/nginx
        need "nginx" false libcrypt1 libpcre2-8-0 libssl3 zlib1g
        install_nginx
    }
}

for part in "$@"; do
    case $part in
        python) install_python ;;
        floor) install_floor ;;
        nginx) install_nginx ;;
        *)
            echo "install.sh: there is no $part; there are python, floor and nginx" >&2
            exit 2
            ;;
    esac
done
