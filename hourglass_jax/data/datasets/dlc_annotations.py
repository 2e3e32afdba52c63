"""Animals and people labelled with DeepLabCut: CollectedData_*.csv; without TensorFlow."""

import collections
import csv
import io
from pathlib import Path, PureWindowsPath

import numpy as np

from hourglass_jax import files
from hourglass_jax.data.datasets import coco_annotations, other_tools
from hourglass_jax.data.datasets.own_annotations import Content, Person

FORMAT = (
    "expected DeepLabCut's CollectedData_*.csv: rows of scorer, bodyparts and coords, then x, y of each joint"
)


def read(path) -> Content:
    """Reads one CollectedData_*.csv, or all in a project's folder.

    A joint is labelled if it has x and y, in pixels. In a project with several individuals each one is a
    person with the joints that have its name; the joint set has the joints of all individuals.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file does not have this format; one line that names the file and the row.
    """
    path = Path(path)
    if path.is_dir():
        tables = sorted(path.rglob("CollectedData*.csv"))
        if not tables:
            raise FileNotFoundError(f"{path}: holds no CollectedData_*.csv; {FORMAT}")
        contents = [_table(table, path) for table in tables]
    else:
        contents = [_table(table_of(path), path.parent)]
    if any(content.skeleton != contents[0].skeleton for content in contents):
        raise ValueError(f"{path}: its files have different joints; give one file")
    left_out: dict[str, int] = {}
    for content in contents:
        for reason, count in content.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + count
    people = [one for content in contents for one in content.people]
    return Content(contents[0].skeleton, people, left_out, contents[0].remarks)


def table_of(path: Path) -> Path:
    """The .csv of a table; DeepLabCut writes one next to each of its .h5 files."""
    if path.suffix.lower() in (".h5", ".hdf5"):
        if not path.with_suffix(".csv").is_file():
            raise ValueError(f"{path}: give the CollectedData_*.csv that DeepLabCut writes with it")
        path = path.with_suffix(".csv")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {FORMAT}")
    return path


def _table(path: Path, base: Path) -> Content:
    """The people of one file; their pictures are named relative to `base`."""
    if path.stat().st_size > files.LARGEST:
        raise ValueError(f"{path}: more than {files.LARGEST >> 20} MiB")
    data = path.read_bytes()
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = data.decode("utf-16" if wide else "utf-8-sig", errors="replace").replace("\0", "")
    # Spreadsheet programs save as is usual in their country: with semicolons or tabs, and decimal commas.
    separator = next((one for one in ";\t" if text.lstrip('"').startswith(f"scorer{one}")), ",")
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        rows = [row for row in lines if any(row)]
    except csv.Error as error:
        raise ValueError(f"{path}: not readable ({error}); {FORMAT}") from None
    header: dict[str, list[str]] = {}
    while rows and rows[0][0] in ("scorer", "individuals", "bodyparts", "coords"):
        title, *cells = rows.pop(0)
        header[title] = cells
    names, axes = header.get("bodyparts"), header.get("coords")
    if not names or not axes:
        raise ValueError(f"{path}: {FORMAT}{other_tools.looks(path, 'dlc')}")
    # Newer versions have the picture's path in three columns; two of these have no title.
    first = next((place for place, title in enumerate(names) if title), len(names))
    if (
        axes[first:] != ["x", "y"] * (len(axes[first:]) // 2)
        or len(names) != len(axes)
        or first == len(names)
    ):
        raise ValueError(f"{path}: its coords are not x, y of each joint; {FORMAT}")
    individuals = header.get("individuals", [""] * len(names))
    joints = list(dict.fromkeys(names[first:]))
    who = list(dict.fromkeys(individuals[first:]))
    if len(individuals) != len(names):
        raise ValueError(f"{path}: its rows individuals and bodyparts differ in length; {FORMAT}")
    columns = collections.Counter(zip(individuals[first::2], names[first::2], strict=True))
    if twice := next((name for (_, name), count in columns.items() if count > 1), None):
        raise ValueError(f"{path}: has the joint {twice[:99]!r} twice")
    remarks: list[str] = []
    try:
        skeleton = coco_annotations.skeleton_of({"name": "dlc", "keypoints": joints}, remarks)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    people, left_out = [], {}
    for number, row in enumerate(rows, start=1 + len(header)):
        if len(row) != 1 + len(names):
            raise ValueError(f"{path}: row {number} has {len(row)} columns, not {1 + len(names)}; {FORMAT}")
        picture = _picture(path, base, row[: 1 + first], number)
        words = row[1 + first :]
        values = _numbers(path, [w.replace(",", ".") for w in words] if separator != "," else words, number)
        for one in who:
            places, visible = np.zeros((len(joints), 2), np.float32), np.zeros(len(joints), np.uint8)
            for column in range(first, len(names), 2):
                x, y = values[column - first : column - first + 2]
                if individuals[column] == one and np.isfinite([x, y]).all():
                    joint = joints.index(names[column])
                    places[joint], visible[joint] = (x, y), 2
            if visible.any():
                id_ = f"{Path(picture).with_suffix('')}" + (f"-{one}" if one else "")
                people.append(Person(id_, picture, places, visible, None, picture))
            else:
                left_out["without a labelled joint"] = left_out.get("without a labelled joint", 0) + 1
    return Content(skeleton, people, left_out, remarks)


def _picture(path: Path, base: Path, words: list[str], number: int) -> str:
    """The picture's path relative to `base`: its name in the table's folder, because projects are moved."""
    name = PureWindowsPath(words[-1]).name
    if not name or not name.isprintable() or name == "..":
        raise ValueError(f"{path}: row {number} names no picture")
    return str(path.parent.relative_to(base) / name)


def _numbers(path: Path, words: list[str], number: int) -> np.ndarray:
    """Words as float32 numbers; nan where a joint is not labelled."""
    try:
        with np.errstate(over="ignore"):
            return np.array([word.strip() or "nan" for word in words], np.float64).astype(np.float32)
    except ValueError:
        raise ValueError(f"{path}: row {number} has words that are not numbers; {FORMAT}") from None
