"""LSP and LSPet (Johnson and Everingham, BMVC 2010 and CVPR 2011) as TFDS datasets.

The pictures are cut to square canvases around the person, so that training reads small JPEGs of one
size; the joints stay in pixels of the full picture (`crop.canvas_from_image` leads to the canvas).
Neither preparing nor reading (`packed.TfdsSource`) needs TensorFlow.
"""

import dataclasses
import functools
from concurrent import futures
from pathlib import Path

import cv2
import numpy as np
import scipy.io
import tensorflow_datasets as tfds

from hourglass_jax.data import crop, pipeline, skeletons


@dataclasses.dataclass(eq=False)
class CropConfig(tfds.core.BuilderConfig):
    """How the canvases are cut.

    Attributes:
      name: made of the values below, so that differently prepared data never mix.
      box: where the person's position and size come from: "joints", or "image", the picture's centre
        and longer side (the convention of LSP's test set).
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
        if not (self.canvas >= 1 and self.margin > 0 and self.enlargement > 0):
            raise ValueError(f"canvas, margin and enlargement must be positive: {self}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality={self.quality}: must be in 1 ... 100")
        self.name = (
            f"{self.box}_c{self.canvas}_m{self.margin:g}_q{self.quality}_e{self.enlargement:g}"
        )


def read_joints(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a joints.mat of LSP (3 x 14 x n, flag 1: occluded) or LSPet (14 x 3 x n, 1: labelled).

    Returns:
      joints (n, 14, 2) float32 px, (0, 0) where not labelled, and visible (n, 14) uint8: 0 not labelled,
      1 occluded, 2 visible. LSPet does not tell occluded joints from visible ones: all are 2.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it holds something else.
    """
    expected = "expected a MATLAB file with `joints`, 14 x 3 x n (LSPet) or 3 x 14 x n (LSP)"
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; {expected}")
    try:
        content = scipy.io.loadmat(path)
    except Exception as error:  # SciPy raises a dozen different ones for a file that is not MATLAB's
        raise ValueError(f"{path}: not readable ({type(error).__name__}); {expected}") from error
    if "joints" not in content:
        names = [name for name in content if not name.startswith("__")]
        raise ValueError(f"{path}: has the variables {names}; {expected}")
    table = content["joints"]
    if table.ndim != 3 or table.shape[:2] not in ((14, 3), (3, 14)) or table.dtype.kind not in "fiu":
        raise ValueError(f"{path}: `joints` is {table.shape} {table.dtype}; {expected}")
    if not np.isfinite(table).all() or not np.isin(_flags(table), (0, 1)).all():
        raise ValueError(f"{path}: `joints` has NaN, infinity or flags other than 0 and 1; {expected}")
    if table.shape[0] == 14:
        points, visible = table[:, :2].transpose(2, 0, 1), 2 * _flags(table)
    else:
        points, visible = table[:2].transpose(2, 1, 0), 2 - _flags(table)
    visible = visible.astype(np.uint8)
    # LSPet's unlabelled joints hold leftovers of a shift; nothing may read them.
    return np.where(visible[..., None] > 0, points, 0).astype(np.float32), visible


def _flags(table):
    """(n, 14): the third row or column of either layout."""
    return table[:, 2].T if table.shape[0] == 14 else table[2].T


def person_box(joints, visible, width, height, *, box, enlargement):
    """Position and size of the nominal crop.

    Args:
      joints, visible: (k, 2) px and (k,).
      width, height: of the picture, px.
      box, enlargement: see `CropConfig`.

    Returns:
      center (2,) float32 px and scale float32: the crop's side is 200 * scale px.
    """
    longer = max(width, height)
    labelled = joints[visible > 0]
    if box == "image" or not len(labelled):
        center, side = np.array([width / 2, height / 2]), longer
    else:
        low, high = labelled.min(axis=0), labelled.max(axis=0)
        # A few people have hardly two joints labelled: never enlarge a dot to a canvas.
        center, side = (low + high) / 2, enlargement * max((high - low).max(), 0.1 * longer)
    return center.astype(np.float32), np.float32(side / crop.REFERENCE)


def make_example(path: Path, joints, visible, name: str, config: CropConfig) -> dict | str:
    """Cuts and encodes one canvas; the picture's path where it cannot be decoded."""
    picture = pipeline.decode(path.read_bytes())
    if picture is None:
        return str(path)
    height, width = picture.shape[:2]
    center, scale = person_box(
        joints, visible, width, height, box=config.box, enlargement=config.enlargement
    )
    frame = crop.canvas_from_image(
        center.astype(np.float64), np.float64(scale), canvas=config.canvas, margin=config.margin
    )
    canvas = crop.cut(picture, frame, config.canvas)
    options = [cv2.IMWRITE_JPEG_QUALITY, config.quality]
    encoded = cv2.imencode(".jpg", cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR), options)[1]
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
    folder: str
    digits: int  # of the pictures' numbers

    def _info(self):
        config = self.builder_config
        features = {
            "image": tfds.features.Image(
                shape=(config.canvas, config.canvas, 3), encoding_format="jpeg"
            ),
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
            license="No licence text; published for research by its authors, who ask to be cited.",
            disable_shuffling=True,  # the official order, which splits and results refer to
        )

    def _split_generators(self, dl_manager):
        folder, joints, visible = self._read(Path(dl_manager.manual_dir))
        return {
            split: self._generate_examples(folder, joints, visible, indices)
            for split, indices in self._splits(folder, len(joints)).items()
        }

    def _read(self, manual_dir):
        """The folder, joints and flags; every annotation has its picture and the other way round."""
        folder = manual_dir / self.folder
        if not (folder / "joints.mat").is_file() and (manual_dir / "joints.mat").is_file():
            folder = manual_dir
        joints, visible = read_joints(folder / "joints.mat")
        pictures = set(path.name for path in (folder / "images").glob("*.jpg"))
        expected = [f"{self._name(index)}.jpg" for index in range(len(joints))]
        missing = [name for name in expected if name not in pictures]
        if missing or len(pictures) != len(expected):
            first = f", the first missing one is {missing[0]}" if missing else ""
            raise FileNotFoundError(
                f"{folder}: joints.mat annotates {len(joints)} pictures, images/ holds "
                f"{len(pictures)}{first}; unpack the archive again"
            )
        return folder, joints, visible

    def _name(self, index):
        return f"im{index + 1:0{self.digits}d}"

    def _generate_examples(self, folder, joints, visible, indices):
        def make(index):
            name = self._name(index)
            path = folder / "images" / f"{name}.jpg"
            return make_example(
                path, joints[index], visible[index], f"{self.name}-{name}", self.builder_config
            )

        unreadable = []
        for index, example in zip(indices, _map_in_order(make, indices), strict=True):
            if isinstance(example, str):
                unreadable.append(example)
            else:
                yield int(index), example
        if unreadable:
            # All of them in one message; TFDS then removes what it has written.
            raise ValueError(
                f"{len(unreadable)} picture(s) are truncated or no JPEG: {', '.join(unreadable[:5])}"
                f"{' ...' if len(unreadable) > 5 else ''}; unpack the archive again"
            )


def _map_in_order(function, items, ahead=256):
    """`map` on threads, `ahead` items at a time, so that not all results wait in memory."""
    with futures.ThreadPoolExecutor() as pool:
        for start in range(0, len(items), ahead):
            yield from pool.map(function, items[start : start + ahead])


class Lsp(_LeedsSports):
    """Leeds Sports Pose: 2,000 people in sports with 14 joints, half of them for testing."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    Download lsp_dataset_original.zip (people up to 1,024 px; or lsp_dataset.zip, people of 150 px) by Sam
    Johnson and Mark Everingham, University of Leeds: https://sam.johnson.io/research/lsp.html. For
    research; cite the paper. Unpack it so that there are

        MANUAL_DIR/lsp_dataset/joints.mat
        MANUAL_DIR/lsp_dataset/images/im0001.jpg ... im2000.jpg
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
        if length != self.entries:  # half of an incomplete copy would be another test set
            raise ValueError(
                f"{folder / 'joints.mat'}: has {length} entries, LSP has {self.entries}"
            )
        first, last = np.split(np.arange(length), 2)
        return {"train": first, "test": last}


class Lspet(_LeedsSports):
    """Leeds Sports Pose Extended: 10,000 training pictures labelled by crowd workers, 14 joints.

    Every 18th picture is set aside for validation. Unlike LSP, it does not tell occluded joints.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    Download lspet_dataset.zip by Sam Johnson and Mark Everingham, University of Leeds:
    https://sam.johnson.io/research/lspet.html. For research; cite the paper. Unpack it so that there are

        MANUAL_DIR/lspet_dataset/joints.mat
        MANUAL_DIR/lspet_dataset/images/im00001.jpg ... im10000.jpg
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
      data_dir: where prepared data are kept; None for TFDS' own default, ~/tensorflow_datasets.
      **config: fields of `CropConfig`.
    """
    if dataset not in BUILDERS:
        raise ValueError(f"dataset={dataset!r}: must be one of {', '.join(BUILDERS)}")
    config = CropConfig(**config)
    known = BUILDERS[dataset].builder_configs  # TFDS refuses an equal config that is not its own
    config = known.get(config.name, config)
    # Record files of this format are read at random, without TensorFlow.
    return BUILDERS[dataset](config=config, data_dir=data_dir, file_format="array_record")
