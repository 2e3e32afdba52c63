"""The five systems, one file per paper, found by name."""

import importlib
import inspect
import pathlib

import flax.linen as nn
import jax.numpy as jnp

_NOT_MODELS = {"__init__", "layers", "outputs", "groups", "shapes"}


def names() -> list[str]:
    """The names of all models: the other files of this folder."""
    files = pathlib.Path(__file__).parent.glob("*.py")
    return sorted(file.stem for file in files if file.stem not in _NOT_MODELS)


def build(name: str, *, joints: int, dtype: str = "float32", **fields) -> nn.Module:
    """Builds `hourglass_jax.models.<name>.Model`.

    Args:
      name: the file's name, for instance "newell".
      joints: heatmaps per stack.
      dtype: type of the computation, "float32" or "bfloat16".
      **fields: the model's own fields, as in its config.

    Raises:
      ValueError: an unknown model, dtype or field; the message lists the known ones.
    """
    if name not in names():
        raise ValueError(f"There is no model {name!r}; choose from {', '.join(names())}.")
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"model.dtype={dtype!r} is unknown; choose float32 or bfloat16.")
    model, known = _model(name), set(_fields(name))
    if unknown := set(fields) - known:
        raise ValueError(
            f"The model {name!r} has no field {', '.join(sorted(unknown))}; "
            f"it has {', '.join(sorted(known))}."
        )
    return model(joints=joints, dtype=jnp.dtype(dtype), **fields)


def defaults(name: str) -> dict:
    """The model's fields that have a default value, with this value."""
    values = {field: parameter.default for field, parameter in _fields(name).items()}
    return {field: value for field, value in values.items() if value is not inspect.Parameter.empty}


def _model(name: str) -> type[nn.Module]:
    return importlib.import_module(f"hourglass_jax.models.{name}").Model


def _fields(name: str) -> dict[str, inspect.Parameter]:
    others = {"parent", "name", "joints", "dtype"}
    parameters = inspect.signature(_model(name)).parameters
    return {field: parameter for field, parameter in parameters.items() if field not in others}
