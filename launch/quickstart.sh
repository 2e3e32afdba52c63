#!/usr/bin/env bash
# Trains and evaluates a small hourglass on drawn figures, then predicts the joints in new pictures: five to
# eight minutes on two cores.
# Usage: bash launch/quickstart.sh [WORKDIR [flags of main.py ...]]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
workdir=${1:-runs/quickstart}
flags=(--config=configs/quickstart.py --workdir="$workdir" "${@:2}")
python main.py "${flags[@]}"
python main.py "${flags[@]}" --mode=evaluate
python -m hourglass_jax.data.synthetic --output="$workdir/photos" --count=8 --variety=0.2
python -m hourglass_jax.predict "$workdir/photos" --boxes="$workdir/photos/boxes.json" \
  --workdir="$workdir" --output="$workdir/predicted"
echo "Pictures to look at: $workdir/pictures and $workdir/predicted"
