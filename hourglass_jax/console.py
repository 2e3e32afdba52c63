"""Lines on the console, and the errors of commands."""

import io
import os
import sys
import warnings
from collections.abc import Callable

from hourglass_jax import buckets, extras

INTERRUPTED = "Interrupted."


def run(command: Callable[..., int | None], *args, interrupted: str = INTERRUPTED, **kwargs) -> int:
    """Calls a command; for bad input it prints one line on stderr instead of a traceback.

    Args:
      command: returns its exit code; None means 0.
      *args, **kwargs: its arguments.
      interrupted: the line to print after Ctrl-C.

    Returns:
      the exit code: the command's own, 1 after an error, 130 after Ctrl-C.
    """
    # Without a console, or with closed streams, these are None, and print and progress bars fail.
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        # A path may have characters that the terminal's encoding cannot show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Pillow warns about damaged EXIF and the like; the picture is still read, or raises its own error.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    try:
        return command(*args, **kwargs) or 0
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except BrokenPipeError:  # `... | head`: the reader has stopped
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if not (
            isinstance(error, (ValueError, OSError, ImportError, FloatingPointError))
            or buckets.is_error(error)
        ):
            raise
        print(f"Error: {message(error)}", file=sys.stderr)
        return 1


def message(error: BaseException) -> str:
    """An error's text on one line, with the remedy if a package is missing."""
    if isinstance(error, ModuleNotFoundError) and str(error).startswith("No module named"):
        return f"this needs {extras.failure(error)}"
    return " ".join(str(error).splitlines()) or type(error).__name__


def say(text: str) -> None:
    """Prints a line without delay; with several processes only the first one prints."""
    import jax  # slow, and `--help` does not need it

    if jax.process_index() == 0:
        print(text, flush=True)


def duration(seconds: float) -> str:
    """75 -> 1:15, 3675 -> 1:01:15."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
