#!/usr/bin/env bash
# Runs a small experiment again and again while killing it, also while it grows and while its store is made, filling its disk,
# damaging its files and moving its corpus, and compares what it ends with with an undisturbed run. Prints a table of what was tried
# and what came of it; exit code 1 if anything differs.
#
#   bash scripts/soak.sh                                  30 SIGKILLs at random moments, then each of the other faults once
#   bash scripts/soak.sh --signal=TERM --kills=30         the same with SIGTERM
#   bash scripts/soak.sh --devices=1,2,8 --kills=10       each start on another number of emulated CPU devices
#
# About 10 minutes on 2 quiet cores; --seconds bounds it. Ends only processes that it has started.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
exec .venv/bin/python scripts/soak "$@"
