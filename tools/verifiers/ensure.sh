#!/usr/bin/env bash
# Installs the libraries that are not ours and judge what we send, and prints the folder that holds them: those of
# signatures (Python, Node, Go, Java, Rust), of SMTP servers (Python, Node), of the services that have a ready format
# (Python, Node, Go), of receivers of CloudEvents (Node, Go), and of what GitOps tools read out of a status (Go).
#
#     export POSTRIDER_VERIFIERS=$(tools/verifiers/ensure.sh)
#
# The folder is named after the lock files and the programs that are compiled, so it is made once and never changed; afterwards no network is needed.
# Its path goes to stdout, progress to stderr.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
hash=$(cat "$here/requirements.txt" "$here"/package{,-lock}.json "$here"/{cloudevents,formats,kstatus}/* "$here"/signatures/{go,java}/* \
  "$here"/signatures/rust/Cargo.{toml,lock} "$here"/signatures/rust/src/* | sha256sum | cut -c1-16)
cache=${POSTRIDER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/postrider}
folder=$cache/verifiers-$hash

die() {
  printf 'postrider: %s\n' "$*" >&2
  exit 1
}

if [ ! -e "$folder/complete" ]; then
  for tool in python3 node npm curl java javac cargo; do
    command -v "$tool" >/dev/null || die "$tool is missing; run tools/setup.sh"
  done
  mkdir -p "$cache"
  exec 9>"$cache/verifiers.lock"
  flock 9 # two callers at once install once
  if [ ! -e "$folder/complete" ]; then
    printf 'postrider: installing verifiers from PyPI, npm, the Go proxy, Maven Central and crates.io (once)\n' >&2
    rm -rf "$folder"
    mkdir -p "$folder"
    python3 -m venv "$folder/venv" >&2 || die "python3 cannot make a venv; run tools/setup.sh"
    "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
      -r "$here/requirements.txt" >&2 || die "pip could not install tools/verifiers/requirements.txt"
    cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$folder/"
    (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2 ||
      die "npm could not install tools/verifiers/package-lock.json"
    go=$("$here/../controlplane/go.sh")
    for program in cloudevents formats kstatus signatures/go; do
      (cd "$here/$program" && CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off \
        "$go" build -mod=readonly -buildvcs=false -trimpath -o "$folder/${program//\//-}" .) >&2 ||
        die "go could not build tools/verifiers/$program"
    done
    mkdir "$folder/java"
    while read -r sum path; do
      jar=$folder/java/${path##*/}
      curl -sSfL --retry 3 -o "$jar" "${MAVEN_REPOSITORY:-https://repo1.maven.org/maven2}/$path" >&2 ||
        die "$path could not be had from Maven Central"
      echo "$sum  $jar" | sha256sum --check --quiet >&2 || die "$path is not the file that was expected"
    done <"$here/signatures/java/jars.txt"
    javac -cp "$folder/java/*" -d "$folder/java" "$here/signatures/java/Verify.java" >&2 ||
      die "javac could not build tools/verifiers/signatures/java"
    # Compiled elsewhere: neither the product's target folder nor its lock has a part in it.
    CARGO_TARGET_DIR=$folder/rust-target cargo build --locked --quiet --release \
      --manifest-path "$here/signatures/rust/Cargo.toml" >&2 ||
      die "cargo could not build tools/verifiers/signatures/rust"
    mv "$folder/rust-target/release/signatures-rust" "$folder/signatures-rust"
    rm -rf "$folder/rust-target"
    touch "$folder/complete"
  fi
fi
echo "$folder"
