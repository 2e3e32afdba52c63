"""LSP and LSPet (Johnson and Everingham, BMVC 2010 and CVPR 2011) as TFDS datasets.

The pictures are cut to square canvases around the person, so that training reads small JPEGs of
one size; the joints stay in pixels of the full picture, and `crop.canvas_from_image` leads to the
canvas. Neither preparing nor reading (`packed.TfdsSource`) needs TensorFlow.
"""

import dataclasses
from concurrent import futures
from pathlib import Path

import cv2
import numpy as np
import scipy.io
import tensorflow_datasets as tfds
from absl import logging

from hourglass_jax.data import crop, pipeline, skeletons


@dataclasses.dataclass(eq=False)
class CropConfig(tfds.core.BuilderConfig):
    """How the canvases are cut.

    Attributes:
      name: made of the values below, so that differently prepared data never mix.
      box: where a person's place and size come from: "joints", or "image", the picture's centre and
        longer side (the convention for LSP's test set, where the joints are not to be looked at).
      canvas: side of the stored canvas, px.
      margin: side of the canvas / side of the nominal crop; room for rotation and enlargement.
      quality: of the JPEG, 1 ... 100.
      enlargement: side of the nominal crop / longer side of the joints' bounding box.
    """

    name: str = ""
    box: str = "joints"
    canvas: int = 384
    margin: float = 1.5
    quality: int = 95
    enlargement: float = 1.35

    def __post_init__(self):
        if self.box not in ("joints", "image"):
            raise ValueError(f"box={self.box!r}: must be 'joints' or 'image'")
        limits = {"canvas": (32, 4096), "margin": (1, 4), "quality": (1, 100)}
        for name, (low, high) in (limits | {"enlargement": (1, 4)}).items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)}: must be in {low} ... {high}")
        values = f"c{self.canvas}_m{self.margin:g}_q{self.quality}_e{self.enlargement:g}"
        self.name = f"{self.box}_{values}"


def read_joints(path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a joints.mat of LSP (3 x 14 x n, flag 1: occluded) or LSPet (14 x 3 x n, 1: labelled).

    Returns:
      joints (n, 14, 2) float32 px, (0, 0) where not labelled, and visible (n, 14) uint8: 0 not
      labelled, 1 occluded, 2 visible. LSPet does not tell occluded joints: its labelled ones are 2.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it holds something else.
    """
    expected = "expected a MATLAB file with `joints`, 14 x 3 x n (LSPet) or 3 x 14 x n (LSP)"
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; {expected}")
    try:
        content = scipy.io.loadmat(path)
    except Exception as error:  # SciPy has a dozen different ones for what is not MATLAB's
        raise ValueError(f"{path}: not readable ({type(error).__name__}); {expected}") from error
    if "joints" not in content:
        names = [name for name in content if not name.startswith("__")]
        raise ValueError(f"{path}: found the variables {names}; {expected}")
    table = content["joints"]
    known = table.ndim == 3 and table.shape[:2] in ((14, 3), (3, 14))
    if not known or table.dtype.kind not in "fiu":
        raise ValueError(f"{path}: found `joints` {table.shape} {table.dtype}; {expected}")
    extended = table.shape[0] == 14
    rows = table.transpose(2, 0, 1) if extended else table.transpose(2, 1, 0)
    points, flags = rows[..., :2], rows[..., 2]
    if not np.isfinite(points).all() or not np.isin(flags, (0, 1)).all():
        raise ValueError(f"{path}: found NaN, infinity or flags other than 0 and 1; {expected}")
    visible = (2 * flags if extended else 2 - flags).astype(np.uint8)
    # LSPet's unlabelled joints hold leftovers of a shift; nothing may read them.
    return np.where(visible[..., None] > 0, points, 0).astype(np.float32), visible


def person_box(joints, visible, width: int, height: int, config: CropConfig):
    """Place and size of the nominal crop.

    Args:
      joints: (k, 2) px.
      visible: (k,), 0 where not labelled.
      width, height: of the picture, px.
      config: says where from.

    Returns:
      center (2,) float32 px and scale float32: the crop's side is 200 * scale px.
    """
    longer = max(width, height)
    labelled = joints[visible > 0]
    if config.box == "image" or not len(labelled):
        center, side = np.array([width / 2, height / 2]), longer
    else:
        low, high = labelled.min(axis=0), labelled.max(axis=0)
        # Few joints may be labelled, and close together: never enlarge a spot to a whole canvas.
        extent = max((high - low).max(), 0.1 * longer)
        center, side = (low + high) / 2, config.enlargement * extent
    return center.astype(np.float32), np.float32(side / crop.REFERENCE)


def make_example(path: Path, joints, visible, name: str, config: CropConfig) -> dict | Path:
    """Cuts and encodes one canvas: an example as in `pipeline`, or an unreadable picture's path."""
    picture = pipeline.decode(path.read_bytes())
    if picture is None:
        return path
    height, width = picture.shape[:2]
    center, scale = person_box(joints, visible, width, height, config)
    frame = crop.canvas_from_image(center, scale, canvas=config.canvas, margin=config.margin)
    canvas = cv2.cvtColor(crop.cut(picture, frame, config.canvas), cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, config.quality])[1]
    return {
        **{"image": encoded.tobytes(), "joints": joints, "visible": visible},
        **{"center": center, "scale": scale, "head_size": np.float32(0)},
        **{"id": name, "width": width, "height": height},
    }


class _LeedsSports(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What LSP and LSPet share."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [CropConfig(box="joints"), CropConfig(box="image")]
    skeleton = skeletons.LSP
    folder: str  # of the unpacked archive
    digits: int  # of the pictures' numbers
    citation: str

    def _info(self):
        size = self.builder_config.canvas
        features = {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg"),
            "joints": tfds.features.Tensor(shape=(14, 2), dtype=np.float32),
            "visible": tfds.features.Tensor(shape=(14,), dtype=np.uint8),
            "center": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            **{name: np.float32 for name in ("scale", "head_size")},
            "id": tfds.features.Text(),
            **{name: np.int32 for name in ("width", "height")},
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(features),
            homepage=f"https://sam.johnson.io/research/{self.name}.html",
            citation=self.citation,
            license="No licence text. Published for research by its authors, who ask to be cited.",
            disable_shuffling=True,  # the official order, by which splits are defined
        )

    def is_prepared(self) -> bool:
        # TFDS' own answer comes with a warning for every folder that is not there yet.
        return (self.data_path / "dataset_info.json").exists()

    def find(self, manual_dir) -> Path:
        """The unpacked archive: `manual_dir` itself or the folder in it."""
        for folder in (Path(manual_dir) / self.folder, Path(manual_dir)):
            if (folder / "joints.mat").is_file():
                return folder
        how = " ".join(self.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise FileNotFoundError(f"{manual_dir}: found no {self.folder}/joints.mat. {how}")

    def _split_generators(self, dl_manager):
        folder = self.find(dl_manager.manual_dir)
        joints, visible = read_joints(folder / "joints.mat")
        splits = self._splits(folder, len(joints))
        names = [f"im{number:0{self.digits}d}" for number in range(1, len(joints) + 1)]
        found = {path.stem for path in (folder / "images").glob("*.jpg")}
        missing = [name for name in names if name not in found]
        if missing or len(found) != len(names):
            first = f" ({missing[0]}.jpg is missing)" if missing else ""
            raise ValueError(
                f"{folder}: joints.mat annotates {len(names)} pictures, images/ holds {len(found)}"
                f"{first}; unpack the archive again"
            )

        def make(index):
            path = folder / "images" / f"{names[index]}.jpg"
            name = f"{self.name}-{names[index]}"
            return make_example(path, joints[index], visible[index], name, self.builder_config)

        return {split: self._generate_examples(make, splits[split]) for split in splits}

    def _generate_examples(self, make, indices):
        unreadable = []
        for index, example in zip(indices, _map_in_order(make, indices), strict=True):
            if isinstance(example, Path):
                unreadable.append(example)
            else:
                yield int(index), example
        if unreadable:
            # Never a dataset that lacks some people; TFDS removes what it has written so far.
            names = ", ".join(path.name for path in unreadable[:5])
            more = " ..." if len(unreadable) > 5 else ""
            raise ValueError(
                f"{unreadable[0].parent}: {len(unreadable)} truncated picture(s) or no JPEG "
                f"({names}{more}); unpack the archive again"
            )


def _map_in_order(function, items, ahead: int = 256):
    """`map` on threads, `ahead` items at a time, so that memory does not hold all results."""
    with futures.ThreadPoolExecutor() as pool:
        for start in range(0, len(items), ahead):
            yield from pool.map(function, items[start : start + ahead])


class Lsp(_LeedsSports):
    """Leeds Sports Pose: 2,000 people in sports with 14 joints, half of them for testing."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Download lsp_dataset_original.zip (or lsp_dataset.zip, the same people 150 px tall) by Johnson and
Everingham, University of Leeds: https://sam.johnson.io/research/lsp.html, for research, to be
cited. Unpack it so that there are MANUAL_DIR/lsp_dataset/joints.mat and
MANUAL_DIR/lsp_dataset/images/im0001.jpg ... im2000.jpg.
"""
    folder = "lsp_dataset"
    digits = 4
    entries = 2000
    citation = """\
@inproceedings{johnson2010clustered,
  title={Clustered Pose and Nonlinear Appearance Models for Human Pose Estimation},
  author={Johnson, Sam and Everingham, Mark},
  booktitle={Proceedings of the British Machine Vision Conference},
  year={2010}
}"""

    def _splits(self, folder, length):
        if length != self.entries:  # the halves of an incomplete copy are not the official ones
            found = f"{folder}/joints.mat: found {length} entries"
            raise ValueError(f"{found}; LSP has {self.entries} (and LSPet is another dataset)")
        train, test = np.split(np.arange(length), 2)
        return {"train": train, "test": test}


class Lspet(_LeedsSports):
    """Leeds Sports Pose Extended: 10,000 people labelled by crowd workers, with 14 joints.

    Every 18th of them is set aside for validation. Occluded joints are not told from visible ones.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Download lspet_dataset.zip by Johnson and Everingham, University of Leeds:
https://sam.johnson.io/research/lspet.html, for research, to be cited. Unpack it so that there are
MANUAL_DIR/lspet_dataset/joints.mat and MANUAL_DIR/lspet_dataset/images/im00001.jpg ... im10000.jpg.
"""
    folder = "lspet_dataset"
    digits = 5
    citation = """\
@inproceedings{johnson2011learning,
  title={Learning Effective Human Pose Estimation from Inaccurate Annotation},
  author={Johnson, Sam and Everingham, Mark},
  booktitle={Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  year={2011}
}"""

    def _splits(self, folder, length):
        index = np.arange(length)
        return {"train": index[index % 18 != 0], "validation": index[index % 18 == 0]}


BUILDERS = {"lsp": Lsp, "lspet": Lspet}


def builder(dataset: str, *, data_dir=None, **config) -> tfds.core.DatasetBuilder:
    """The TFDS builder of a dataset, prepared or not.

    Args:
      dataset: "lsp" or "lspet".
      data_dir: where prepared data are kept; None for ~/tensorflow_datasets.
      **config: fields of `CropConfig`.
    """
    if dataset not in BUILDERS:
        raise ValueError(f"dataset={dataset!r}: must be one of {', '.join(BUILDERS)}")
    config = CropConfig(**config)
    known = BUILDERS[dataset].builder_configs  # TFDS refuses an equal config that is not its own
    config = known.get(config.name, config)
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # TFDS warns of each config that is not in its own list
    try:
        # Record files of this format are read at random and without TensorFlow.
        return BUILDERS[dataset](config=config, data_dir=data_dir, file_format="array_record")
    finally:
        logging.set_verbosity(verbosity)


def prepare(builder: tfds.core.DatasetBuilder, *, manual_dir=None) -> None:
    """Prepares a dataset, with a progress bar, unless it is prepared: whole or not at all.

    Args:
      builder: from `builder`.
      manual_dir: where the archive was unpacked; None for DATA_DIR/downloads/manual.

    Raises:
      FileNotFoundError: the archive is not there; the message tells how to get it.
      ValueError: it is not as it should be.
    """
    if not builder.is_prepared():
        usual = Path(builder.data_dir_root) / "downloads" / "manual"
        _prepare(builder, Path(manual_dir or usual).expanduser())
    if not builder.info.splits:
        # Another process has prepared it since the builder was made.
        builder.info.read_from_directory(builder.data_dir)


def _prepare(builder, manual_dir):
    builder.find(manual_dir)  # before TFDS answers with its own, longer message
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config)
    except OSError:
        # TFDS renames the finished folder into place; a faster process may have put its own there.
        if not builder.is_prepared():
            raise
