#!/usr/bin/env bash
# Runs the same command on all hosts of a Cloud TPU slice, from your own machine. The processes find each other by themselves.
#
#   export TPU_NAME=mine ZONE=europe-west4-b        the slice, made with gcloud compute tpus tpu-vm create
#   export CHECKOUT=/mnt/shared/jaxsplit            this checkout, as every host sees it
#   bash scripts/tpu_pod_launch.sh --setup
#   bash scripts/tpu_pod_launch.sh --workdir=/mnt/shared/runs/mine --gin_file=configs/quickstart.gin
#   bash scripts/tpu_pod_launch.sh --stop           SIGTERM to every host: all save the same step and end with exit code 75
#
# The work directory must be one folder for all hosts, with atomic renames: NFS, say, and no bucket. The environment (.venv) lies
# in CHECKOUT; where that is shared too, it is made once, by worker 0. Goes on by itself for as long as the command ends with 75,
# "give me again"; gcloud's code is the remote one only if all hosts agree, so other codes end it too. A host that is gone ends
# the others after 100 seconds without its heartbeat. Written after cloud.google.com/tpu/docs/jax-pods; not run on a TPU.
set -euo pipefail
: "${TPU_NAME:?name the slice}" "${ZONE:?name its zone}" "${CHECKOUT:?name the checkout as the hosts see it}"

on_hosts() {  # on_hosts WORKERS COMMAND
  gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" ${PROJECT_ID:+--project="$PROJECT_ID"} --worker="$1" --command="$2"
}

case "${1:-}" in
  # WORKERS=0 where CHECKOUT is shared.
  --setup) on_hosts "${WORKERS:-all}" "cd $CHECKOUT && bash scripts/tpu_vm_setup.sh"; exit ;;
  --stop) on_hosts all 'kill -TERM "$(cat /tmp/jaxsplit.pid)"'; exit ;;
esac
arguments=$(printf '%q ' "$@")
while true; do
  code=0
  # The shell becomes the process, so that the number it leaves is the one to stop.
  on_hosts all "cd $CHECKOUT && echo \$\$ > /tmp/jaxsplit.pid && exec .venv/bin/python -u -m jaxsplit.train $arguments" || code=$?
  [ "$code" = 75 ] && [ -z "${ONCE:-}" ] || exit "$code"
done
