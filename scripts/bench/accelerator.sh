#!/usr/bin/env bash
# Everything that a GPU has to show, in one command of at most 8 minutes: that it computes what is right, how fast models train,
# stacks against runs in sequence, forks and snapshots. What is done is written at once, the most telling first, so that little is
# lost where the command is cut off.
#
#   bash scripts/bench/accelerator.sh                      with the packages that are there
#   bash scripts/bench/accelerator.sh --wheels=DIR         installs what is missing from a folder of wheels, without an index
#   bash scripts/bench/accelerator.sh --rehearse           the same at tiny sizes on the CPU
#   bash scripts/bench/accelerator.sh --out=DIR            for results.jsonl, summary.md and log.txt (default: runs/accelerator)
#   bash scripts/bench/accelerator.sh --minutes=20         more time for every step
#
# Needs Linux and Python >= 3.11 (PYTHON=/path/to/python3) with jax for the accelerator. That jax and all else that is there stay as
# they are: what is missing goes into an environment of its own on top, removed at the end. accelerator_wheels.sh makes DIR.
# Exit code: 0, all steps passed; 1, some did not; 2, no step could be run.
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "${BASH_SOURCE[0]}")/accelerator.py" "$@"
