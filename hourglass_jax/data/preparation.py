"""Opens a dataset's builder and prepares the dataset: completely or not at all, one process at a time."""

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging

from hourglass_jax import copies, files
from hourglass_jax.data import catalogue, packed
from hourglass_jax.data.people_builder import PeopleBuilder, checksums


def builder(dataset: str, *, data_dir=None, box: str = "auto", **config) -> PeopleBuilder:
    """The TFDS builder of a dataset, prepared or not.

    Args:
      dataset: see `catalogue`; not a drawn one.
      data_dir: the folder of prepared data; None: ~/tensorflow_datasets.
      box: as in `CropConfig`, or "auto" for the dataset's default.
      **config: further fields of `CropConfig` or, for a user's own data, of `own.OwnConfig`.

    Raises:
      ValueError: an unknown dataset, a box that it does not have, or damaged prepared data.
    """
    if data_dir and files.in_bucket(data_dir):
        raise ValueError(
            f"data_dir={data_dir}: prepared data are read from a disk; name a local folder, and put "
            "packed files into the bucket (--pack=gs://..., data.source=packed)."
        )
    found = catalogue.find(dataset)
    if found.drawn:
        raise ValueError(f"dataset={dataset!r} is drawn on demand; there is nothing to prepare")
    kind = found.builder_class()
    config = kind.config_class(box=found.box_of(box), **config)
    config = kind.builder_configs.get(config.name, config)  # TFDS refuses an equal config of the same name
    if data_dir is None and "TFDS_DATA_DIR" not in os.environ:
        data_dir = _home()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # TFDS warns about each config that is not in its own list
    try:
        # This format allows random access without TensorFlow.
        return kind(config=config, data_dir=data_dir, file_format="array_record")
    except OSError:
        raise
    except Exception as error:  # TFDS raises many different exceptions for its own damaged files
        folder = files.expanded(data_dir or "~/tensorflow_datasets") / dataset / config.name
        raise packed.damaged(folder, error) from error
    finally:
        logging.set_verbosity(verbosity)


def _home() -> Path:
    """The default folder of prepared data, the same as TFDS's."""
    try:
        return files.expanded("~/tensorflow_datasets")
    except ValueError as error:
        raise ValueError(f"{error} (--data_dir=FOLDER)") from None


def prepare(builder: PeopleBuilder, *, manual_dir=None) -> None:
    """Prepares a dataset completely or not at all, with a progress bar, unless it is prepared already.

    Args:
      builder: from `builder`.
      manual_dir: the folder of the unpacked archive; None: DATA_DIR/downloads/manual.

    Raises:
      FileNotFoundError: the archive is missing; the message says how to get it.
      ValueError: the archive is invalid, or its annotations are not those of the prepared data.
    """
    usual = Path(builder.data_dir_root) / "downloads" / "manual"
    manual_dir = copies.fetched(files.expanded(manual_dir or usual))
    if not builder.is_prepared():
        builder.find(manual_dir)  # raises before TFDS raises its own, longer message
        with _alone(builder.home):
            _prepare(builder, manual_dir)
    if not builder.info.splits:
        # Another process has prepared it since the builder was made.
        builder.info.read_from_directory(builder.data_dir)
    _check_annotations(builder, manual_dir)


def _prepare(builder, manual_dir):
    if builder.is_prepared():
        return
    for leftover in builder.home.glob("incomplete.*"):
        shutil.rmtree(leftover)  # left by a process that was killed
    # TFDS's own manual_dir is not used: users' own data do not need it.
    builder.annotations = builder.find(manual_dir)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_config=config)


@contextlib.contextmanager
def _alone(folder: Path):
    """Lets one process in at a time; the others wait. The system frees the lock of a process that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with files.open_lock(folder / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.warning("%s: another process is preparing it; waiting", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_annotations(builder, manual_dir):
    """Refuses prepared data if the annotations are there and have changed since the preparation."""
    try:
        annotations = builder.find(manual_dir)
    except FileNotFoundError:
        return  # prepared data may be copied without the archive
    before = (builder.info.metadata or {}).get("annotations")  # data of earlier versions have none
    if before and before != checksums(annotations):
        raise ValueError(
            f"{annotations[0]}: not the annotations from which {builder.data_dir} was prepared "
            f"({', '.join(before)}): restore those, or delete that folder to prepare again"
        )
