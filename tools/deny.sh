#!/usr/bin/env bash
# Checks the dependency tree against deny.toml; builds cargo-deny once when it is missing.
set -euo pipefail

cd "$(dirname "$0")/.."
version=0.20.2
cache=${POSTRIDER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/postrider}
deny=$cache/tools/bin/cargo-deny

if ! "$deny" --version 2>/dev/null | grep -qF " $version"; then
  if deny=$(command -v cargo-deny) && "$deny" --version | grep -qE ' 0\.(19|[2-9][0-9])\.'; then
    :
  else
    deny=$cache/tools/bin/cargo-deny
    echo "postrider: building cargo-deny $version (once; minutes on a small machine)" >&2
    cargo install --quiet --locked --version "$version" --root "$cache/tools" cargo-deny
  fi
fi
exec "$deny" --log-level error check --hide-inclusion-graph bans licenses sources
