#!/usr/bin/env bash
# Trains on a TPU VM, or as one of the hosts of a slice; launch/tpu_vm.sh starts it on all of them. The arguments are
# those of main.py. With IMAGE=NAME it runs in that container (Dockerfile, JAX="jax[tpu]"); with --install it installs
# what it needs and ends.
if [ -n "${IMAGE:-}" ]; then
  if [ "${1:-}" = --install ]; then exec sudo docker pull "$IMAGE"; fi
  exec sudo docker run --rm --privileged --net=host --volume="$HOME:$HOME" --workdir="$HOME" "$IMAGE" \
    train --distributed "$@"
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
python -c 'import importlib.util as u; raise SystemExit(u.find_spec("libtpu") is None)' ||
  python -m pip install --quiet --upgrade "jax[tpu]==$(python -c 'import jax; print(jax.__version__)')"
if [ "${1:-}" = --install ]; then exit; fi
python -c 'import glob; assert glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*"), "there is no TPU here"'
exec python main.py --distributed "$@"
