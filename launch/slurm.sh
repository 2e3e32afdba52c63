#!/usr/bin/env bash
# Trains on the GPUs of a SLURM cluster, a process for each GPU; JAX finds the others by SLURM's variables. The arguments are
# those of main.py; what SLURM is to give is said before them:
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm.sh --config=configs/newell.py:stacks=8,dataset=lspet \
#     --workdir=/shared/hg8
# With IMAGE=NAME it runs in that container by pyxis (Dockerfile, JAX="jax[cuda13]"). SIGTERM comes a minute before the
# time limit and at a preemption: the training saves, and the job is queued again until it has ended.
#SBATCH --job-name=hourglass
#SBATCH --cpus-per-task=8
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
if [ -n "${IMAGE:-}" ]; then
  train=(srun --kill-on-bad-exit=1 --container-image="$IMAGE" --container-mounts="$PWD:$PWD,/shared:/shared"
    --container-workdir="$PWD" hourglass train)
else
  srun --nodes=1 --ntasks=1 bash launch/gpu.sh --help > /dev/null # installs, once
  train=(srun --kill-on-bad-exit=1 bash launch/gpu.sh)
fi
last=$("${train[@]}" --distributed "$@" | tee /dev/stderr | tail -n 1)
if [[ "$last" == "Stopped after step"* ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
