#!/usr/bin/env bash
# Trains on a TPU VM, or on all hosts of a TPU pod. From your own machine:
#   gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command \
#     "cd hourglass_jax && bash launch/tpu_vm.sh --config=configs/newell.py:stacks=8,dataset=lspet \
#      --workdir=/mnt/shared/hg8 --config.train.batch_size=64"
# All hosts must see the same --workdir. Started again, a preempted training resumes.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
python -c 'import importlib.util as u; raise SystemExit(u.find_spec("libtpu") is None)' ||
  python -m pip install --quiet --upgrade "jax[tpu]==$(python -c 'import jax; print(jax.__version__)')"
python -c 'import jax; assert jax.default_backend() == "tpu", "JAX finds no TPU"'
exec python main.py --distributed "$@"
