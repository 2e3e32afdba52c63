"""Lines on the console."""

import jax


def say(text: str) -> None:
    """A line on the console, at once; of several processes the first one speaks."""
    if jax.process_index() == 0:
        print(text, flush=True)


def duration(seconds: float) -> str:
    """75 -> 1:15, 3675 -> 1:01:15."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
