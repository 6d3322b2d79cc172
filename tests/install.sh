#!/usr/bin/env bash
# Installs the programs that the end-to-end tests need beside Python's packages.
set -euo pipefail
debian=$(dirname "$0")/../tools/scripts/debian

# A warehouse: where Debian keeps its servers, if none is on the path.
{ command -v postgres || ls /usr/lib/postgresql/*/bin/postgres; } > /dev/null 2>&1 || "$debian" "the warehouse's tests" postgresql
# Pages and players are tried in a browser.
{ command -v chromium && command -v chromedriver; } > /dev/null || "$debian" "the page's tests" chromium chromium-driver
# MiniStack makes itself a certificate.
command -v openssl > /dev/null || "$debian" "the deployment's tests" openssl
