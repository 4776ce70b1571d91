#!/usr/bin/env bash
# Keeps a copy of a work directory in a bucket, for machines that are taken away with their disks: first brings what the bucket has,
# then copies what is new every EVERY seconds (300) and once more at the end (SIGTERM). With
# ONCE=1 it only brings.
#
#   bash scripts/mirror.sh gs://BUCKET/runs/mine runs/mine
#
# A copy made in the middle of a write is what a killed process leaves: training finds what is torn and makes it again. Needs
# gcloud, and of the account storage.objectAdmin and storage.legacyBucketReader on the bucket (docs/tpu.md). Not run on a bucket.
set -euo pipefail
bucket=${1:?name the copy, as in gs://BUCKET/runs/mine} workdir=${2:?name the work directory}
push() { gcloud storage rsync --recursive --delete-unmatched-destination-objects "$workdir" "$bucket"; }
mkdir -p "$workdir"
if gcloud storage ls "$bucket/**" >/dev/null 2>&1; then
  gcloud storage rsync --recursive "$bucket" "$workdir"
fi
[ -z "${ONCE:-}" ] || exit 0
trap 'push; exit 0' TERM INT
while true; do
  sleep "${EVERY:-300}" &
  wait $!
  push || echo "mirror.sh: not copied this time; tried again in ${EVERY:-300} s" >&2
done
