#!/usr/bin/env bash
# Makes the Python environment .venv-emulator: the emulator, what deploys, what builds zips, cfn-lint. Does nothing when it is there.
set -euo pipefail
cd "$(dirname "$0")/../.."

wanted=$(cat localstack/emulator/requirements.txt)
if [ ! -x .venv-emulator/bin/python ] || [ "$(cat .venv-emulator/wanted 2>/dev/null)" != "$wanted" ]; then
  echo "Making the Python environment .venv-emulator (AWS emulator, deployment, zips)." >&2
  python3 -m venv .venv-emulator
  .venv-emulator/bin/pip install --quiet --disable-pip-version-check -r localstack/emulator/requirements.txt
  printf '%s' "$wanted" > .venv-emulator/wanted
fi
