# shellcheck shell=bash
# Sourced by the other scripts: makes the virtual environment .venv in the checkout, or reuses it when it is current.
#
#   PYTHON=python3.13   the interpreter (default: the first of python3, python3.13, python3.12, python3.11 that is 3.11 or newer)
#   EXTRAS=cuda         more of pyproject.toml's extras, comma-separated (tpu, cuda, beam, lm-eval, dev, docs)
#
# Needs git, Python >= 3.11 and a package index that pip can reach.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
if [ -z "${PYTHON:-}" ]; then
  for candidate in python3 python3.13 python3.12 python3.11; do
    if new_enough "$candidate"; then PYTHON=$candidate; break; fi
  done
fi
if [ -z "${PYTHON:-}" ] || ! new_enough "$PYTHON"; then
  echo "jaxsplit: needs Python 3.11 or newer; install one, or name it: PYTHON=/path/to/python3 bash $0" >&2
  exit 2
fi

# Of an environment that is active, .venv itself perhaps, the Python that it was made with: .venv may be made anew below.
PYTHON=$("$PYTHON" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))')

# What another script asked for stays, so that they do not take turns in making the environment anew.
extras=$(printf '%s\n' test ${EXTRAS:+${EXTRAS//,/ }} "$(cat .venv/extras 2>/dev/null)" | tr ' ' '\n' | sed '/^$/d' | sort -u | paste -sd ,)
wanted="$("$PYTHON" -c 'import sys; print(sys.version, sys.prefix)') $extras $(cksum pyproject.toml)"
if [ "$(cat .venv/current 2>/dev/null)" != "$wanted" ]; then
  echo "making the environment .venv (once; a few minutes)"
  rm -rf .venv
  "$PYTHON" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
  echo "${extras//,/ }" > .venv/extras
  echo "$wanted" > .venv/current
fi
