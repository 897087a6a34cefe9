#!/usr/bin/env bash
# Prints the path of a Go that can build the control plane.
#
# That is `go` itself when it is new enough. An older one (Debian 12 has 1.19) fetches the pinned toolchain as a Go
# module, whose checksum the public checksum database vouches for; it is kept in the cache.
set -euo pipefail

oldest=1.25
pinned=1.25.5
cache=${POSTRIDER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/postrider}
own=$cache/go-$pinned

die() {
  printf 'postrider: %s\n' "$*" >&2
  exit 1
}

new_enough() { # go
  local version
  version=$(cd / && GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
  [ "$(printf '%s\n%s\n' "$oldest" "${version#go}" | sort -V | head -n 1)" = "$oldest" ]
}

if go=$(command -v go) && new_enough "$go"; then
  echo "$go"
elif [ -x "$own/bin/go" ]; then
  echo "$own/bin/go"
elif [ -n "$go" ]; then
  printf 'postrider: %s is older than %s; fetching Go %s as a module (once)\n' "$go" "$oldest" "$pinned" >&2
  case $(uname -m) in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) die "install Go $oldest or newer from https://go.dev/dl/" ;;
  esac
  download=$(mktemp -d "${TMPDIR:-/tmp}/postrider-go-XXXXXX")
  trap 'chmod -R u+w "$download"; rm -rf "$download"' EXIT
  module=golang.org/toolchain@v0.0.1-go$pinned.linux-$architecture
  (cd "$download" && GOFLAGS='' GOMODCACHE=$download/mod "$go" mod download "$module") >&2 ||
    die "could not fetch Go $pinned; install Go $oldest or newer from https://go.dev/dl/"
  chmod -R u+w "$download/mod"
  toolchain=$download/mod/$module
  # A module holds neither executable files nor other modules; this undoes what it took to pack one.
  find "$toolchain" -name _go.mod -execdir mv {} go.mod ';'
  chmod +x "$toolchain"/bin/* "$toolchain"/pkg/tool/*/*
  mkdir -p "$cache"
  rm -rf "$own"
  mv "$toolchain" "$own"
  echo "$own/bin/go"
else
  die "building the control plane needs Go; install it (Debian: apt-get install golang-go) or set KUBEBUILDER_ASSETS"
fi
