"""Arrays in HDF5 and MATLAB files that other programs wrote."""

import os
from pathlib import Path

import numpy as np

from hourglass_jax import files
from hourglass_jax.data.datasets import matlab


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of an .h5 or .mat file by name. MATLAB 7.3's files, which are HDF5, get MATLAB's axis order.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not readable.
    """
    import h5py  # not in requirements-minimal.txt

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    if path.suffix == ".mat" and not h5py.is_hdf5(path):
        content = matlab.read(path, "perhaps cut off")
        return {name: value for name, value in content.items() if not name.startswith("__")}
    try:
        with h5py.File(path) as file:
            # HDF5 follows links and virtual datasets to other files, and fills in data that were never
            # written.
            own = [str(name) for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
            items: dict[str, h5py.Dataset] = {}
            for name in own:
                item = file[name]
                if isinstance(item, h5py.Dataset) and not (item.is_virtual or item.external):
                    items[name] = item
            if sum(item.size * item.dtype.itemsize for item in items.values()) > files.LARGEST:
                raise ValueError(f"more than {files.LARGEST >> 20} MiB")
            arrays = {name: np.asarray(item[()]) for name, item in items.items()}
        return {name: value.T for name, value in arrays.items()} if path.suffix == ".mat" else arrays
    except Exception as error:  # h5py raises many different exceptions for broken files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: not readable, perhaps cut off ({reason}).") from None


def named(path, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """One array of `read_arrays`.

    Raises:
      ValueError: the array is missing, or does not hold real numbers.
    """
    if name not in arrays:
        there = ", ".join(f"{key[:50]!r} {np.shape(value)}" for key, value in arrays.items()) or "none"
        raise ValueError(f"{path}: has no dataset {name!r}; found {there}.")
    if np.asarray(arrays[name]).dtype.kind not in "fiu":
        raise ValueError(f"{path}: {name!r} is {arrays[name].dtype}, not real numbers.")
    return np.asarray(arrays[name], np.float64)
