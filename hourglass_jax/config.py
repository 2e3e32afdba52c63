"""Configs compared: with a checkpoint's, and with the one that a workdir began with."""

import json

from hourglass_jax import models


def check_model(path, metadata: dict, config) -> None:
    """Raises ValueError when the config's model is not the checkpoint's; the message lists what differs.

    A field that is younger than the checkpoint has its default there.
    """
    old, new = metadata["config"]["model"], config.model.to_dict()
    younger = {name: value for name, value in models.defaults(old["name"]).items() if name in new}
    if differ := differences(younger | old, new, "model."):
        raise ValueError(f"{path} is of another model than the config: {'; '.join(differ)}.")


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """What differs between two nested dictionaries: "train.steps: 100 -> 200"."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif json.dumps(a) != json.dumps(b):  # json has no tuples
            found.append(f"{prefix}{key}: {a} -> {b}")
    return found
