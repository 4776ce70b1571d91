#!/usr/bin/env bash
# One experiment on several nodes of a SLURM cluster, one process for each GPU. Edit the resources, then, from the checkout:
#
#   sbatch scripts/slurm.sh --workdir=/shared/runs/mine --gin_file=configs/quickstart.gin
#
# JAX reads SLURM's environment by itself: process 0 is the first node's, and each process takes the GPU of its SLURM_LOCALID,
# so there must be as many tasks on a node as GPUs. The work directory and the checkout must be the same for all nodes.
# SLURM sends SIGTERM to all processes two minutes before the time is up, or when the job is preempted: all save the same step
# and end with 75, and the job is queued again. Written after SLURM's and JAX's documentation; not run on a cluster.
#SBATCH --job-name=jaxsplit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
code=0
# Without --kill-on-bad-exit=0, a site's default may kill the others while they still save.
srun --kill-on-bad-exit=0 .venv/bin/python -u -m jaxsplit.train "$@" || code=$?
if [ "$code" = 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
