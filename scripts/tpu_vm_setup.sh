#!/usr/bin/env bash
# Sets up one host of a Cloud TPU VM: the environment .venv with JAX for TPU in this checkout, and a look at the chips.
#
#   bash scripts/tpu_vm_setup.sh               on the host itself, as on a v5litepod-8 or v6e-8, which is one host
#   bash scripts/tpu.sh setup                  on all hosts of a slice, from your own machine
#
# Huge pages make the TPU's runtime start and stop sooner on v5e and newer, as JAX says itself when they are off; that needs sudo
# and is skipped without. Written after cloud.google.com/tpu/docs/jax-pods and JAX's own sources; not run on a TPU.
set -euo pipefail
if [ $# != 0 ]; then echo "tpu_vm_setup.sh: takes no arguments, and has $1; leave it out" >&2; exit 2; fi
if sudo -n true 2>/dev/null; then
  echo always | sudo tee /sys/kernel/mm/transparent_hugepage/enabled >/dev/null || true
  # Images of Ubuntu 22.04 bring Python 3.10, which is too old.
  if ! ls /usr/bin/python3.1[1-9] >/dev/null 2>&1; then
    sudo apt-get update -qq && sudo apt-get install -y -qq python3.11 python3.11-venv
  fi
fi
export EXTRAS=tpu
source "$(dirname "$0")/environment.sh"
# Of a slice of several hosts, the chips answer only once all hosts ask: the first training does that.
if [ "${1:-}" = "--alone" ]; then
  .venv/bin/python -c 'import jax; print(jax.devices())'
fi
