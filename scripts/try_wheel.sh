#!/usr/bin/env bash
# What somebody sees who installs jaxsplit: builds the wheel, installs it into an environment of its own, and in an empty folder runs
# the quickstart, shortened unless WHOLE=1. Leaves nothing behind. Needs git, Python >= 3.11 and a package index; 3 to 10 minutes.
#
#   bash scripts/try_wheel.sh
set -euo pipefail
cd "$(dirname "$0")/.."
checkout=$PWD
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
pip() { "$place/venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
pip wheel --no-deps --wheel-dir="$place/wheel" "$checkout"
pip install "$place"/wheel/jaxsplit-*.whl
mkdir "$place/empty"
cd "$place/empty"
few=(--gin.Experiment.budget_tokens=60_000 --gin.Probe.rates="(16e-3,)" --gin.FitSettings.bootstrap=20
     --gin.Optimizer.warmup_tokens=8_192)
[ -z "${WHOLE:-}" ] || few=()
"$place/venv/bin/python" -m jaxsplit.train --gin_file=quickstart.gin --workdir=runs/quickstart "${few[@]}"
ls runs/quickstart/report.html runs/quickstart/plan.json
