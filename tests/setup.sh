#!/usr/bin/env bash
# Installs what the tests need beside Rust: a headless Chromium (checks the demo's page) and a Python environment with the
# third-party readers and peers. Does nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

find_browser() {
  command -v chromium || command -v chromium-browser || command -v google-chrome
}

# apt_install PACKAGE…
apt_install() {
  local as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

if ! find_browser >/dev/null; then
  echo "Installing Chromium (the demo's page is checked in it)."
  apt_install chromium
fi

if ! python3 -c 'import ensurepip' 2>/dev/null; then
  echo "Installing Python's venv module."
  apt_install python3-venv
fi

wanted=$(cat tests/clients/requirements.txt)
if [ ! -x .venv/bin/python ] || [ "$(cat .venv/wanted 2>/dev/null)" != "$wanted" ]; then
  echo "Making the Python environment .venv (third-party readers and peers)."
  python3 -m venv .venv
  .venv/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
  printf '%s' "$wanted" > .venv/wanted
fi
