#!/usr/bin/env bash
# Installs the libraries that are not ours and check what we send (Python and Node: signatures, SMTP servers), and
# prints the folder that holds them.
#
#     export POSTRIDER_VERIFIERS=$(tools/verifiers/ensure.sh)
#
# The folder is named after the lock files, so it is made once and never changed; afterwards no network is needed.
# Its path goes to stdout, progress to stderr.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
hash=$(cat "$here/requirements.txt" "$here/package.json" "$here/package-lock.json" | sha256sum | cut -c1-16)
cache=${POSTRIDER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/postrider}
folder=$cache/verifiers-$hash

die() {
  printf 'postrider: %s\n' "$*" >&2
  exit 1
}

if [ ! -e "$folder/complete" ]; then
  for tool in python3 node npm; do
    command -v "$tool" >/dev/null || die "$tool is missing; run tools/setup.sh"
  done
  mkdir -p "$cache"
  exec 9>"$cache/verifiers.lock"
  flock 9 # two callers at once install once
  if [ ! -e "$folder/complete" ]; then
    printf 'postrider: installing standardwebhooks and the SMTP servers of PyPI and npm\n' >&2
    rm -rf "$folder"
    mkdir -p "$folder"
    python3 -m venv "$folder/venv" >&2 || die "python3 cannot make a venv; run tools/setup.sh"
    "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
      -r "$here/requirements.txt" >&2 || die "pip could not install tools/verifiers/requirements.txt"
    cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$folder/"
    (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2 ||
      die "npm could not install tools/verifiers/package-lock.json"
    touch "$folder/complete"
  fi
fi
echo "$folder"
