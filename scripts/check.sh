#!/usr/bin/env bash
# What can be told of the code without running it: ruff, types (mypy), shellcheck, the reference page, and the documentation's site.
set -euo pipefail
export EXTRAS=dev,docs
source "$(dirname "$0")/environment.sh"
.venv/bin/ruff check
.venv/bin/mypy
.venv/bin/shellcheck scripts/*.sh scripts/bench/*.sh
.venv/bin/python scripts/reference.py --check
NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet
echo "all is well; the site is in build/site"
