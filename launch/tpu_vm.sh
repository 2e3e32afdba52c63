#!/usr/bin/env bash
# Trains on a TPU slice of Google Cloud, from your own machine with `gcloud`:
#
#   bash launch/tpu_vm.sh run hg8 --zone=us-west4-a --type=v5litepod-8 --spot -- \
#     --config=configs/newell.py:stacks=8,dataset=lspet --workdir=gs://BUCKET/hg8
#
# run      all of the following; a slice that is preempted is made again, until the training has ended
# create   asks for the slice (a queued resource) and waits until it is there
# install  copies this checkout's last commit to all of its hosts and installs what it needs
# start    starts the training on all hosts, with the flags after --; systemd starts it again after an error
# log      follows the log of the first host
# delete   deletes the slice
#
# --spot asks for a cheaper slice that may be taken away; --project=P and --version=RUNTIME go to gcloud; --image=NAME
# trains in a container (Dockerfile). --dry-run prints each command and runs none. All hosts must see the same
# --workdir. On a TPU VM itself `bash launch/tpu_vm.sh --config=...` trains at once (launch/tpu_worker.sh).
set -euo pipefail
if [[ "${1:-}" == --config* ]]; then exec bash "$(dirname "${BASH_SOURCE[0]}")/tpu_worker.sh" "$@"; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "Error: $1" >&2; exit 2; }
COMMAND=${1:-} NAME=${2:-}
case "$COMMAND" in
  run | create | install | start | log | delete) ;;
  *) fail "no command '$COMMAND'; there are run, create, install, start, log and delete." ;;
esac
[[ "$NAME" =~ ^[a-z][a-z0-9-]*$ ]] || fail "NAME='$NAME': expected small letters, digits and -, as in hg8."
shift 2
PLACE=() SPOT=() TYPE='' VERSION='' IMAGE='' DRY='' ZONE=''
while [ $# -gt 0 ]; do
  case "$1" in
    --zone=*) ZONE=${1#*=} PLACE+=("$1") ;;
    --project=*) PLACE+=("$1") ;;
    --type=*) TYPE=${1#*=} ;;
    --version=*) VERSION=${1#*=} ;;
    --image=*) IMAGE=${1#*=} ;;
    --spot) SPOT=(--spot) ;;
    --dry-run) DRY=yes ;;
    --) shift; break ;;
    *) fail "$1 is unknown; the training's own flags come after --." ;;
  esac
  shift
done
[ -n "$ZONE" ] || fail "--zone=ZONE must be given."
case "$COMMAND" in
  run | create) [ -n "$TYPE" ] || fail "--type=TYPE must be given, such as v5litepod-8." ;;
esac
case "$COMMAND" in
  run | start) [ $# -gt 0 ] || fail "the training's flags must follow --, such as -- --config=... --workdir=gs://..." ;;
esac
if [ -z "$VERSION" ]; then
  case "$TYPE" in
    v5litepod-*) VERSION=v2-alpha-tpuv5-lite ;;
    v5p-*) VERSION=v2-alpha-tpuv5 ;;
    v6e-*) VERSION=v2-alpha-tpuv6e ;;
    *) VERSION=tpu-ubuntu2204-base ;;
  esac
fi
PAUSE=${PAUSE:-30} # s between two looks at the slice

# Prints a command on stderr and runs it; in a dry run the answer that the next step waits for takes its place.
tpus() {
  local expected=$1
  shift
  local line='gcloud compute tpus' word
  for word in "$@"; do
    if [[ "$word" =~ ^[A-Za-z0-9_./:=,@-]+$ ]]; then line+=" $word"; else line+=" ${word@Q}"; fi
  done
  echo "$line" >&2
  if [ -z "$DRY" ]; then
    gcloud compute tpus "$@"
  elif [ -n "$expected" ]; then
    echo "$expected"
  fi
}
on() { tpus "$1" tpu-vm ssh "$NAME" "${PLACE[@]}" --worker="$2" --command="$3"; }
state() {
  tpus "$1" queued-resources describe "$NAME" "${PLACE[@]}" --format='value(state.state)' || echo NONE
}

create() {
  tpus '' queued-resources create "$NAME" --node-id="$NAME" "${PLACE[@]}" --accelerator-type="$TYPE" \
    --runtime-version="$VERSION" "${SPOT[@]}" || return 1
  while true; do
    found=$(state ACTIVE)
    case "$found" in
      ACTIVE) return ;;
      FAILED | SUSPENDED | NONE) echo "The slice is not given: $found." >&2; return 1 ;;
    esac
    sleep "$PAUSE"
  done
}

install() {
  local archive
  archive=$(mktemp --suffix=.tar.gz)
  git archive --output="$archive" HEAD
  tpus '' tpu-vm scp "$archive" "$NAME:hourglass_jax.tar.gz" "${PLACE[@]}" --worker=all || return 1
  rm "$archive"
  on '' all "mkdir -p hourglass_jax && tar -xzf hourglass_jax.tar.gz -C hourglass_jax && \
IMAGE=$(printf %q "$IMAGE") bash hourglass_jax/launch/tpu_worker.sh --install"
}

# systemd sends SIGTERM to the training when the machine is taken away, and waits for what it saves; an error, such as a
# host that is lost, starts it again, ten times in an hour at most.
start() {
  local flags
  flags=$(printf ' %q' "$@")
  on '' all "sudo systemctl reset-failed hourglass 2>/dev/null; sudo systemd-run --unit=hourglass --uid=\$(id -u) \
--setenv=HOME=\$HOME --setenv=IMAGE=$(printf %q "$IMAGE") --working-directory=\$HOME/hourglass_jax \
--property=Restart=on-failure --property=RestartSec=20 --property=StartLimitIntervalSec=3600 --property=StartLimitBurst=10 --property=KillMode=mixed \
--property=TimeoutStopSec=28 bash launch/tpu_worker.sh$flags"
}

log() { on '' 0 'journalctl --unit=hourglass --output=cat --follow --lines=50'; }
delete() { tpus '' queued-resources delete "$NAME" "${PLACE[@]}" --force --quiet; }

finish() {
  on '' 0 'journalctl --unit=hourglass --output=cat --lines=20' || true
  delete
  if [ "$1" != 0 ]; then echo "Error: the training failed; its last lines are above." >&2; fi
}

LOOK='if journalctl --unit=hourglass --output=cat --lines=3 | grep -q "^Stopped after step"; then echo stopped; else systemctl is-active hourglass || true; fi'

run() {
  while true; do
    if create && install && start "$@"; then
      while [ "$(state ACTIVE)" = ACTIVE ]; do
        # Its state is "activating" between two starts. No answer says nothing: the slice may be going.
        case "$(on inactive 0 "$LOOK" || true)" in
          inactive) finish 0; return ;;
          failed) finish 1; return 1 ;;
          stopped) # by SIGTERM: before a preemption, or where the machine stays after all
            sleep "$PAUSE"
            if [ "$(state ACTIVE)" = ACTIVE ]; then start "$@" || true; fi
            ;;
        esac
        sleep "$PAUSE"
      done
    fi
    echo "The slice was taken away or not given; asking again." >&2
    delete || true
    sleep "$PAUSE"
  done
}

"$COMMAND" "$@"
