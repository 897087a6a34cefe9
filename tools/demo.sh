#!/usr/bin/env bash
# Shows Postrider at work on a Kubernetes control plane of its own; see `make demo` in README.md.
#
#     tools/demo.sh           # stays up until Ctrl-C
#     ONCE=1 tools/demo.sh    # checks each step and ends: 0, or it says what failed
#
# Everything it writes is under target/demo: env (exports for scripts), the kubeconfig, logs and the queue.
# Everything it starts ends with it, however it ends.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=tools/lib.sh
. tools/lib.sh
once=${ONCE:-}
demo=$root/target/demo
namespace=default
operator='' receiver='' controlplane='' task=''

# ---- Telling what happens -------------------------------------------------------------------------------------

began=$EPOCHREALTIME
milliseconds() { echo $(((${EPOCHREALTIME//[!0-9]/} - ${1//[!0-9]/}) / 1000)); } # since
elapsed() {
  local ms
  ms=$(milliseconds "$began")
  printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}
note() { printf '[%6s s] %s\n' "$(elapsed)" "$*"; }
heading() { printf '\n── %s\n' "$*"; }

fail() {
  printf '\n[%6s s] FAILED: %s\n' "$(elapsed)" "$*" >&2
  local log
  for log in postrider receiver; do
    if [ -s "$demo/$log.log" ]; then
      printf -- '── the end of target/demo/%s.log\n' "$log" >&2
      tail -n 15 "$demo/$log.log" >&2
    fi
  done
  exit 1
}

# Runs a long command; after 15 s of silence says that it still runs.
patiently() { # title command...
  local title=$1 status=0 started=$SECONDS
  shift
  "$@" 9>&- &
  task=$!
  while ! gone "$task"; do
    sleep 0.1
    if (((SECONDS - started) >= 15)); then
      note "$title, still at it"
      started=$SECONDS
    fi
  done
  wait "$task" || status=$?
  task=
  return "$status"
}

# Repeats a command until it succeeds, at most so many seconds.
within() { # seconds command...
  local deadline=$((${EPOCHREALTIME//[!0-9]/} + $1 * 1000000))
  shift
  until "$@"; do
    ((${EPOCHREALTIME//[!0-9]/} < deadline)) || return 1
    sleep 0.1
  done
}

# ---- Ending ---------------------------------------------------------------------------------------------------

end() { # process seconds: asks it to end; says whether it did
  [ -n "$1" ] || return 0
  kill -TERM "$1" 2>/dev/null || true
  if ! within "$2" gone "$1"; then
    kill -KILL "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
    return 1
  fi
  wait "$1" 2>/dev/null
}
gone() { ! kill -0 "$1" 2>/dev/null; } # process

# First the operator, so that it can finish what it is sending; then whom it speaks to.
stop_all() {
  local status=0
  trap '' INT TERM
  end "$task" 5 || true
  task=
  end "$operator" 15 || status=1
  operator=
  end "$receiver" 5 || true
  receiver=
  if [ -n "$controlplane" ]; then
    exec {commands}>&- # the end of its standard input ends it
    wait "$controlplane" 2>/dev/null || true
    controlplane=
  fi
  return "$status"
}
trap 'stop_all || true' EXIT
trap 'printf "\n"; note "stopping"; exit 0' INT
trap 'exit 143' TERM

# ---- Making ---------------------------------------------------------------------------------------------------

mkdir -p "$demo"
exec 9>"$demo/lock"
flock -n 9 || fail "another demo of this checkout is running"
rm -rf "$demo/cluster" "$demo/data" "$demo/env" "$demo/signing-secret" "$demo"/*.log
: >"$demo/postrider.log"

bin=$(tools/controlplane/ensure.sh etcd kube-apiserver kube-controller-manager kubectl) ||
  fail "the control plane's programs are missing"
verifiers=$(tools/verifiers/ensure.sh) || fail "the signature libraries are missing"
note "control plane programs and signature libraries are there"

quiet=()
[ -t 2 ] || quiet=(--quiet)
patiently "building the operator" cargo build --locked --release "${quiet[@]}" --bin postrider ||
  fail "cargo build --release"
note "the operator is built (release)"

# ---- Starting -------------------------------------------------------------------------------------------------

coproc CONTROLPLANE {
  exec setsid env POSTRIDER_CONTROLPLANE_BIN="$bin" tools/controlplane/run.sh --crds crds "$demo/cluster" \
    2>"$demo/controlplane.log" 9>&-
}
controlplane=$CONTROLPLANE_PID commands=${CONTROLPLANE[1]}
read -r -t 180 ready server <&"${CONTROLPLANE[0]}" || ready=
[ "$ready" = ready ] || {
  cat "$demo/controlplane.log" >&2
  fail "the control plane did not start"
}
export KUBECONFIG=$demo/cluster/kubeconfig KUBECACHEDIR=$demo/cluster/kubectl-cache
kubectl() { "$bin/kubectl" --namespace "$namespace" "$@"; }
note "Kubernetes $(kubectl version -o json | sed -n '/serverVersion/,$s/.*"gitVersion": "\(.*\)".*/\1/p') is ready at $server, crds/ are installed"

listen=127.0.0.1:$(free_port)
admin=127.0.0.1:$(free_port)
url=http://$listen
admin_url=http://$admin
setsid setpriv --pdeathsig TERM target/release/postrider run --listen "$listen" --admin-listen "$admin" \
  --data-dir "$demo/data" --public-url "$url" --allow-egress 127.0.0.0/8 --log-format text \
  </dev/null >"$demo/postrider.log" 2>&1 9>&- &
operator=$!
receiver_port=$(free_port)
receiver_url=http://127.0.0.1:$receiver_port
NODE_PATH=$verifiers/node_modules PORT=$receiver_port WEBHOOK_SECRET_FILE=$demo/signing-secret \
  setsid setpriv --pdeathsig TERM node examples/quickstart/receiver/receiver.js \
  </dev/null >"$demo/receiver.log" 2>&1 9>&- &
receiver=$!

# shellcheck disable=SC2317 # called by `within`
answers() { # url [process]
  gone "$2" && fail "$3 ended by itself"
  curl --silent --fail --max-time 2 --output /dev/null "$1"
}
within 20 answers "$admin_url/readyz" "$operator" "the operator" ||
  fail "the operator is not ready: $(curl --silent --max-time 2 "$admin_url/readyz" || echo 'no answer')"
note "the operator runs out of cluster as process $operator and is ready"
within 10 answers "$receiver_url/received" "$receiver" "the receiver" || fail "the receiver does not answer"
note "a receiver with the npm library standardwebhooks listens on $receiver_url/hooks"

# ---- Configuring ----------------------------------------------------------------------------------------------

await_ready() { # resource
  kubectl wait --for=condition=Ready --timeout=20s "$1" >/dev/null || {
    kubectl describe "$1" >&2
    fail "$1 is not Ready"
  }
}
secret_value() { # secret key
  kubectl get secret "$1" -o "go-template={{index .data \"$2\" | base64decode}}"
}

kubectl apply -f examples/quickstart/project.yaml >/dev/null || fail "examples/quickstart/project.yaml is refused"
# The example as it is, but for the URL of the receiver.
kubectl patch --local -f examples/quickstart/destination.yaml --type merge -o yaml \
  -p "{\"spec\": {\"webhook\": {\"url\": \"$receiver_url/hooks\"}}}" | kubectl apply -f - >/dev/null ||
  fail "examples/quickstart/destination.yaml is refused"
await_ready eproj/acme
await_ready ed/acme-hooks
note "examples/quickstart is applied; eproj/acme and ed/acme-hooks are Ready"

token=$(secret_value "$(kubectl get eproj acme -o jsonpath='{.status.tokenSecretRef.name}')" token) ||
  fail "the publish token is not where eproj/acme says"
signing=$(secret_value "$(kubectl get ed acme-hooks -o jsonpath='{.status.signingSecretRef.name}')" secret) ||
  fail "the signing secret is not where ed/acme-hooks says"
case $signing in whsec_*) ;; *) fail "the signing secret is no Standard Webhooks secret" ;; esac
(umask 077 && printf '%s\n' "$signing" >"$demo/signing-secret")
publish_url=$url/v1/namespaces/$namespace/projects/acme/events
stated=$(kubectl get eproj acme -o jsonpath='{.status.ingestURL}')
[ "$stated" = "$publish_url" ] || fail "status.ingestURL of eproj/acme is $stated, not $publish_url"

(
  umask 077
  {
    printf 'export KUBECONFIG=%q\n' "$KUBECONFIG"
    printf 'export PATH=%q:"$PATH"\n' "$bin"
    printf 'export POSTRIDER_URL=%q\n' "$url"
    printf 'export POSTRIDER_ADMIN_URL=%q\n' "$admin_url"
    printf 'export POSTRIDER_TOKEN=%q\n' "$token"
    printf 'export POSTRIDER_PID=%q\n' "$operator"
    printf 'export RECEIVER_URL=%q\n' "$receiver_url"
  } >"$demo/env.part"
  mv "$demo/env.part" "$demo/env"
)

# ---- Publishing -----------------------------------------------------------------------------------------------

publish() { # body
  local answer status
  answer=$(curl --silent --show-error --max-time 10 --write-out '\n%{http_code}' "$publish_url" \
    -H "Authorization: Bearer $token" -H 'Content-Type: application/json' --data "$1") || fail "publishing"
  status=${answer##*$'\n'}
  [ "$status" = 202 ] || fail "publishing was answered $status: ${answer%$'\n'*}"
  printf '%s\n' "$1"
  note "202 ${answer%$'\n'*}"
}
# How many requests the receiver has verified.
verified() { grep -c '^verified: ' "$demo/receiver.log" || true; }
# shellcheck disable=SC2317 # called by `within`
verified_at_least() { (($(verified) >= $1)); }

heading "curl $publish_url"
publish '{"type": "credentials_failure",
  "user": {"id": "user-7"}, "integration": {"id": "57a96b31", "type": "slack"},
  "data": {"userId": "user-7", "error": "invalid_grant"}}'
within 15 verified_at_least 1 || fail "the receiver has verified nothing"
note "first verified delivery"
publish '[
  {"type": "tenant_created", "data": {"tenant_id": 7, "tenant_name": "Globex", "integration_id": 3, "integration_name": "CRM"}},
  {"type": "record_created", "sync": {"id": "163a345e", "integration": "googledrive"}, "user": {"id": "user-7"},
   "data": {"model": "files", "recordId": "r-1", "syncedAt": "2026-01-31T08:15:30.000Z"}}]'
within 15 verified_at_least 3 || fail "the receiver has verified $(verified) of 3 events"
if grep -q '^refused: ' "$demo/receiver.log"; then fail "the receiver has refused a request"; fi

status=$(curl --silent --output /dev/null --write-out '%{http_code}' --max-time 10 "$publish_url" \
  -H 'Authorization: Bearer wrong' -H 'Content-Type: application/json' --data '{"type": "run_failed"}') || true
[ "$status" = 401 ] || fail "a wrong token is answered $status, not 401"

# ---- Showing --------------------------------------------------------------------------------------------------

heading "what the receiver has verified (target/demo/receiver.log)"
cat "$demo/receiver.log"
heading "the first request, as it arrived (curl \$RECEIVER_URL/received)"
# shellcheck disable=SC2016 # the expressions are JavaScript's
curl --silent --max-time 5 "$receiver_url/received" |
  node -e '
    const [first] = JSON.parse(require("fs").readFileSync(0, "utf8"));
    for (const name of Object.keys(first.headers)) console.log(`${name}: ${first.headers[name]}`);
    console.log(`\n${JSON.stringify(first.body, null, 2)}`);' || fail "the receiver does not tell what it has received"

# Counters are written at most every 30 s per object.
# shellcheck disable=SC2317 # called by `within`
delivered_at_least() {
  local delivered
  delivered=$(kubectl get ed acme-hooks -o jsonpath='{.status.delivery.delivered}')
  ((${delivered:-0} >= $1))
}
heading "kubectl get eproj,ed"
note "waiting for the delivery counters in status (written at most every 30 s)"
within 45 delivered_at_least 3 || {
  kubectl get ed acme-hooks -o yaml >&2
  fail "status.delivery.delivered of ed/acme-hooks is not 3"
}
kubectl get eproj,ed
heading "kubectl get ed acme-hooks -o jsonpath={.status}"
kubectl get ed acme-hooks -o jsonpath='{.status}' |
  node -e 'console.log(JSON.stringify(JSON.parse(require("fs").readFileSync(0, "utf8")), null, 2))' ||
  fail "ed/acme-hooks has no status"

# ---- Staying or ending ----------------------------------------------------------------------------------------

if [ -n "$once" ]; then
  stop_all || fail "the operator did not stop cleanly"
  trap - EXIT
  printf '\n'
  note "passed"
  exit 0
fi

heading "it stays up; Ctrl-C stops all of it. In another terminal:"
cat <<TEXT
  . target/demo/env
  curl -i "\$POSTRIDER_URL/v1/namespaces/$namespace/projects/acme/events" \\
    -H "Authorization: Bearer \$POSTRIDER_TOKEN" -H 'Content-Type: application/json' \\
    -d '{"type": "integration_created", "data": {"integration_id": 3, "integration_name": "CRM"}}'
  curl "\$RECEIVER_URL/received"
  $bin/kubectl get eproj,ed
  $bin/kubectl describe ed acme-hooks
  curl "\$POSTRIDER_ADMIN_URL/metrics"
  tail -f target/demo/postrider.log target/demo/receiver.log
TEXT

while :; do
  gone "$operator" && fail "the operator ended by itself"
  gone "$receiver" && fail "the receiver ended by itself"
  sleep 1
done
