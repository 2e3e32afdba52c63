"""Writes pictures of drawn people to try a predictor: python -m hourglass_jax.data.synthetic --help"""

import argparse
import os
import sys

from hourglass_jax import console, files
from hourglass_jax.data.synthetic.source import SyntheticPeople
from hourglass_jax.media import draw


def write_pictures(output: str | os.PathLike, count: int, *, size: int, seed: int, variety: float) -> None:
    """Writes PNG pictures and `boxes.json`, which has the person's box [x, y, width, height] of each."""
    output, boxes = files.path(output), {}
    people = SyntheticPeople(split="demo", examples=count, seed=seed, canvas=size, variety=variety)
    for index in range(count):
        example = people[index]
        # The person fills four fifths of the nominal crop.
        name, side = f"{example['id']}.png", 0.8 * 200 * float(example["scale"])
        draw.save(output / name, example["image"])
        corner = (example["center"] - side / 2).tolist()
        boxes[name] = [[round(value, 2) for value in (*corner, side, side)]]
    files.write_json(output / "boxes.json", boxes)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write pictures of drawn people to try a predictor.")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--count", type=int, default=8, help="number of pictures")
    parser.add_argument("--size", type=int, default=256, help="side of a picture in pixels")
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawing")
    parser.add_argument("--variety", type=float, default=1.0, help="difficulty of the pictures, in [0, 1]")
    options = parser.parse_args(arguments)

    def command() -> None:
        write_pictures(**vars(options))
        print(f"{options.count} pictures and boxes.json in {options.output}")

    return console.run(command)


if __name__ == "__main__":
    sys.exit(main())
