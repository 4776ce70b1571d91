#!/usr/bin/env bash
# Runs a command again for as long as it ends with exit code 75, "stopped and saved: give me again", as training does where another
# host of it was stopped. A SIGTERM or SIGINT to this script goes on to the command and ends both. Its exit code is the command's.
#
#   bash scripts/retry.sh .venv/bin/python -m jaxsplit.train --workdir=runs/mine ...
set -uo pipefail
stopped=
child=
told=
tell() {
  if [ -n "$child" ] && [ -z "$told" ]; then
    told=1  # Once: a second signal would end training without saving.
    kill -TERM "$child" 2>/dev/null
  fi
}
# shellcheck disable=SC2317  # Called by the trap.
stop() {
  stopped=1
  tell
}
trap stop TERM INT
while true; do
  child=
  "$@" &
  child=$!
  [ -z "$stopped" ] || tell  # The signal came before the command's process was known.
  code=0
  wait "$child" || code=$?
  while kill -0 "$child" 2>/dev/null; do  # A signal ends the wait, not the command.
    code=0
    wait "$child" || code=$?
  done
  if [ "$code" != 75 ] || [ -n "$stopped" ]; then exit "$code"; fi
  echo "retry.sh: exit code 75, so the same command again"
done
