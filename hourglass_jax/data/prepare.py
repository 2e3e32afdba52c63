"""Prepares a dataset for training: python -m hourglass_jax.data.prepare --help"""

import argparse
import sys
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from hourglass_jax import draw
from hourglass_jax.data import crop, lsp, packed, pipeline

EXAMPLE = """\
example:
  python -m hourglass_jax.data.prepare --dataset=lspet --manual_dir=downloads \\
      --pack=packed --sheet=lspet.png
"""


def main(arguments=None) -> int:
    """Prepares as the flags say; the process' exit code."""
    flags = _parser().parse_args(arguments)
    try:
        _prepare(flags)
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing is left half-prepared; start it again", file=sys.stderr)
        return 130
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m hourglass_jax.data.prepare",
        description="Cuts a dataset's people to canvases of one size and stores them for training.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    config = lsp.CropConfig()
    add = parser.add_argument
    add("--dataset", required=True, choices=lsp.BUILDERS)
    add("--manual_dir", help="folder with the unpacked archive; left out, it is explained")
    add("--data_dir", help="where TFDS keeps prepared data (default: ~/tensorflow_datasets)")
    text = "a person's place and size, from the joints or the picture's own (default: %(default)s)"
    add("--box", default=config.box, choices=("joints", "image"), help=text)
    text = "side of the stored canvases, px (default: %(default)s)"
    add("--canvas", type=int, default=config.canvas, help=text)
    text = "side of the canvas / side of the nominal crop (default: %(default)s)"
    add("--margin", type=float, default=config.margin, help=text)
    text = "of the JPEGs, 1 ... 100 (default: %(default)s)"
    add("--quality", type=int, default=config.quality, help=text)
    add("--pack", help="folder that gets one file per split, readable without TensorFlow Datasets")
    add("--sheet", help="picture (.png) that gets 24 canvases with their joints, to look at")
    return parser


def _prepare(flags):
    builder = lsp.builder(
        flags.dataset,
        data_dir=flags.data_dir,
        box=flags.box,
        canvas=flags.canvas,
        margin=flags.margin,
        quality=flags.quality,
    )
    if builder.is_prepared():
        print(f"{flags.dataset} is prepared already; to prepare it again, delete {builder.data_dir}")
    else:
        _build(builder, flags.manual_dir)
    sources = {split: packed.TfdsSource(builder, split) for split in builder.info.splits}
    for split, source in sources.items():
        print(f"{split}: {describe(source)}")
    if flags.pack:
        for split, source in sources.items():
            path = Path(flags.pack) / f"{flags.dataset}-{split}.npz"
            packed.write(source, path)
            print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if flags.sheet:
        draw.save(flags.sheet, contact_sheet(next(iter(sources.values()))))
        print(f"wrote {flags.sheet}: look at it before you train")
    print(f"The data are in {builder.data_dir}.")


def _build(builder, manual_dir):
    """Runs TFDS' preparation, which shows its progress and renames the finished folder into place."""
    if manual_dir is None:
        raise ValueError(f"--manual_dir is missing. {builder.MANUAL_DOWNLOAD_INSTRUCTIONS}")
    if not Path(manual_dir).is_dir():
        raise FileNotFoundError(f"--manual_dir={manual_dir}: there is no such folder")
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config)
    except OSError:
        # Another process that prepares the same may have finished first; its folder is as good.
        if not builder.is_prepared():
            raise


def describe(source) -> str:
    """One line on a source: how many examples, and joints of each kind."""
    visible = np.stack([example["visible"] for example in source])
    shares = [f"{(visible == flag).sum():,} {name}" for flag, name in JOINT_FLAGS.items()]
    return f"{len(source):,} examples; joints: {', '.join(shares)}"


JOINT_FLAGS = {2: "visible", 1: "occluded", 0: "not labelled"}


def contact_sheet(source, count: int = 24, columns: int = 6) -> np.ndarray:
    """(h, w, 3) uint8: canvases from all over a source, with their labelled joints."""
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
