"""Trains or evaluates a network, from a checkout; an installed package has `hourglass train` and `evaluate`.

python main.py --config=configs/quickstart.py --workdir=runs/quickstart
python main.py --config=configs/newell.py:stacks=2,dataset=lspet --workdir=runs/lspet --mode=evaluate
"""

from hourglass_jax.main import run

if __name__ == "__main__":
    run()
