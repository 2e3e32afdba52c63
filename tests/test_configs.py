import functools
import importlib
import json
import pathlib
import re

import conftest
import jax
import jax.numpy as jnp
import pytest

from configs import chu, common, mssh, newell, tang
from hourglass_jax import models
from hourglass_jax.models import groups as part_groups
from hourglass_jax.pose import skeletons
from hourglass_jax.training import optimizer

ROOT = pathlib.Path(__file__).parents[1]
NAMES = sorted({path.stem for path in (ROOT / "configs").glob("*.py")} - {"__init__", "common"})

# Every documented value of every argument, at least once; sizes that trace quickly.
SMALL = "stacks=1,width=16,size=64"
ARGUMENTS = {
    "quickstart": ["", "model=newell,stacks=2,width=16", *(f"model={name}" for name in models.names())],
    "newell": [
        *("", "stacks=8,dataset=mpii", f"{SMALL},dataset=synthetic", f"{SMALL},dataset=lsp,quick=true"),
        "variant=flic,dataset=flic,width=16,size=64",
        *(f"variant={variant},stacks=2,width=16,size=64" for variant in newell.VARIANTS),
    ],
    "chu": [
        "stacks=2",
        f"{SMALL},dataset=lsp+lspet+mpii",
        *(f"variant={variant},{SMALL}" for variant in chu.VARIANTS),
        f"{SMALL},dataset=synthetic,quick=true,released_epochs=true,targets=torch",
    ],
    "mssh": [
        "stacks=3",
        f"{SMALL},dataset=lsp+lspet+mpii",
        *(f"variant={variant},{SMALL}" for variant in mssh.VARIANTS),
        *(f"block={block},{SMALL}" for block in ("inception_a", "residual")),
        "block=inception_b,stacks=1,width=16,size=128",  # its blocks halve the coarsest cells once more
        *(f"fusion={fusion},stacks=3,width=16,size=128" for fusion in ("addition", "concatenation")),
        "lateral=true,stacks=3,width=16,size=128",
        f"{SMALL},dataset=synthetic,quick=true",
    ],
    "tang": [
        "stacks=3,dataset=mpii",
        f"{SMALL},dataset=lsp+lspet+mpii",
        *(f"variant={variant},{SMALL}" for variant in tang.VARIANTS),
        f"variant=data8,{SMALL},dataset=synthetic,quick=true",
        "onward=specific,stacks=2,width=16,size=64",
        f"branch_width=8,branch_depth=2,{SMALL}",
        f"variant=baseline,ankles=false,{SMALL},dataset=mpii",
    ],
    "selvam": ["", f"attention=baseline,{SMALL}", f"attention=all,{SMALL},dataset=synthetic,quick=true"],
}
CASES = [(name, string) for name in NAMES for string in ARGUMENTS.get(name, [])]


def load(name, string):
    return importlib.import_module(f"configs.{name}").get_config(string or None)


def keys(config):
    """All fields except the model's own, as "train.steps"."""
    return {key for key in _flat(config.to_dict()) if not key.startswith("model.")}


def _flat(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def joints_of(config):
    first = config.data.dataset.split("+")[0]
    return len(skeletons.SKELETONS.get(first, skeletons.LSP if first == "lspet" else skeletons.MPII))


def strides_of(config, model):
    """Input px per cell of each of the model's heatmaps."""
    if config.model.name == "mssh":
        return model.strides_of_stacks()
    supervision = config.model.get("supervision", "stacks")
    if supervision == "resolutions":
        return [4 * 2**level for level in reversed(range(config.model.depth))]
    return [4] * (config.model.stacks if supervision == "stacks" else 1)


def shapes_of(model, size):
    """(outputs, parameters) of a model for a picture of `size` px."""
    return _shapes(json.dumps(model, sort_keys=True), size)


@functools.cache  # to trace the large networks once
def _shapes(fields, size):
    model = models.build(**json.loads(fields))  # which refuses unknown fields
    outputs, variables = conftest.shapes_of(model, jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    return outputs, variables["params"]


def test_every_config_is_in_the_table_of_cases():
    assert set(ARGUMENTS) == set(NAMES)


@pytest.mark.parametrize("name, string", CASES)
def test_a_config_is_complete_and_builds_its_model(name, string):
    config = load(name, string)
    assert keys(config) == keys(common.base())  # only known fields
    k = joints_of(config)
    size = config.data.size
    model = models.build(joints=k, **config.model)
    coarsest = 4 if config.model.name != "mssh" else model.strides_of_stacks()[0]
    halved = config.model.depth + (config.model.get("block") == "inception_b")  # whose blocks halve, too
    assert size % (coarsest * 2**halved) == 0
    config.model.depth = 2  # of less to trace
    outputs, _ = shapes_of(config.model.to_dict() | {"joints": k}, size)
    channels = 1 if config.loss.kind == "coordinates" else k
    strides = strides_of(config, model)
    assert [maps.shape for maps in outputs.heatmaps] == [
        (1, size // stride, size // stride, channels) for stride in strides
    ]
    assert config.data.canvas == size * 3 // 2 and config.data.margin == 1.5
    options = config.optimizer.to_dict()
    kind, milestones = options.pop("schedule"), options.pop("milestones")
    schedule = {key: options.pop(key) for key in ("learning_rate", "factor", "warmup_steps")}
    assert options.pop("patience") == 0
    rate = optimizer.schedule(kind=kind, milestones=milestones, steps=300, **schedule)
    optimizer.transformation(rate, **options)
    last = config.train.steps or config.train.epochs
    assert all(0 < milestone < last for milestone in milestones)
    assert 0 < float(rate(0)) < 1.0001 * config.optimizer.learning_rate


@pytest.mark.parametrize("name", NAMES)
def test_documented_arguments_and_command_are_the_real_ones(name):
    module = importlib.import_module(f"configs.{name}")
    with pytest.raises(ValueError) as error:
        module.get_config("nonsense=1")
    there = re.findall(r"(\w+)=", str(error.value).partition("with defaults)")[2])
    listed = re.search(r"Arguments?: (.*?)\.\n", module.get_config.__doc__ + "\n", re.DOTALL).group(1)
    listed = re.sub(r"\([^)]*\)", "", listed)
    assert there == [argument.strip() for argument in listed.split(",")]
    command = re.search(r"--config=configs/(\w+)\.py(?::(\S+))?", module.__doc__)
    assert command.group(1) == name
    module.get_config(command.group(2))


def test_variants_differ_in_the_named_fields():
    one, two = (load("newell", f"variant={variant}").model for variant in ("hg", "hg_stacked_add"))
    assert (one.stacks, one.units, one.stem_units, one.supervision) == (1, 2, 2, "last")
    assert (two.stacks, two.units, two.stem_units, two.supervision) == (2, 1, 1, "sum")
    assert load("newell", "variant=hg_int").model.supervision == "resolutions"
    assert load("newell", "variant=flic,stacks=8").model.stacks == 1
    assert load("chu", "variant=softmax").model.attention == "softmax"
    assert not load("chu", "variant=ms_hru").model.multi_resolution
    assert load("tang", "variant=data5").model.groups == part_groups.named("data5", skeletons.LSP)
    synthetic = load("tang", "variant=data5,dataset=synthetic").model.groups
    assert synthetic == part_groups.named("data5", skeletons.MPII)
    assert load("tang", "variant=deep_baseline").model.head == "unit"
    for name in ("newell", "chu", "mssh", "tang"):
        with pytest.raises(ValueError, match="variant='all' is unknown; choose from "):
            load(name, "variant=all")


def test_quick_changes_only_the_recipe():
    for name in ("newell", "chu", "mssh", "tang"):
        plain, quick = load(name, "stacks=1"), load(name, "stacks=1,quick=true")
        assert plain.model == quick.model and plain.data == quick.data and plain.augment == quick.augment
        assert (quick.loss.kind, quick.optimizer.name) == ("cross_entropy", "adam")
        assert (plain.loss.kind, plain.optimizer.name) == ("mean_squared_error", "rmsprop")


def test_unlabelled_joints_are_masked_where_crowds_labelled():
    for name in ("newell", "chu", "mssh", "tang"):
        assert load(name, "dataset=lspet").loss.mask_unlabelled
        assert not load(name, "dataset=synthetic").loss.mask_unlabelled
        assert load(name, "dataset=mpii+lspet").loss.mask_unlabelled


def test_a_mixture_is_trained_for_its_first_dataset():
    for name in ("chu", "mssh", "tang"):
        assert load(name, "dataset=lsp+mpii").data.dataset == "lsp+mpii"
    assert (
        load("chu", "dataset=lsp+mpii").train.epochs == 60
        and load("chu", "dataset=mpii+lsp").train.epochs == 130
    )
    groups = [load("tang", f"dataset={dataset}").model.groups for dataset in ("lsp+mpii", "mpii+lsp")]
    assert groups == [part_groups.named("data5", s) for s in (skeletons.LSP, skeletons.MPII)]


# A system is found by its name.


@pytest.mark.parametrize("name", models.names())
def test_every_model_has_a_config_a_test_and_a_row_with_its_parameters(name):
    assert (ROOT / "configs" / f"{name}.py").exists() and load(name, "").model.name == name
    assert (ROOT / "tests" / "models" / f"test_{name}.py").exists()
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|")]
    (row,) = [r for r in rows if f"`configs/{name}.py`" in r]
    assert f"`hourglass_jax/models/{name}.py`" in row
    expected = re.findall(r"`([\w=,]+)` ([\d,]*\d)(?=[;. |])", row)  # (config's arguments, count)
    assert expected
    for arguments, number in expected:
        _, params = shapes_of(
            load(name, f"{arguments},dataset=synthetic").model.to_dict() | {"joints": 16}, 256
        )
        assert f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,}" == number, arguments


# Arguments.


def test_arguments_have_the_types_of_their_defaults():
    defaults = {"stacks": 2, "rate": 0.5, "name": "a", "quick": False}
    read = common.arguments("stacks=8,rate=1e-3,name=b=c,quick=True", **defaults)
    assert (read.stacks, read.rate, read.name, read.quick) == (8, 1e-3, "b=c", True)
    assert [type(read[key]) for key in defaults] == [int, float, str, bool]
    assert common.arguments("quick=false", quick=True).quick is False
    for empty in (None, "", ","):
        assert common.arguments(empty, **defaults).to_dict() == defaults
    assert common.arguments("stacks=1,stacks=3", **defaults).stacks == 3  # the last one counts


@pytest.mark.parametrize(
    "string, message",
    [
        ("stack=2", "no argument 'stack'; it has (with defaults) stacks=2, quick=False."),
        ("=2", "no argument ''"),
        ("stacks=two", "argument stacks='two' must be of type int."),
        ("stacks=1.5", "argument stacks='1.5' must be of type int."),
        ("stacks", "argument stacks='' must be of type int."),
        ("quick=yes", "argument quick='yes' must be of type bool."),
        ("quick", "argument quick='' must be of type bool."),
    ],
)
def test_wrong_arguments_are_named(string, message):
    with pytest.raises(ValueError) as error:
        common.arguments(string, stacks=2, quick=False)
    assert message in str(error.value)
