#!/usr/bin/env bash
# Installs what the end-to-end tests and the template check need into a Python virtual environment.
# Usage: install.sh <folder> <requirements.txt>
set -euo pipefail
folder=$1 requirements=$2

# Usage: debian <what is needed> <package>...
debian() {
    if [ "$(id -u)" != 0 ]; then
        echo "install.sh: $1 is needed; install it (on Debian: apt-get install ${*:2})" >&2
        exit 1
    fi
    apt-get update -qq
    apt-get install -y -qq "${@:2}"
}
python3 -c 'import ensurepip, venv' 2>/dev/null || debian "python3 with its venv module" python3 python3-venv
# A warehouse: where Debian keeps its servers, if none is on the path.
{ command -v postgres || ls /usr/lib/postgresql/*/bin/postgres; } > /dev/null 2>&1 || debian PostgreSQL postgresql
# Pages and players are tried in a browser.
command -v chromium chromedriver > /dev/null || debian Chromium chromium chromium-driver
# MiniStack makes itself a certificate.
command -v openssl > /dev/null || debian openssl openssl
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "install.sh: the tests need Python 3.11 or later; python3 is $(python3 --version)" >&2
    exit 1
}
echo "installing $requirements into $folder (a minute, the first time)"
python3 -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements"
