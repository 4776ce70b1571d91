#!/usr/bin/env bash
# Makes an environment and runs the tests that take long: several processes, meshes of eight devices, waves, notebooks, damaged disks,
# whole experiments from raw text and from a base model, experiments that grow, measured split curves, and the README's commands. All
# others are scripts/test.sh's. Arguments are pytest's.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
exec .venv/bin/python -m pytest --numprocesses=2 --dist=loadfile -m long "$@"
