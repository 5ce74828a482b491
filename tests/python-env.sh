#!/usr/bin/env bash
# python-env.sh FOLDER REQUIREMENTS PURPOSE: makes a Python environment at the root of the repository; does nothing when it is there.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 requirements=$2 purpose=$3

if ! python3 -c 'import ensurepip' 2>/dev/null; then
  echo "Installing Python's venv module." >&2
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
fi

wanted=$(cat "$requirements")
if [ ! -x "$folder/bin/python" ] || [ "$(cat "$folder/wanted" 2>/dev/null)" != "$wanted" ]; then
  echo "Making the Python environment $folder ($purpose)." >&2
  python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
  printf '%s' "$wanted" > "$folder/wanted"
fi
