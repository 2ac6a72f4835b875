"""Downloads: resumed, checked, whole or not at all; each failure is one sentence.

A server on the loopback interface stands for the hosts of the world.
"""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from videonet.checkpoint import read_checkpoint
from videonet.checkpoint.download import cache_folder, download, place_of
from videonet.errors import CheckpointError, WriteError


def checkpoint_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save({"model_state": {"a": torch.arange(200_000.0)}}, buffer)
    return buffer.getvalue()


CONTENT = checkpoint_bytes()
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves one file, and does what a test asks for.

    Attributes:
        content: of the file.
        breaks: connections that end after as many bytes.
        ranges: it can go on in the middle.
        status: it answers with this number where it is not 200.
        asked: what each request wanted of the file: ``Range``, or empty for all.
        pause: seconds before each answer.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.breaks, self.ranges, self.status = CONTENT, [], True, 200
        self.asked: list[str] = []
        self.pause = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/some/weights.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range", "")
        server.asked.append(wanted)
        time.sleep(server.pause)
        if server.status != 200:
            self.send_error(server.status)
            return
        tag = f'"{hashlib.sha256(server.content).hexdigest()[:8]}"'
        same = self.headers.get("If-Range") == tag
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        start = start if server.ranges and same else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        if start:
            size = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("ETag", tag)
        self.end_headers()
        end = start + server.breaks.pop(0) if server.breaks else None
        self.wfile.write(server.content[start:end])


@pytest.fixture
def server(monkeypatch, tmp_path) -> Iterator[Server]:
    monkeypatch.setenv("VIDEONET_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VIDEONET_OFFLINE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def left_behind() -> list[str]:
    """The names of all files in the cache."""
    return sorted(path.name for path in cache_folder().rglob("*") if path.is_file())


def refusal(act) -> str:
    """The sentence of what is raised."""
    with pytest.raises((CheckpointError, WriteError)) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_url_is_fetched_once(server):
    for _ in range(2):
        content = read_checkpoint(server.url)
        assert torch.equal(content["model_state"]["a"], torch.arange(200_000.0))
    assert server.asked == [""] and left_behind() == ["weights.pth"]
    assert place_of(server.url).read_bytes() == CONTENT


def test_two_urls_of_one_name_are_two_files(server):
    assert place_of(server.url) != place_of(server.url.replace("some", "other"))


def test_a_connection_that_breaks_is_gone_on_with(server):
    server.breaks = [300_000, 200_000]
    assert download(server.url, digest=f"sha256:{SHA[:8]}").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=300000-", "bytes=500000-"]
    assert left_behind() == ["weights.pth"]


def test_half_a_download_is_kept_and_gone_on_with_by_the_next_process(server):
    server.breaks = [300_000, 0, 0, 0, 0, 0, 0]
    said = refusal(lambda: download(server.url))
    assert server.url in said and "300,000 bytes are kept" in said
    assert str(place_of(server.url)) in said and not place_of(server.url).exists()
    assert left_behind() == [".weights.pth.mark", ".weights.pth.part"]
    server.breaks, server.asked = [], []
    assert download(server.url).read_bytes() == CONTENT
    assert server.asked == ["bytes=300000-"] and left_behind() == ["weights.pth"]


@pytest.mark.parametrize("change", ["no ranges", "another file"])
def test_what_cannot_be_gone_on_with_begins_anew(server, change):
    server.breaks = [300_000, 0, 0, 0, 0, 0, 0]
    refusal(lambda: download(server.url))
    server.breaks = []
    if change == "no ranges":
        server.ranges = False
    else:
        server.content = CONTENT[::-1]
    assert download(server.url).read_bytes() == server.content
    assert left_behind() == ["weights.pth"]


def test_a_wrong_hash_keeps_nothing(server):
    said = refusal(lambda: download(server.url, digest="sha256:00000000"))
    assert server.url in said and SHA[:8] in said and "expected 00000000" in said
    assert left_behind() == []


def test_a_damaged_part_is_fetched_again_where_the_hash_tells(server):
    server.breaks = [300_000, 0, 0, 0, 0, 0, 0]
    refusal(lambda: download(server.url))
    server.breaks = []
    part = place_of(server.url).with_name(".weights.pth.part")
    part.write_bytes(b"\0" * 300_000)
    assert download(server.url, digest=f"sha256:{SHA}").read_bytes() == CONTENT


def test_a_page_in_place_of_the_file_keeps_nothing(server):
    server.content = b"<!DOCTYPE html><html>log in</html>"
    assert "is an HTML or XML page" in refusal(lambda: download(server.url))
    assert left_behind() == []


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (503, 2)])
def test_an_answer_that_is_no_file_is_told(server, status, tries):
    server.status = status
    said = refusal(lambda: read_checkpoint(server.url))
    assert server.url in said and f"the server says {status}" in said
    assert len(server.asked) == tries and left_behind() == []


def test_without_a_network_the_place_for_the_file_is_told(server):
    url = "http://127.0.0.1:1/weights.pth"
    said = refusal(lambda: read_checkpoint(url))
    assert url in said and "refused" in said and str(place_of(url)) in said
    assert left_behind() == []
    place_of(url).write_bytes(CONTENT)
    assert "model_state" in read_checkpoint(url)


def test_offline_nothing_is_asked_for(server, monkeypatch):
    monkeypatch.setenv("VIDEONET_OFFLINE", "1")
    said = refusal(lambda: read_checkpoint(server.url))
    assert "VIDEONET_OFFLINE is set" in said and str(place_of(server.url)) in said
    assert server.asked == [] and left_behind() == []
    place_of(server.url).parent.mkdir(parents=True)
    place_of(server.url).write_bytes(CONTENT)
    assert "model_state" in read_checkpoint(server.url)


def test_a_cache_that_takes_nothing_is_told(server, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VIDEONET_HOME", str(tmp_path / "file"))
    said = refusal(lambda: download(server.url))
    assert str(tmp_path / "file") in said and "VIDEONET_HOME names another folder" in said


def test_a_disk_without_the_room_is_told_before_anything_is_fetched(server, monkeypatch):
    import shutil

    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    said = refusal(lambda: download(server.url))
    assert f"the file has {len(CONTENT):,} bytes and the disk room for 1,000" in said
    assert left_behind() == []


SCRIPT = """
import sys
from videonet.checkpoint.download import download
print(len(download(sys.argv[1]).read_bytes()))
"""


def test_of_two_processes_one_fetches(server):
    server.pause = 1.0
    command = [sys.executable, "-c", SCRIPT, server.url]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [int(process.communicate()[0]) for process in both] == [len(CONTENT)] * 2
    assert server.asked == [""] and left_behind() == ["weights.pth"]


def test_file_urls_are_read(tmp_path):
    path = tmp_path / "with a space.pth"
    path.write_bytes(CONTENT)
    assert "model_state" in read_checkpoint(path.as_uri())


def test_handlers_of_iopath_that_the_user_registers_are_asked(tmp_path):
    from iopath.common.file_io import PathHandler, g_pathmgr

    class Bucket(PathHandler):
        def _get_supported_prefixes(self) -> list[str]:
            return ["bucket://"]

        def _get_local_path(self, path: str, force: bool = False, **_: object) -> str:
            return os.path.join(tmp_path, path.removeprefix("bucket://"))

    (tmp_path / "x.pth").write_bytes(CONTENT)
    g_pathmgr.register_handler(Bucket(), allow_override=True)
    assert "model_state" in read_checkpoint("bucket://x.pth")


def test_the_default_cache(monkeypatch):
    monkeypatch.delenv("VIDEONET_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "videonet"


@pytest.fixture
def disk(monkeypatch, tmp_path) -> Iterator[Path]:
    """A file system of its own, 1 MiB in memory, as the cache."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this user may mount no file system (needs root on Linux)")
    monkeypatch.setenv("VIDEONET_HOME", str(place))
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up_gets_its_room_back(server, disk, monkeypatch):
    server.content = CONTENT * 2
    assert "room for" in refusal(lambda: download(server.url))
    usage = type("Usage", (), {"free": 1 << 40})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)  # it fills up while it is written
    said = refusal(lambda: download(server.url))
    assert str(disk) in said and "No space left on device" in said and "VIDEONET_HOME" in said
    assert left_behind() == []
    server.content = CONTENT
    assert download(server.url).read_bytes() == CONTENT


@pytest.mark.slow
def test_a_read_only_cache_is_read(server, disk):
    path = download(server.url)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert download(server.url) == path
    said = refusal(lambda: download(server.url.replace("some", "other")))
    assert "Read-only file system" in said and "VIDEONET_HOME names another folder" in said
