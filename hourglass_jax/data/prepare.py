"""Prepares a dataset for training: python -m hourglass_jax.data.prepare --help"""

import argparse
import itertools
import os
import sys

import numpy as np

from hourglass_jax import console, files
from hourglass_jax.data import catalogue, packed, people_builder, pipeline, preparation
from hourglass_jax.media import draw
from hourglass_jax.pose import crop
from hourglass_jax.pose.skeletons import Skeleton

EXAMPLE = """\
example:
  python -m hourglass_jax.data.prepare --dataset=lspet --manual_dir=downloads \\
      --pack=packed --sheet=lspet.png
"""


def main(arguments=None) -> int:
    """Prepares a dataset as the flags say; returns the exit code of the process."""
    flags = _parser().parse_args(arguments)
    left = "interrupted: nothing is left half-prepared; start again"
    return console.run(_prepare, flags, interrupted=left)


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m hourglass_jax.data.prepare",
        description="Cuts a dataset's people to canvases of one size and stores them for training.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    config = people_builder.CropConfig()
    add = parser.add_argument
    names = [name for name, dataset in catalogue.DATASETS.items() if not dataset.drawn]
    add("--dataset", required=True, choices=names)
    add("--manual_dir", help="folder of the unpacked archive (default: DATA_DIR/downloads/manual)")
    add("--data_dir", help="folder where TFDS keeps prepared data (default: ~/tensorflow_datasets)")
    text = (
        "for coco: train.json,validation.json, or one file for both; for yolo: data.yaml; for dlc: a .csv; "
        "for labelme: a folder"
    )
    add("--annotations", default="", help=text)
    text = (
        "folder of the annotations' pictures, or one for each file (default: images in the file's folder, or "
        "that folder)"
    )
    add("--images", default="", help=text)
    text = "for coco: the name of the category to read, if a file has several with different keypoints"
    add("--category", default="", help=text)
    text = "source of a person's place and size (default: annotated if the dataset has it, else joints)"
    add("--box", default="auto", choices=("auto", "annotated", "joints", "image"), help=text)
    text = "side of the stored canvases, px (default: %(default)s)"
    add("--canvas", type=int, default=config.canvas, help=text)
    text = "side of the canvas / side of the nominal crop (default: %(default)s)"
    add("--margin", type=float, default=config.margin, help=text)
    text = "quality of the JPEGs, 1 ... 100 (default: %(default)s)"
    add("--quality", type=int, default=config.quality, help=text)
    text = "leave out people whose pictures or records are missing or damaged; all of them are listed"
    add("--allow_missing", action="store_true", help=text)
    add("--pack", help="write one file per split, readable without TensorFlow Datasets, to this folder")
    text = "draw 24 canvases with their joints into this picture (.png)"
    add("--sheet", type=os.path.expanduser, help=text)
    return parser


def _prepare(flags):
    files.check_output("sheet", flags.sheet, draw.ENDINGS)
    if flags.pack:
        files.check_writable(flags.pack)
    names = ("box", "canvas", "margin", "quality", "allow_missing")
    config = {name: getattr(flags, name) for name in names}
    if catalogue.find(flags.dataset).own:
        config |= {name: getattr(flags, name) for name in ("annotations", "images", "category")}
    elif flags.annotations or flags.images or flags.category:
        raise ValueError(
            f"--annotations, --images and --category are for your own data, not for {flags.dataset}"
        )
    builder = preparation.builder(flags.dataset, data_dir=flags.data_dir, **config)
    if builder.is_prepared():
        print(f"{flags.dataset} is prepared already; to prepare it again, delete {builder.data_dir}")
    preparation.prepare(builder, manual_dir=flags.manual_dir)
    splits = {split: packed.TfdsSource(builder, split) for split in builder.info.splits}
    for split, source in splits.items():
        print(f"{split}: {describe(source)}")
    print(flip_pairs(next(iter(splits.values())).skeleton))
    if builder.problems.exists():
        kinds = {"left_out": "people left out", "remarks": "remarks"}
        counts = [f"{builder.notes[name]:,} {kind}" for name, kind in kinds.items()]
        print(f"{', '.join(counts)}: see {builder.problems}")
        with builder.problems.open(errors="replace") as lines:
            print("".join(f"  {line}" for line in itertools.islice(lines, 5)), end="")
    box = builder.crops.box
    for split, source in splits.items() if flags.pack else ():
        path = packed.path(flags.pack, flags.dataset, box, split)
        packed.write(source, path)
        print(f"wrote {path} ({files.size(path) / 1e6:.1f} MB)")
    if flags.sheet:
        draw.save(flags.sheet, contact_sheet(next(iter(splits.values()))))
        print(f"wrote {flags.sheet}: check it before you train")
    print(f"next: {_training_command(flags, list(splits))}")


def _training_command(flags, splits) -> str:
    """The command that trains on the prepared data."""
    fields = {"dataset": flags.dataset, "train_split": splits[0], "validation_split": splits[:2][-1]}
    fields |= {"canvas": flags.canvas, "margin": flags.margin}
    if flags.pack:
        fields |= {"source": "packed", "packed_dir": flags.pack}
    else:
        fields |= {"quality": flags.quality, "data_dir": flags.data_dir}
        names = ("allow_missing", "annotations", "images", "category")
        fields |= {name: getattr(flags, name) for name in names}
    # On LSP's test split "auto" means another box, for which no data were prepared here.
    box = catalogue.find(flags.dataset).box_of(flags.box) if flags.pack else flags.box
    fields |= {"box": flags.box, "validation_box": box}
    options = [f"--config.data.{name}={value}" for name, value in fields.items() if value]
    command = "hourglass train --config=newell --workdir=runs/newell"
    return " \\\n    ".join([command, *options])


def describe(source) -> str:
    """One line about a source: the number of examples, and of joints of each kind."""
    visible = np.stack([example["visible"] for example in source])
    kinds = {2: "visible", 1: "occluded", 0: "not labelled"}
    counts = [f"{(visible == flag).sum():,} {kind}" for flag, kind in kinds.items()]
    return f"{len(source):,} examples; joints: {', '.join(counts)}"


def flip_pairs(skeleton: Skeleton) -> str:
    """One line about the joints that are swapped in a flipped picture."""
    pairs = [f"{skeleton.joints[a]} - {skeleton.joints[b]}" for a, b in skeleton.flip_pairs]
    return f"flip pairs: {', '.join(pairs) or 'none'}"


def contact_sheet(source, count: int = 24, columns: int = 6) -> np.ndarray:
    """(h, w, 3) uint8: canvases, evenly spaced in a source, with their labelled joints."""
    drawn = []
    for index in np.linspace(0, len(source) - 1, min(count, len(source))).astype(int):
        example = pipeline.load(source, index)
        frame = crop.canvas_from_image(
            example["center"], example["scale"], canvas=source.canvas, margin=source.margin
        )
        joints, labelled = crop.apply(frame, example["joints"]), example["visible"] > 0
        drawn.append(draw.skeleton(example["image"], joints, labelled, source.skeleton))
    return draw.sheet(drawn, columns)


if __name__ == "__main__":
    sys.exit(main())
