"""LSP's and LSPet's annotations (Johnson and Everingham, BMVC 2010 and CVPR 2011), without TensorFlow."""

import numpy as np

from hourglass_jax.data.datasets import matlab

DIGITS = {"lsp": 4, "lspet": 5}  # digits of the pictures' numbers


def pictures(dataset: str, count: int) -> list[str]:
    """The names of the annotated pictures, without ".jpg"."""
    return [f"im{number:0{DIGITS[dataset]}d}" for number in range(1, count + 1)]


def read_joints(path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a joints.mat of LSP (3 x 14 x n, flag 1: occluded) or LSPet (14 x 3 x n, 1: labelled).

    Returns:
      joints (n, 14, 2) float32 px, (0, 0) where not labelled, and visible (n, 14) uint8: 0 not
      labelled, 1 occluded, 2 visible. LSPet does not mark occluded joints: all its labelled joints are 2.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file holds something else.
    """
    expected = "expected a MATLAB file with `joints`, 14 x 3 x n (LSPet) or 3 x 14 x n (LSP)"
    content = matlab.read(path, expected)
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
    # LSPet's unlabelled joints hold the remains of a shift, so they are set to 0.
    return np.where(visible[..., None] > 0, points, 0).astype(np.float32), visible
