#!/usr/bin/env bash
# Installs what the tests need beside Rust: a headless Chromium (checks the demo's page) and a Python environment with the
# third-party readers and peers, and beside the emulators' environment (`make emulator-setup`) one for streams. Does nothing when
# all is there.
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

tests/python-env.sh .venv tests/clients/requirements.txt "third-party readers and peers"

emulator=.venv-emulator/npm/node_modules/kinesis-local
if ! grep -qs '"version" : "0.5.2"' "$emulator/package.json"; then
  echo "Installing kinesis-mock (streams whose shards split and merge)." >&2
  # npm finds node beside itself.
  PATH="$PWD/.venv-emulator/bin:$PATH" npm install --silent --no-audit --no-fund --prefix .venv-emulator/npm kinesis-local@0.5.2
fi
