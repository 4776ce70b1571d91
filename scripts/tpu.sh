#!/usr/bin/env bash
# A Cloud TPU slice from your own machine: made, set up, trained on, looked at, taken down. docs/tpu.md goes through it.
#
#   export TPU_NAME=mine ZONE=europe-west4-b                   and PROJECT_ID where gcloud has no default
#   bash scripts/tpu.sh create --type=v5litepod-8              a slice now; --spot for one that may be taken away
#   bash scripts/tpu.sh queue --type=v5litepod-16 --spot       or when there is room: returns when it is there
#   bash scripts/tpu.sh setup                                  this checkout and its environment, on every host
#   bash scripts/tpu.sh mirror gs://BUCKET/runs/mine runs/mine     a copy in a bucket, kept from host 0 (scripts/mirror.sh)
#   bash scripts/tpu.sh launch --workdir=runs/mine --gin_file=quickstart.gin    training, detached; goes on by itself after 75
#   bash scripts/tpu.sh logs                                   follows host 0's log; Ctrl-C ends the looking, not the training
#   bash scripts/tpu.sh stop                                   all hosts save the same step and end
#   bash scripts/tpu.sh fetch runs/mine                        the results, without snapshots, to runs/mine here
#   bash scripts/tpu.sh delete                                 the slice, and its place in the queue
#
# --dry_run anywhere prints every command in place of running it. CHECKOUT is where the hosts have the checkout (jaxsplit, in the
# home folder). On slices of several hosts a work directory has to be one folder for all, on NFS say, and given by its whole path.
# Written after Google's documentation (cloud.google.com/tpu/docs: queued-resources, spot, jax-pods); not run on a TPU.
set -euo pipefail
cd "$(dirname "$0")/.."

dry_run=''
words=()
for word in "$@"; do
  if [ "$word" = --dry_run ] || [ "$word" = --dry-run ]; then dry_run=1; else words+=("$word"); fi
done
set -- ${words[@]+"${words[@]}"}

refuse() {
  echo "tpu.sh: $1" >&2
  exit 2
}

verbs='create, queue, setup, mirror, launch, logs, stop, fetch, delete'
verb=${1:-}
[ $# = 0 ] || shift
case ", $verbs, " in
  *", ${verb:-none}, "*) ;;
  *) refuse "${verb:+unknown command $verb; }give one of $verbs" ;;
esac
[ -n "${TPU_NAME:-}" ] || refuse "$verb needs the slice's name: export TPU_NAME=mine"
[ -n "${ZONE:-}" ] || refuse "$verb needs the slice's zone: export ZONE=europe-west4-b"
CHECKOUT=${CHECKOUT:-jaxsplit}
where=(--zone="$ZONE")
[ -z "${PROJECT_ID:-}" ] || where+=(--project="$PROJECT_ID")

run() {
  if [ -n "$dry_run" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}

on_hosts() {  # on_hosts WORKERS COMMAND
  run gcloud compute tpus tpu-vm ssh "$TPU_NAME" "${where[@]}" --worker="$1" --command="$2"
}

takes() {  # takes COUNT WORDS...: nothing is done where there are more words than a verb takes.
  local most=$1
  shift
  if [ $# -gt "$most" ]; then shift "$most"; refuse "$verb does not take $1; leave it out"; fi
}

slice_flags() {  # Sets `slice` from --type=, --runtime= and --spot.
  local type='' runtime='' spot=
  for word in "$@"; do
    case "$word" in
      --type=*) type=${word#--type=} ;;
      --runtime=*) runtime=${word#--runtime=} ;;
      --spot) spot=1 ;;
      *) refuse "$verb: unknown flag $word; known: --type=, --runtime=, --spot" ;;
    esac
  done
  [ -n "$type" ] || refuse "$verb needs the slice's type, as in --type=v5litepod-8 or --type=v6e-8"
  case "$type" in
    v6e-*) : "${runtime:=v2-alpha-tpuv6e}" ;;
    v5p-*) : "${runtime:=v2-alpha-tpuv5}" ;;
    v5litepod-*) : "${runtime:=v2-alpha-tpuv5-lite}" ;;
    *) : "${runtime:=tpu-ubuntu2204-base}" ;;
  esac
  slice=(--accelerator-type="$type")
  version=$runtime
  [ -z "$spot" ] || slice+=(--spot)
}

case "$verb" in
  create)
    slice_flags "$@"
    run gcloud compute tpus tpu-vm create "$TPU_NAME" "${where[@]}" "${slice[@]}" --version="$version" ;;
  queue)
    slice_flags "$@"
    run gcloud compute tpus queued-resources create "$TPU_NAME" --node-id="$TPU_NAME" "${where[@]}" "${slice[@]}" --runtime-version="$version"
    state=(gcloud compute tpus queued-resources describe "$TPU_NAME" "${where[@]}" '--format=value(state.state)')
    if [ -n "$dry_run" ]; then run "${state[@]}"; exit; fi
    while true; do
      now=$("${state[@]}")
      echo "$(date +%H:%M:%S) $now"
      case "$now" in
        ACTIVE) exit ;;
        FAILED | SUSPENDED) echo "tpu.sh: the request ended; bash scripts/tpu.sh delete, then queue again" >&2; exit 1 ;;
      esac
      sleep 30
    done ;;
  setup)
    takes 0 "$@"
    archive=/tmp/jaxsplit-$TPU_NAME.tar.gz
    run git archive --format=tar.gz --output="$archive" HEAD
    run gcloud compute tpus tpu-vm scp "$archive" "$TPU_NAME:/tmp/jaxsplit.tar.gz" "${where[@]}" --worker=all
    on_hosts all "mkdir -p $CHECKOUT && tar -xzf /tmp/jaxsplit.tar.gz -C $CHECKOUT && cd $CHECKOUT && bash scripts/tpu_vm_setup.sh" ;;
  mirror)
    takes 2 "$@"
    [ -n "${2:-}" ] || refuse "mirror needs the copy and the work directory: mirror gs://BUCKET/runs/mine runs/mine"
    copy=$(printf '%q %q' "$1" "$2")
    # What the bucket has must be there before training begins, so bringing it is awaited.
    on_hosts 0 "cd $CHECKOUT && ONCE=1 bash scripts/mirror.sh $copy"
    on_hosts 0 "cd $CHECKOUT && (nohup bash scripts/mirror.sh $copy >mirror.log 2>&1 </dev/null & echo \$! >/tmp/jaxsplit-mirror.pid)" ;;
  launch)
    case " $*" in *" --workdir"*) ;; *) refuse "launch needs the flags of train, --workdir=DIR among them" ;; esac
    command=$(printf '%q ' .venv/bin/python -u -m jaxsplit.train "$@")
    on_hosts all "cd $CHECKOUT && (nohup bash scripts/retry.sh $command >train.log 2>&1 </dev/null & echo \$! >/tmp/jaxsplit.pid)" ;;
  logs)
    takes 1 "$@"
    on_hosts "${1:-0}" "tail -n 100 -F $CHECKOUT/train.log" ;;
  stop)
    takes 0 "$@"
    on_hosts all "kill -TERM \"\$(cat /tmp/jaxsplit.pid)\"; [ ! -e /tmp/jaxsplit-mirror.pid ] || kill -TERM \"\$(cat /tmp/jaxsplit-mirror.pid)\"" ;;
  fetch)
    takes 1 "$@"
    workdir=${1:-}
    [ -n "$workdir" ] || refuse "fetch needs the work directory, as in fetch runs/mine"
    case "$workdir" in /*) there=$workdir ;; *) there=$CHECKOUT/$workdir ;; esac
    to=runs/$(basename "$workdir")
    on_hosts 0 "tar -czf /tmp/jaxsplit-results.tar.gz --exclude=checkpoints --exclude=store -C $there ."
    run mkdir -p "$to"
    run gcloud compute tpus tpu-vm scp "$TPU_NAME:/tmp/jaxsplit-results.tar.gz" "$to.tar.gz" "${where[@]}" --worker=0
    run tar -xzf "$to.tar.gz" -C "$to" ;;
  delete)
    takes 0 "$@"
    if [ -n "$dry_run" ] || gcloud compute tpus queued-resources describe "$TPU_NAME" "${where[@]}" >/dev/null 2>&1; then
      run gcloud compute tpus queued-resources delete "$TPU_NAME" "${where[@]}" --force --quiet
    fi
    if [ -n "$dry_run" ] || gcloud compute tpus tpu-vm describe "$TPU_NAME" "${where[@]}" >/dev/null 2>&1; then
      run gcloud compute tpus tpu-vm delete "$TPU_NAME" "${where[@]}" --quiet
    fi ;;
esac
