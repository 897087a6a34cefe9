#!/usr/bin/env bash
# Fuzzes every target, or the one named, guided by coverage, for FUZZ_TIME (default 60s) each.
# Builds cargo-bolero once when it is missing. What a target found is under src/…/__fuzz__ and fails `make test`, too.
set -euo pipefail

cd "$(dirname "$0")/.."
version=0.13.4
cache=${POSTRIDER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/postrider}

if ! "$cache/tools/bin/cargo-bolero" bolero --version 2>/dev/null | grep -qF " $version"; then
  echo "postrider: building cargo-bolero $version (once; minutes on a small machine)" >&2
  cargo install --quiet --locked --version "$version" --root "$cache/tools" cargo-bolero
fi
export PATH="$cache/tools/bin:$PATH"
# Coverage needs flags that the compiler keeps for itself on stable, and a build of its own.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/fuzz

for target in ${1:-$(grep -rhoE 'fn fuzz_[a-z_]+' src | sed 's/^fn //' | sort)}; do
  file=$(grep -rlE "fn $target\b" src) || { echo "postrider: there is no fuzz target $target" >&2; exit 2; }
  module=${file#src/}
  module=${module%.rs}
  echo "postrider: fuzzing $target for ${FUZZ_TIME:-60s}" >&2
  cargo bolero test --rustc-bootstrap --sanitizer NONE -T "${FUZZ_TIME:-60s}" "${module//\//::}::$target"
done
