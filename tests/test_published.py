"""Published weights, served from localhost: complete, truncated, slow, wrong and missing."""

import dataclasses
import hashlib
import http.server
import pathlib
import re
import threading
import time

import jax
import numpy as np
import pytest

from hourglass_jax import loading
from hourglass_jax.network import Metadata, abstract, network_of
from hourglass_jax.pose import skeletons
from hourglass_jax.weights import command, published

GOLDEN = pathlib.Path(__file__).parents[2] / "shared" / "golden"
CONFIG = {
    "model": {"name": "newell", "stacks": 2, "width": 8, "depth": 1},
    "data": {"size": 32, "mean": [0.0, 0.0, 0.0]},
    "loss": {"kind": "mean_squared_error", "sigma": 1.0},
}


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` as `mode` says; `asked` has the Range of each request."""

    content, mode, asked = b"", "whole", ()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server, content = self.server, self.server.content
        server.asked = (*server.asked, self.headers.get("Range"))
        if server.mode == "gone":
            self.send_error(404)
            return
        begin = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if server.mode == "no ranges":
            begin = 0
        if begin >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        if server.mode == "stalls":
            time.sleep(1)
            return
        part = content[begin:]
        if server.mode == "cut off" and len(server.asked) < 3:
            part = part[: len(part) // 2]
        self.wfile.write(part)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server of weights called "hg2", with a cache of its own; conversion without PyTorch."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    network = network_of(Metadata(CONFIG, skeletons.MPII.to_dict()))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: rng.standard_normal(x.shape).astype(np.float32), abstract(network, None)
    )

    def load(path):
        """Replaces PyTorch's load."""
        with open(path, "rb") as file:
            if file.read(5) != b"right":
                raise ValueError(f"{path}: not a state_dict of tensors only")
        return network, variables, Metadata(CONFIG, skeletons.MPII.to_dict())

    monkeypatch.setattr(published.pytorch, "load", load)
    monkeypatch.setattr(published.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(published, "TIMEOUT", 0.3)
    with Server(("localhost", 0), Handler) as server:
        server.content = b"right" + rng.bytes(300_000)
        digits = hashlib.sha256(server.content).hexdigest()[:8]
        address = f"http://localhost:{server.server_port}/a-{digits}.pth"
        for name, known in (("hg2", digits), ("princeton-2hg", "")):
            one = dataclasses.replace(published.NAMES[name], address=address, digits=known)
            monkeypatch.setitem(published.NAMES, name, one)
        server.variables = variables
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def kept():
    return sorted(path.name for path in published.folder().iterdir() if path.name != ".lock")


@pytest.mark.parametrize(
    "mode, asked",
    [
        ("whole", (None,)),
        ("cut off", (None, "bytes=150002-", "bytes=225003-")),
        ("no ranges", (None,)),
    ],
)
def test_weights_are_fetched_once_and_equal_the_publishers(server, same, mode, asked):
    server.mode = mode
    for _ in range(2):
        network, variables, metadata = loading.load("hg2")
        same(jax.device_get(variables), server.variables)  # nothing is rounded to float16
    assert network.model.stacks == 2 and metadata.card["name"] == "hg2"
    assert metadata.card["sha256"] == hashlib.sha256(server.content).hexdigest()
    assert server.asked == asked and kept() == ["hg2.npz"]


def test_the_next_call_continues_a_download(server, monkeypatch):
    server.mode = "cut off"
    monkeypatch.setattr(published, "TRIES", 1)
    with pytest.raises(OSError, match=r"hg2: http://.* could not be fetched .* 150,002 bytes are kept; "):
        published.fetch("hg2")
    server.mode = "no ranges"  # the whole file is sent, from its beginning
    published.fetch("hg2")
    assert kept() == ["hg2.npz"]


@pytest.mark.parametrize(
    "mode, reason", [("stalls", "timed out"), ("gone", "the server responds with 404 Not Found")]
)
def test_a_failed_download_is_one_line_that_says_where_to_put_the_file(server, mode, reason, tmp_path):
    server.mode = mode
    with pytest.raises(OSError) as error:
        loading.load("hg2")
    message = str(error.value)
    assert reason in message and "\n" not in message and published.NAMES["hg2"].address in message
    place = message.rpartition("put the file there as ")[2]
    server.shutdown()  # offline
    with open(place, "wb") as file:
        file.write(server.content)
    assert loading.load("hg2")[2].card["name"] == "hg2"
    with open(place, "rb") as file:  # the user's own file
        assert file.read() == server.content


def test_a_wrong_file_is_refused_and_not_kept(server):
    server.content = b"<html>Sign in</html>"
    with pytest.raises(ValueError, match="hg2: not the published file: its SHA-256 begins with "):
        published.fetch("hg2")
    with pytest.raises(ValueError, match="not a state_dict of tensors only"):  # no SHA-256 is published
        published.fetch("princeton-2hg")
    assert kept() == []


def test_the_first_download_of_weights_without_a_checksum_is_pinned(server, capsys):
    published.fetch("princeton-2hg")
    assert "princeton-2hg: no SHA-256 is published; from now on only " in capsys.readouterr().out
    (published.folder() / "princeton-2hg.npz").unlink()
    server.content += b"another"
    with pytest.raises(ValueError, match="princeton-2hg: not the published file"):
        published.fetch("princeton-2hg")
    assert kept() == ["sha256.json"]


def test_without_pytorch_nothing_is_fetched(server, monkeypatch):
    monkeypatch.setattr(published.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="hg2: converting these weights needs PyTorch, once: pip"):
        published.fetch("hg2")
    assert server.asked == ()


def test_a_path_comes_before_a_name(server, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hg2").mkdir()
    with pytest.raises(
        FileNotFoundError, match="hg2 holds no checkpoints; .* by name are lspet, lspet-small, hg1"
    ):
        loading.load("hg2")
    assert server.asked == ()


def test_without_a_home_there_is_one_line(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(published.files.os.path, "expanduser", lambda path: path)  # as for an unknown user
    with pytest.raises(OSError, match="no folder for fetched weights: set XDG_CACHE_HOME or HOME"):
        published.fetch("hg2")
    assert "hg2" in published.table()


def test_the_list_names_size_score_and_licence(server, capsys):
    published.fetch("hg2")
    capsys.readouterr()
    assert command.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines[:8]}
    assert rows["lspet"][1:3] == ["2", "256"] and rows["lspet"][-3:] == ["package,", "the", "default"]
    assert rows["lspet-small"][1:3] == ["2", "96"]
    assert rows["hg2"] == "hg2 2 256 ~27 MPII PCKh@0.5 87.3 see address in the cache".split()
    assert rows["princeton-8hg"][:7] == "princeton-8hg 8 256 ~110 MPII PCKh@0.5 90.2".split()
    assert "not measured here" in "".join(lines[8:])


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="without the authors' shapes")
@pytest.mark.parametrize("stacks", [2, 8])
def test_names_and_shapes_of_the_authors_own_version_are_a_network_of_ours(stacks, monkeypatch):
    lines = (GOLDEN / "state_dict_princeton_8hg.txt").read_text().splitlines()
    tensors = {}
    for line in lines:
        name, shape = line.removeprefix("model.module.").split(" ", 1)
        place = re.match(r"[a-z_]+\.(\d+)\.", name)
        last = name.startswith("merge_") and int(place[1]) == stacks - 1  # the last stack passes nothing on
        if name.startswith("pre.") or (int(place[1]) < stacks and not last):
            if not name.endswith("num_batches_tracked"):
                shape = tuple(map(int, re.findall(r"\d+", shape)))
                tensors[name] = np.broadcast_to(np.float32(0), shape)
    monkeypatch.setattr(published.pytorch, "_read", lambda path: tensors)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    network, variables, metadata = published.pytorch.load("checkpoint.pt", sharding=sharding)
    assert (network.model.stacks, network.model.width, network.model.stem) == (stacks, 256, "newell")
    assert network.mean == (0.0, 0.0, 0.0) and metadata.config["data"]["size"] == 256
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert count == {2: 6_570_400, 8: 25_434_112}[stacks]  # Newell's stem, see `test_newell`
