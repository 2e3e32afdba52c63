"""The platform for which a program is traced; operations use the forms that are fast on it.

A program is traced for a mesh, and the mesh knows its platform. Outside `on` all forms are plain JAX, as
exports and counts of operations need them. `jax.lax.platform_dependent` would decide later, when a program is
lowered, but it traces every form: the train step of two stacks then takes 1.5 times as long to trace and 1.2
times as long to lower, and converters that read the trace find a switch in each convolution.
"""

import contextvars
from collections.abc import Callable

_current: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


def on(platform: str, function: Callable) -> Callable:
    """The function with the forms of a platform, ready for jit.

    Args:
      platform: the name as in JAX's devices: "cpu", "gpu" or "tpu"; or "onnx", which is only traced. A
        platform without forms of its own gets the plain ones.
      function: a function that is not compiled yet; a compiled one keeps the forms of its first call.
    """

    def traced(*args, **kwargs):
        token = _current.set(platform)
        try:
            return function(*args, **kwargs)
        finally:
            _current.reset(token)

    traced.__name__ = getattr(function, "__name__", type(function).__name__)  # the program's name
    return traced


def current() -> str | None:
    """The platform of the current trace; None: plain forms."""
    return _current.get()
