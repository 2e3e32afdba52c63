"""The model card of weights: README.md of a repository, made from the metadata only.

https://huggingface.co/docs/hub/model-cards describes the fields at its head.
"""

import shlex
from typing import Any

import yaml

from hourglass_jax import config_base
from hourglass_jax.config import completed
from hourglass_jax.evaluation.protocol import Protocol
from hourglass_jax.network import Metadata

PROJECT = "hourglass_jax"
FILES = f"""`model.safetensors`: kernels in float16, the rest in float32; metadata and checksum in its header.

`config.json`: the same metadata: the whole config, the skeleton, the scores.

Written by `hourglass weights push` of {PROJECT}."""
DATASETS = {
    "lsp": "Leeds Sports Pose (Johnson and Everingham, BMVC 2010)",
    "lspet": "Leeds Sports Pose Extended (Johnson and Everingham, CVPR 2011)",
    "mpii": "MPII Human Pose (Andriluka et al., CVPR 2014)",
    "flic": "Frames Labeled in Cinema (Sapp and Taskar, CVPR 2013)",
    "synthetic": "figures that this project draws",
    "coco": "own annotations of people, in COCO's format",
    "yolo": "own annotations of people, in the format of Ultralytics YOLO",
    "dlc": "own annotations of people or animals, in DeepLabCut's format",
    "labelme": "own annotations of people, in labelme's format",
}


def text(name: str, metadata: Metadata, parameters: int) -> str:
    """The card, as Markdown below YAML.

    Args:
      name: of the repository, "owner/name".
      metadata: of the network; "command", "license" and the other entries of its `card` are shown.
      parameters: of the network.
    """
    head = yaml.safe_dump(_head(name, metadata), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{head}---\n\n# {name.partition('/')[2]}\n\n{_network(metadata, parameters)}",
        _use(name),
        f"## Data\n\n{_data(metadata.config['data'])}",
        f"## Training\n\n{_training(metadata)}",
        f"## Scores\n\n{_scores(metadata.evaluation)}",
        f"## Licence\n\n{_licence(metadata)}",
        f"## Files\n\n{FILES}",
    ]
    return "\n\n".join(parts) + "\n"


def command(config: dict[str, Any]) -> str:
    """The command that trains with a config: the package's config of its model, and each field that differs.

    "" if no command line gives the config: its model, or one of its fields, is not in the package's configs.
    """
    name = config.get("model", {}).get("name")
    if name not in config_base.names():
        return ""
    usual = config_base.named(name).get_config().to_dict()
    flags = []
    for room, values in completed(config, usual).items():
        if room not in usual:
            return ""
        if not isinstance(values, dict):
            flags += [] if values == usual[room] else [f"--config.{room}={values}"]
            continue
        for field, value in values.items():
            if field not in usual[room]:
                return ""
            if (value := _tuples(value)) != usual[room][field]:
                flags.append(shlex.quote(f"--config.{room}.{field}={value}"))
    return " \\\n  ".join([f"hourglass train --config={name} --workdir=runs/{name}", *flags])


def _tuples(value):
    """json has lists for a config's tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _head(name: str, metadata: Metadata) -> dict[str, Any]:
    model, found = metadata.config["model"]["name"], metadata.evaluation
    head: dict[str, Any] = {"license": metadata.card["license"]} if metadata.card.get("license") else {}
    head |= {
        "library_name": PROJECT,
        "pipeline_tag": "keypoint-detection",
        "tags": ["human-pose-estimation", "stacked-hourglass", model, "jax", "flax"],
    }
    if "Mean" not in found.get("table", {}):
        return head
    metric = found.get("metric", "PCK")
    results = [
        {
            "task": {"type": "keypoint-detection", "name": "2D human pose estimation"},
            "dataset": {
                "type": metadata.config["data"]["dataset"],
                "name": found.get("data") or "validation",
            },
            "metrics": [
                {
                    "type": metric.partition("@")[0].lower(),
                    "value": round(found["table"]["Mean"], 2),
                    "name": f"{metric}, mean, per cent",
                }
            ],
        }
    ]
    return head | {"model-index": [{"name": name.partition("/")[2], "results": results}]}


def _network(metadata: Metadata, parameters: int) -> str:
    model, joints = metadata.config["model"], metadata.skeleton["joints"]
    known = model["name"] in config_base.names()
    paper = (config_base.named(model["name"]).__doc__ or "").splitlines()[0] if known else ""
    shape = [f"{key} {model[key]}" for key in ("stacks", "width", "depth") if key in model]
    side = metadata.config["data"]["size"]
    named = ", ".join(name.replace("_", " ") for name in joints)
    lines = [
        f"2D pose estimation in JAX: {len(joints)} joints of one person in a crop of {side} x {side} px.",
        f"System: {', '.join([model['name'], *shape])}; {parameters:,} parameters.",
        *([f"Paper: {paper}"] if paper else []),
        f"Joints ({metadata.skeleton.get('name', 'own')}): {named}.",
    ]
    return "\n\n".join(lines)


def _use(name: str) -> str:
    return f"""## Use

```
pip install '{PROJECT}[hub]'
hourglass predict photos/ --checkpoint=hf://{name} --output=out
```

```python
from {PROJECT} import Predictor

result = Predictor("hf://{name}")("photo.jpg")
result.joints, result.scores  # (people, joints, 2) in pixels, (people, joints) from about 0 to 1
```

`hf://{name}@REVISION` is a branch, a tag or a commit. `hourglass evaluate --checkpoint`,
`hourglass export --workdir` and `--config.train.init_from` take the same name."""


def _data(data: dict[str, Any]) -> str:
    names = data["dataset"].split("+")
    lines = ["\n".join(f"- {one}: {DATASETS.get(one, 'a custom dataset')}" for one in names)]
    if names == ["synthetic"]:
        lines.append("{:,} figures for training, {:,} for validation.".format(*data["examples"]))
    else:
        split, box = data.get("train_split", "train"), data.get("box", "auto")
        lines.append(f"Split for training: {split}. Boxes of the crops: {box}.")
        lines.append("The rights of the pictures are separate; their publishers state them.")
    return "\n\n".join(lines)


def _training(metadata: Metadata) -> str:
    config, card = metadata.config, metadata.card
    lines = []
    if metadata.step:
        size = config["train"].get("batch_size", 0)
        samples = metadata.step * size * config["train"].get("accumulate", 1)
        lines.append(f"{metadata.step:,} steps of {size} people ({samples:,} samples).")
    if began := config["train"].get("init_from"):
        lines.append(f"The training started from the weights `{began}`.")
    trained_in = {"dtype": card.get("trained in", config["model"].get("dtype", "float32"))}
    if shown := card.get("command"):
        lines.append(f"The command:\n\n```\n{shown}\n```")
    elif shown := command(config | {"model": config["model"] | trained_in}):
        lines.append(f"The command, from its config, without the folders of the data:\n\n```\n{shown}\n```")
    about = [f"- {k}: {v}" for k, v in card.items() if k not in ("command", "license")]
    return (
        "\n\n".join(lines + (["\n".join(about)] if about else []))
        or "Not recorded; the config is in config.json."
    )


def _scores(found: dict[str, Any]) -> str:
    if not found.get("table"):
        return "Not evaluated."
    fields = {name: found[name] for name in ("flip", "decode", "crop", "name") if name in found}
    protocol = Protocol(scales=tuple(found.get("scales", (1.0,))), **fields)
    people = f"{found['examples']:,} people" if found.get("examples") else "people"
    if left_out := found.get("left_out"):
        people += f" ({left_out:,} of them lack the reference length and do not count)"
    title = f"{found.get('metric', 'PCK')} on {people} of {found.get('data') or 'the validation split'}"
    lines = [f"{title}, per cent. Protocol: {protocol}.", _table(found["table"])]
    if isinstance(limbs := found.get("pcp"), dict) and limbs.get("table"):
        lines += [f"{limbs.get('metric', 'PCP')}, same protocol:", _table(limbs["table"])]
    if isinstance(known := found.get("confidence"), dict) and known.get("auroc") is not None:
        lines.append(
            f"Joints' scores separate correct joints from wrong ones with an AUROC of {known['auroc']:.3f}. "
            f"Joints with a score below {known['threshold']:.3f}, where F1 is best, are not drawn."
        )
    return "\n\n".join(lines)


def _table(rows: dict[str, float | None]) -> str:
    values = ["" if value is None or value != value else f"{value:.1f}" for value in rows.values()]
    lines = (list(rows), ["--:"] * len(rows), values)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _licence(metadata: Metadata) -> str:
    if licence := metadata.card.get("license"):
        return f"Of the weights: {licence}. The code of {PROJECT} is under Apache-2.0."
    return f"None is stated for these weights; ask their owner. The code of {PROJECT} is under Apache-2.0."
