"""The platform that a program is made for: operations take the forms that are fast there.

A program is traced for a mesh, and the mesh knows its platform. Outside `on` all forms are plain JAX, as
exports and counts of operations need them. `jax.lax.platform_dependent` would decide later, when a
program is lowered, but it traces every form: the train step of two stacks then takes 1.5 times as long to
trace and 1.2 times as long to lower, and converters that read the trace meet a switch in each convolution.
"""

import contextvars
from collections.abc import Callable

_current: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


def on(platform: str, function: Callable) -> Callable:
    """The function in the forms of a platform; to be jit-compiled.

    Args:
      platform: as JAX's devices name it: "cpu", "gpu" or "tpu"; or "onnx", to be traced only. One without
        forms of its own is plain.
      function: not compiled yet; a compiled one keeps the forms of its first call.
    """

    def traced(*args, **kwargs):
        token = _current.set(platform)
        try:
            return function(*args, **kwargs)
        finally:
            _current.reset(token)

    traced.__name__ = getattr(function, "__name__", type(function).__name__)  # the program's
    return traced


def current() -> str | None:
    """The platform for which this is traced; None for the plain forms."""
    return _current.get()
