# hourglass_jax on CPUs, or on NVIDIA's GPUs:
#   docker build -t hourglass_jax .
#   docker build -t hourglass_jax:gpu --build-arg JAX="jax[cuda13]" .
#   docker build -t hourglass_jax:tpu --build-arg JAX="jax[tpu]" .
#   docker run --rm --gpus all -v "$PWD/runs:/runs" hourglass_jax:gpu train --config=quickstart --workdir=/runs/quickstart
# launch/tpu_vm.sh --image=NAME and IMAGE=NAME sbatch launch/slurm.sh ... run in it, too.
# The pip packages of CUDA need the driver of the host and no CUDA image.
FROM python:3.11-slim
ARG JAX="jax"
WORKDIR /src
COPY . .
# JAX in the version of the lock, so that its plugin for CUDA fits.
RUN pip install --no-cache-dir ".[train,video]" "${JAX}==$(sed -n 's/^jax==\([0-9.]*\).*/\1/p' requirements.lock)"
WORKDIR /runs
ENTRYPOINT ["hourglass"]
CMD ["--help"]
