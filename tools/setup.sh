#!/usr/bin/env bash
# Makes a machine ready to build, test and demonstrate Postrider.
#
#     tools/setup.sh          # names what is missing; on Debian as root installs it
#
# It looks at the programs first and touches the network only for what is missing, so it costs nothing to call.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
say() { printf 'postrider: %s\n' "$*" >&2; }

has() { command -v "$1" >/dev/null; }
node_is_new_enough() { has node && node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)'; }
python_makes_venvs() { has python3 && python3 -c 'import venv, ensurepip' 2>/dev/null; }
has_certificates() { [ -s /etc/ssl/certs/ca-certificates.crt ] || [ -n "${SSL_CERT_FILE:-}" ]; }

cargo_paths() {
  local folder=${CARGO_HOME:-$HOME/.cargo}/bin
  case :$PATH: in *":$folder:"*) ;; *) PATH=$folder:$PATH ;; esac
}
cargo_paths

packages=()
{ has cc && has make; } || packages+=(build-essential)
has curl || packages+=(curl)
has_certificates || packages+=(ca-certificates)
has git || packages+=(git)
has openssl || packages+=(openssl)
{ has setpriv && has flock && has unshare; } || packages+=(util-linux)
has mount || packages+=(mount)
{ has ps && has pgrep; } || packages+=(procps)
python_makes_venvs || packages+=(python3 python3-venv)
node_is_new_enough || packages+=(nodejs)
has npm || packages+=(npm)
# The control plane is built with it, and docs/verify has a program in each of these two languages.
has go || packages+=(golang-go)
{ has java && has javac; } || packages+=(default-jdk-headless)

if [ ${#packages[@]} -gt 0 ]; then
  if [ -e /etc/debian_version ] && [ "$(id -u)" = 0 ]; then
    say "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q </dev/null >&2
    apt-get install -qy --no-install-recommends "${packages[@]}" </dev/null >&2
    node_is_new_enough || {
      say "this Debian has no Node.js of version 18 or newer; install one from https://nodejs.org"
      exit 1
    }
  else
    say "something is missing; on Debian install it with"
    say "    sudo apt-get install ${packages[*]}"
    exit 1
  fi
fi

if ! has cargo; then
  if [ -e /etc/debian_version ] && [ "$(id -u)" = 0 ]; then
    say "installing Rust with rustup"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
      sh -s -- -y --no-modify-path --profile minimal --default-toolchain none >&2
  else
    say "Rust is missing; install it with"
    say "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    exit 1
  fi
fi
# rust-toolchain.toml names the toolchain; the first call of cargo installs it where rustup is in charge.
(cd "$root" && cargo --version >/dev/null) || {
  say "the toolchain of rust-toolchain.toml is missing; install it with: rustup toolchain install"
  exit 1
}
