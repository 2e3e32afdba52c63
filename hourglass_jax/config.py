"""Compares configs: with that of a checkpoint, and with that of a workdir's start."""

import json

from hourglass_jax import config_base, models
from hourglass_jax.network import Metadata


def check_model(path, metadata: Metadata, config) -> None:
    """Raises ValueError if the config's model is not the checkpoint's; the message lists the differences.

    A field newer than the checkpoint has its default value there.
    """
    new = config.to_dict()
    if differ := differences(completed(metadata.config, new)["model"], new["model"], "model."):
        raise ValueError(f"{path} is of another model than the config: {'; '.join(differ)}.")


def completed(old: dict, new: dict) -> dict:
    """An older config, completed with the fields that only a newer one has: with the neutral values of
    `config_base.base`, or of the model, with which it was trained."""
    neutral = config_base.base().to_dict()
    if "model" in old:
        neutral["model"] = models.defaults(old["model"]["name"])
    return {
        room: {name: neutral.get(room, {}).get(name) for name in new.get(room, {})} | values
        if isinstance(values, dict)
        else values
        for room, values in old.items()
    }


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """The differences between two nested dictionaries: "train.steps: 100 -> 200"."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif json.dumps(a, default=str) != json.dumps(b, default=str):  # json has no tuples
            found.append(f"{prefix}{key}: {a} -> {b}")
    return found
