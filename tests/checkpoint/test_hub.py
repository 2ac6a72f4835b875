"""The hub, for which a server on the loopback interface stands."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import save

from videonet.checkpoint import read_checkpoint
from videonet.checkpoint.hub import HUB
from videonet.errors import CheckpointError

constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    """Serves the files of one repository, ``owner/name``."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = files
        self.asked: list[str] = []


class Answer(http.server.BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        start = "/owner/name/resolve/main/"
        name = self.path.removeprefix(start).partition("?")[0]
        content = self.server.files.get(name) if self.path.startswith(start) else None
        self.send_response(404 if content is None else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        content = content or b""
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[Hub]:
    made = Hub({})
    monkeypatch.setenv("VIDEONET_HOME", str(tmp_path / "home"))
    for name in ("VIDEONET_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    place = f"http://127.0.0.1:{made.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", place)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        place + "/{repo_id}/resolve/{revision}/{filename}",
    )
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def config(**changes) -> bytes:
    own = {"format": "videonet", "config": {"MODEL": {"NAME": "x"}}, "class_names": ["a", "b"]}
    return json.dumps({**own, **changes}).encode()


def test_a_repository_is_read_and_kept(hub, monkeypatch):
    hub.files = {"model.safetensors": save({"a": torch.arange(3.0)}), "config.json": config()}
    for _ in range(2):
        content = read_checkpoint(f"{HUB}owner/name")
        assert torch.equal(content["model_state"]["a"], torch.arange(3.0))
        assert content["class_names"] == ["a", "b"] and "NAME: x" in content["cfg"]
        asked, hub.asked = hub.asked, []
        for variable in ("HF_HUB_OFFLINE", "VIDEONET_OFFLINE"):
            monkeypatch.setenv(variable, "1")
    assert asked == []


def test_the_config_of_another_project_is_left_alone(hub):
    hub.files = {"model.safetensors": save({"a": torch.zeros(3)}), "config.json": b'{"model": 1}'}
    content = read_checkpoint(f"{HUB}owner/name")
    assert "cfg" not in content and "class_names" not in content


def test_weights_in_parts_are_fetched_by_their_index(hub):
    parts = {f"model-0000{k}-of-00002.safetensors": {f"t{k}": torch.ones(k)} for k in (1, 2)}
    table = {name: file for file, tensors in parts.items() for name in tensors}
    hub.files = {file: save(tensors) for file, tensors in parts.items()}
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": table}).encode()
    content = read_checkpoint(f"{HUB}owner/name")
    assert {name: len(t) for name, t in content["model_state"].items()} == {"t1": 1, "t2": 2}


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "VIDEONET_OFFLINE"])
def test_offline_nothing_is_asked_for(hub, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(CheckpointError, match=f"{variable} is set and the cache .* lacks it"):
        read_checkpoint(f"{HUB}owner/name")
    assert hub.asked == []


def test_what_is_not_there_is_told(hub):
    with pytest.raises(CheckpointError, match="hf-hub:owner/name has none of model.safetensors"):
        read_checkpoint(f"{HUB}owner/name")
    with pytest.raises(CheckpointError, match="hf-hub:nothing is no repository"):
        read_checkpoint(f"{HUB}nothing")


def test_without_the_package_the_extra_is_named(hub, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'videonet\[hub\]'"):
        read_checkpoint(f"{HUB}owner/name")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not the config of a model: it is no JSON"),
        (config(config=[]), "has no groups of keys under config"),
        (config(class_names="ab"), "its class_names are 'ab', expected a list of names"),
    ],
)
def test_a_damaged_config_is_refused(tmp_path, content, said):
    from videonet.checkpoint.contents import class_names_of

    (tmp_path / "model.safetensors").write_bytes(save({"a": torch.zeros(2)}))
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        class_names_of(read_checkpoint(tmp_path), "x")
