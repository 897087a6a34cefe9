#!/usr/bin/env bash
# Fails when a generated file is not what the types say: crds/ and the chart's copy of it.
#
#     tools/drift.sh target/debug/postrider
set -euo pipefail

cd "$(dirname "$0")/.."
postrider=${1:?usage: drift.sh PATH_OF_THE_BINARY}
failed=

"$postrider" crds --check crds || failed=1
for file in crds/*.yaml; do
  [ -e "$file" ] || {
    echo "drift: crds/ is empty" >&2
    failed=1
    break
  }
  copy=charts/postrider/files/$file
  cmp -s "$file" "$copy" || {
    echo "drift: $copy differs from $file" >&2
    failed=1
  }
done
for copy in charts/postrider/files/crds/*.yaml; do
  [ -e "crds/${copy##*/}" ] || {
    echo "drift: $copy has no original in crds/" >&2
    failed=1
  }
done
[ -z "$failed" ] || {
  echo "drift: run \`make crds\` and commit the result" >&2
  exit 1
}
