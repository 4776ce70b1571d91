#!/usr/bin/env bash
# Makes an environment and runs the tests, two files at a time, but those that take long, which are scripts/test_long.sh's. Arguments
# are pytest's: bash scripts/test.sh tests/training -k fork
set -euo pipefail
source "$(dirname "$0")/environment.sh"
exec .venv/bin/python -m pytest --numprocesses=2 --dist=loadfile -m "not long" "$@"
