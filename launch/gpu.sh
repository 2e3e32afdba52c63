#!/usr/bin/env bash
# Trains on the GPUs of this machine. The arguments are those of main.py:
#   bash launch/gpu.sh --config=configs/newell.py:stacks=8,dataset=lspet --workdir=runs/hg8 \
#     --config.model.dtype=bfloat16 --config.train.batch_size=32
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
python -c 'import importlib.util as u; raise SystemExit(u.find_spec("jax_cuda13_plugin") is None)' ||
  python -m pip install --quiet --upgrade "jax[cuda13]==$(python -c 'import jax; print(jax.__version__)')"
python -c 'import jax; assert jax.default_backend() == "gpu", "JAX finds no GPU"'
exec python main.py "$@"
