#!/usr/bin/env bash
# Fetches, from a package index, the wheels that a machine without one needs for accelerator.sh, into a folder.
#
#   bash scripts/bench/accelerator_wheels.sh DIR           for a machine with jax and what that needs
#   bash scripts/bench/accelerator_wheels.sh DIR HAVE      and with the packages in the file HAVE, which are left out: a line
#                                                          each, as `pip freeze` writes them there, or a name alone
#
#   PYTHON_VERSION=3.12 JAX_VERSION=0.11.*                 the machine's (these are the defaults); Linux on x86-64
#   PYTHON=/path/to/python3                                 whose pip fetches them; no older than the machine's
set -euo pipefail
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  echo "usage: bash $0 DIR [HAVE]" >&2
  exit 2
fi
root="$(dirname "${BASH_SOURCE[0]}")/../.."
python="${PYTHON:-python3}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

"$python" "$root/scripts/bench/accelerator.py" --requirements > "$work/requirements.txt"
printf '%s\n' jax jaxlib ml_dtypes numpy opt_einsum scipy > "$work/have.txt"
if [ $# = 2 ]; then cat "$2" >> "$work/have.txt"; fi
grep -E '^[A-Za-z0-9._-]+==' "$work/have.txt" | grep -vE '^jax==|^jaxlib==' > "$work/constraints.txt" || true
sed -nE 's/^(jax(lib)?==.*)$/\1/p' "$work/have.txt" >> "$work/constraints.txt"
if ! grep -q '^jax==' "$work/constraints.txt"; then echo "jax==${JAX_VERSION:-0.11.*}" >> "$work/constraints.txt"; fi

there=(--only-binary=:all: --implementation=cp "--python-version=${PYTHON_VERSION:-3.12}" --platform=linux_x86_64
       --platform=manylinux2014_x86_64 --platform=manylinux1_x86_64)
for minor in $(seq 17 39); do there+=("--platform=manylinux_2_${minor}_x86_64"); done

"$python" -m pip install --quiet --disable-pip-version-check --dry-run --ignore-installed --target="$work/none" "${there[@]}" \
  --report="$work/report.json" --constraint="$work/constraints.txt" --requirement="$work/requirements.txt"
"$python" - "$work" > "$work/missing.txt" <<'EOF'
import json, pathlib, re, sys
work = pathlib.Path(sys.argv[1])
plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
have = {plain(re.split("[=@ ]", line, maxsplit=1)[0]) for line in (work / "have.txt").read_text().splitlines()}
for one in json.loads((work / "report.json").read_text())["install"]:
  about = one["metadata"]
  if plain(about["name"]) not in have:
    print(f"{about['name']}=={about['version']}")
EOF
"$python" -m pip download --quiet --disable-pip-version-check --no-deps "${there[@]}" --dest="$1" --requirement="$work/missing.txt"
echo "$(wc -l < "$work/missing.txt") wheels, $(du -sh "$1" | cut -f1), in $1"
