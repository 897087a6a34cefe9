#!/usr/bin/env bash
# Makes the control plane's programs available and prints the folder that holds them.
#
# Order for each program: KUBEBUILDER_ASSETS, PATH, the cache, a build from source (pinned Go modules beside
# this file). Whatever is found is linked into one folder, so a caller needs a single path:
#
#     bin=$(tools/controlplane/ensure.sh)            # everything
#     bin=$(tools/controlplane/ensure.sh etcd helm)  # only these
#     tools/controlplane/ensure.sh --check           # builds nothing; fails when something would have to be built
#
# The folder's path goes to stdout, progress to stderr.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
kubernetes_version=1.34.4
etcd_version=3.6.8
helm_version=3.20.0
cache=${POSTRIDER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/postrider}/controlplane
bin=$cache/bin

say() { printf 'postrider: %s\n' "$*" >&2; }

version_of() {
  case $1 in
    etcd) echo "$etcd_version" ;;
    helm) echo "$helm_version" ;;
    *) echo "$kubernetes_version" ;;
  esac
}

# A program from elsewhere is only taken when it is near enough to the pinned version to behave the same.
usable() { # program path
  [ -x "$2" ] || return 1
  case $1 in
    kubectl) "$2" version --client 2>/dev/null | grep -Eq 'v1\.(3[3-9]|[4-9][0-9])\.' ;;
    kube-apiserver | kube-controller-manager) "$2" --version 2>/dev/null | grep -Eq 'v1\.(3[3-9]|[4-9][0-9])\.' ;;
    helm) "$2" version --short 2>/dev/null | grep -Eq '^v(3\.1[4-9]|3\.[2-9][0-9]|4)' ;;
    etcd) "$2" --version 2>/dev/null | grep -Eq 'Version: 3\.[5-9]' ;;
  esac
}

# What is built differently than before gets another name, so that a cache of old is not taken for it.
cached() { # program
  local edition=
  if [ "$1" = helm ]; then edition=-kubernetes-$kubernetes_version; fi
  echo "$cache/$1-$(version_of "$1")$edition/$1"
}

# Prints where the program is; fails when it has to be built.
find_program() { # program
  local candidate
  if [ -n "${KUBEBUILDER_ASSETS:-}" ] && usable "$1" "$KUBEBUILDER_ASSETS/$1"; then
    echo "$KUBEBUILDER_ASSETS/$1"
  elif candidate=$(PATH=${PATH//"$bin:"/} command -v "$1") && usable "$1" "$candidate"; then
    echo "$candidate"
  else
    candidate=$(cached "$1")
    [ -x "$candidate" ] && echo "$candidate"
  fi
}

build() { # program
  local program=$1 output module package flags="-s -w" go major minor of
  output=$(cached "$program")
  IFS=. read -r major minor _ <<<"$kubernetes_version"
  go=$("$here/go.sh")
  case $program in
    etcd) module=etcd package=go.etcd.io/etcd/server/v3 ;;
    helm)
      module=helm package=helm.sh/helm/v3/cmd/helm
      flags+=" -X helm.sh/helm/v3/internal/version.version=v$helm_version"
      # Without a cluster, helm renders and lints for this Kubernetes; unset, it would be 1.20.
      for of in pkg/chartutil pkg/lint/rules; do
        flags+=" -X helm.sh/helm/v3/$of.k8sVersionMajor=$major -X helm.sh/helm/v3/$of.k8sVersionMinor=$minor"
      done
      ;;
    *)
      module=kubernetes package=k8s.io/kubernetes/cmd/$program
      flags+=" -X k8s.io/component-base/version.gitVersion=v$kubernetes_version"
      flags+=" -X k8s.io/component-base/version.gitMajor=$major -X k8s.io/component-base/version.gitMinor=$minor"
      ;;
  esac
  say "building $program $(version_of "$program") from source (once; minutes on a small machine)"
  mkdir -p "$(dirname "$output")"
  # Without -buildvcs=false a build would ask git about this repository.
  (cd "$here/$module" && CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off \
    exec "$go" build -mod=readonly -buildvcs=false -trimpath -ldflags "$flags" -o "$output.part" "$package") >&2 9>&- &
  builder=$!
  local started=$SECONDS
  while kill -0 "$builder" 2>/dev/null; do
    sleep 1
    if (((SECONDS - started) % 15 == 0)); then say "building $program, $((SECONDS - started)) s so far"; fi
  done
  wait "$builder" || {
    builder=
    say "building $program failed"
    return 1
  }
  builder=
  mv "$output.part" "$output"
  say "built $program in $((SECONDS - started)) s"
}

check=
if [ "${1:-}" = --check ]; then check=1 && shift; fi
[ $# -gt 0 ] || set -- etcd kube-apiserver kube-controller-manager kubectl helm
for program in "$@"; do
  case $program in
    etcd | kube-apiserver | kube-controller-manager | kubectl | helm) ;;
    *) say "there is no program $program here" && exit 2 ;;
  esac
done

if [ -n "$check" ]; then
  for program in "$@"; do find_program "$program" >/dev/null; done
  exit
fi

for tool in flock sort; do
  command -v "$tool" >/dev/null || { say "$tool is missing; run tools/setup.sh" && exit 1; }
done
mkdir -p "$bin"
exec 9>"$cache/lock"
flock 9 # two callers at once build once
builder=
trap '[ -z "$builder" ] || kill "$builder" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
for program in "$@"; do
  found=$(find_program "$program") || {
    build "$program"
    found=$(cached "$program")
  }
  [ "$(readlink "$bin/$program")" = "$found" ] || ln -sfn "$found" "$bin/$program"
done
echo "$bin"
