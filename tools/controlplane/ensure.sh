#!/usr/bin/env bash
# Makes the control plane's programs available and prints the folder that holds them.
#
# Order for each program: KUBEBUILDER_ASSETS, PATH, the cache, a build from source (pinned Go modules beside
# this file). Whatever is found is linked into one folder, so a caller needs a single path:
#
#     bin=$(tools/controlplane/ensure.sh)            # everything
#     bin=$(tools/controlplane/ensure.sh etcd helm)  # only these
#
# The folder's path goes to stdout, progress to stderr.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
kubernetes_version=1.34.4
etcd_version=3.6.8
helm_version=3.20.0
cache=${POSTRIDER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/postrider}/controlplane
bin=$cache/bin

say() { printf '%s\n' "$*" >&2; }

version_of() {
  case $1 in
    etcd) echo "$etcd_version" ;;
    helm) echo "$helm_version" ;;
    *) echo "$kubernetes_version" ;;
  esac
}

# kubectl and helm are only taken from elsewhere when they are near enough to the pinned version to behave the same.
usable() { # program path
  [ -x "$2" ] || return 1
  case $1 in
    kubectl) "$2" version --client 2>/dev/null | grep -Eq 'v1\.(3[3-9]|[4-9][0-9])\.' ;;
    kube-apiserver | kube-controller-manager) "$2" --version 2>/dev/null | grep -Eq 'v1\.(3[3-9]|[4-9][0-9])\.' ;;
    helm) "$2" version --short 2>/dev/null | grep -Eq '^v(3\.1[4-9]|3\.[2-9][0-9]|4)' ;;
    etcd) "$2" --version 2>/dev/null | grep -Eq 'Version: 3\.[5-9]' ;;
  esac
}

build() { # program output
  local program=$1 output=$2 module package flags="-s -w"
  command -v go >/dev/null || {
    say "postrider: building $program needs Go 1.25 or newer; install it (Debian: apt-get install golang-go) or set KUBEBUILDER_ASSETS"
    return 1
  }
  case $program in
    etcd) module=etcd package=go.etcd.io/etcd/server/v3 ;;
    helm)
      module=helm package=helm.sh/helm/v3/cmd/helm
      flags+=" -X helm.sh/helm/v3/internal/version.version=v$helm_version"
      ;;
    *)
      module=kubernetes package=k8s.io/kubernetes/cmd/$program
      flags+=" -X k8s.io/component-base/version.gitVersion=v$kubernetes_version"
      flags+=" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34"
      ;;
  esac
  say "postrider: building $program $(version_of "$program") from source (once; minutes on a small machine)"
  mkdir -p "$(dirname "$output")"
  (cd "$here/$module" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -ldflags "$flags" -o "$output.part" "$package") >&2 &
  local builder=$! started=$SECONDS
  while kill -0 "$builder" 2>/dev/null; do
    sleep 1
    if (((SECONDS - started) % 15 == 0)); then say "postrider: building $program, $((SECONDS - started)) s so far"; fi
  done
  wait "$builder" || {
    say "postrider: building $program failed"
    return 1
  }
  mv "$output.part" "$output"
  say "postrider: built $program in $((SECONDS - started)) s"
}

ensure() { # program
  local program=$1 found candidate
  candidate=${KUBEBUILDER_ASSETS:+$KUBEBUILDER_ASSETS/$program}
  if [ -n "$candidate" ] && usable "$program" "$candidate"; then
    found=$candidate
  elif candidate=$(PATH=${PATH//"$bin:"/} command -v "$program") && usable "$program" "$candidate"; then
    found=$candidate
  else
    found=$cache/$program-$(version_of "$program")/$program
    [ -x "$found" ] || build "$program" "$found"
  fi
  ln -sfn "$found" "$bin/$program"
}

mkdir -p "$bin"
exec 9>"$cache/lock"
flock 9 # two callers at once build once
[ $# -gt 0 ] || set -- etcd kube-apiserver kube-controller-manager kubectl helm
for program in "$@"; do ensure "$program"; done
echo "$bin"
