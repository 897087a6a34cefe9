#!/usr/bin/env bash
# Runs a Kubernetes control plane on free loopback ports for as long as somebody holds its standard input open.
#
#     tools/controlplane/run.sh [--crds DIR] [--remove] FOLDER < pipe
#
# FOLDER gets `kubeconfig` (cluster admin), the programs' logs and their data. Once the API server is ready, the
# CRDs of DIR are established and the controller manager runs, one line goes to standard output:
#
#     ready https://127.0.0.1:PORT
#
# Then one command per line is read from standard input and answered with `ok` or `failed`:
#
#     stop PROGRAM     kill -9 of etcd, kube-apiserver or kube-controller-manager
#     start PROGRAM    start it again on the same port with the same data, and wait until it is ready
#
# When standard input ends, for whatever reason, everything is killed and (with --remove) FOLDER deleted. Should
# this script itself be killed with -9, the programs go too: each has it as the parent whose death kills them.
# The CRDs come before the controller manager because its garbage collector looks for new kinds only every 30 s.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tools/lib.sh
. "$here/../lib.sh"
crds='' remove=''
while [ $# -gt 0 ]; do
  case $1 in
    --crds) crds=$2 && shift 2 ;;
    --remove) remove=1 && shift ;;
    *) break ;;
  esac
done
folder=${1:?usage: run.sh [--crds DIR] [--remove] FOLDER}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

say() { printf 'control plane: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

for tool in curl openssl setpriv; do
  command -v "$tool" >/dev/null || die "$tool is missing; install it (Debian: apt-get install curl openssl util-linux)"
done
bin=${POSTRIDER_CONTROLPLANE_BIN:-$("$here/ensure.sh" etcd kube-apiserver kube-controller-manager kubectl)}

declare -A pid=()

stop() { # program
  local id=${pid[$1]:-}
  [ -n "$id" ] || return 0
  unset "pid[$1]"
  kill -KILL "$id" 2>/dev/null || true
  wait "$id" 2>/dev/null || true
}

stop_all() {
  local program
  for program in kube-controller-manager kube-apiserver etcd; do stop "$program"; done
}

on_exit() {
  stop_all
  if [ -n "$remove" ]; then rm -rf "$folder"; fi
}
trap on_exit EXIT
trap 'exit 143' TERM
# Ctrl-C reaches the whole process group; the end of standard input is what stops this script in good order.
trap '' INT HUP

launch() { # program
  local -a flags
  case $1 in
    etcd)
      flags=(
        --data-dir "$folder/etcd" --unsafe-no-fsync --log-level warn
        --listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port"
        --listen-peer-urls "http://127.0.0.1:$peer_port"
      )
      ;;
    kube-apiserver)
      flags=(
        --etcd-servers="http://127.0.0.1:$etcd_port"
        --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --endpoint-reconciler-type=none
        --secure-port="$port" --cert-dir="$folder/certs"
        --service-account-issuer=https://kubernetes.default.svc
        --service-account-key-file="$folder/sa.key" --service-account-signing-key-file="$folder/sa.key"
        --token-auth-file="$folder/tokens.csv" "--authorization-mode=Node,RBAC"
        --service-cluster-ip-range=10.0.0.0/24
      )
      ;;
    kube-controller-manager)
      flags=(
        --kubeconfig="$folder/kubeconfig" --secure-port=0 --leader-elect=false
        --service-account-private-key-file="$folder/sa.key" --root-ca-file="$folder/certs/apiserver.crt"
        --use-service-account-credentials=true --kube-api-qps=500 --kube-api-burst=1000
      )
      ;;
  esac
  setpriv --pdeathsig KILL "$bin/$1" "${flags[@]}" </dev/null >>"$folder/$1.log" 2>&1 &
  pid[$1]=$!
}

alive() { [ -n "${pid[$1]:-}" ] && kill -0 "${pid[$1]}" 2>/dev/null; }

# Waits until the API server answers; fails as soon as it or etcd is gone, or after 60 s.
await_ready() { # seconds
  local deadline=$((SECONDS + $1))
  until [ "$(curl -sk --max-time 5 "$server/readyz" 2>/dev/null)" = ok ]; do
    alive etcd && alive kube-apiserver || return 1
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

start_all() {
  etcd_port=$(free_port) peer_port=$(free_port) port=$(free_port)
  server=https://127.0.0.1:$port
  cat >"$folder/kubeconfig" <<YAML
apiVersion: v1
kind: Config
current-context: postrider
clusters:
- name: postrider
  cluster: {server: "$server", certificate-authority: "$folder/certs/apiserver.crt"}
users:
- name: admin
  user: {token: "$token"}
contexts:
- name: postrider
  context: {cluster: postrider, user: admin}
YAML
  rm -rf "$folder/etcd" "$folder/certs"
  launch etcd
  launch kube-apiserver
  await_ready 60
}

install_crds() {
  local -a kubectl=("$bin/kubectl" --kubeconfig "$folder/kubeconfig" --cache-dir "$folder/kubectl-cache")
  "${kubectl[@]}" apply --server-side -f "$crds" </dev/null >>"$folder/crds.log" 2>&1 &&
    "${kubectl[@]}" wait --for=condition=Established --timeout=30s -f "$crds" </dev/null >>"$folder/crds.log" 2>&1
}

token=$(openssl rand -hex 16)
openssl ecparam -name prime256v1 -genkey -noout -out "$folder/sa.key" 2>/dev/null
echo "$token,admin,admin,\"system:masters\"" >"$folder/tokens.csv"
chmod 600 "$folder/tokens.csv" "$folder/sa.key"

for attempt in 1 2 3; do
  if start_all; then break; fi
  stop_all
  if [ "$attempt" = 3 ]; then
    tail -n 5 "$folder/etcd.log" "$folder/kube-apiserver.log" >&2
    die "etcd and kube-apiserver did not become ready"
  fi
done
if [ -n "$crds" ] && compgen -G "$crds/*.yaml" >/dev/null; then
  install_crds || {
    tail -n 20 "$folder/crds.log" >&2
    die "the CRDs of $crds are not accepted"
  }
fi
launch kube-controller-manager
echo "ready $server"

while read -r verb program; do
  case $verb:$program in
    stop:etcd | stop:kube-apiserver | stop:kube-controller-manager)
      stop "$program"
      echo ok
      ;;
    start:etcd | start:kube-controller-manager)
      alive "$program" || launch "$program"
      echo ok
      ;;
    start:kube-apiserver)
      alive "$program" || launch "$program"
      # After minutes without etcd, gRPC tries again every two minutes only.
      if await_ready 180; then echo ok; else echo failed; fi
      ;;
    *) echo failed ;;
  esac
done
