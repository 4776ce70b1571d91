#!/usr/bin/env bash
# From nothing to a recommended split: makes an environment and runs the main job on the bundled domains, on CPU in minutes.
# Flags are the train entry point's: bash scripts/quickstart.sh --workdir=runs/other --gin.Experiment.budget_tokens=3_000_000
set -euo pipefail
source "$(dirname "$0")/environment.sh"
exec .venv/bin/python -m jaxsplit.train --gin_file=configs/quickstart.gin --workdir=runs/quickstart "$@"
