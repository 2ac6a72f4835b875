"""Uploads and requests that are made to do harm."""

import contextlib
import gzip
import http.server
import io
import os
import resource
import signal
import struct
import threading
import time
import zipfile
import zlib
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.inference.conftest import write_colours
from tests.serving.conftest import make_predictor
from videonet.errors import ConfigError, DecodeError
from videonet.serving.decoding import Decoders, Decoding, Step
from videonet.serving.limits import Limits
from videonet.serving.uploads import shown_name

M3U8 = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile {}\n"


def write_spread(path, seconds: int, size: tuple[int, int] = (48, 32)):
    """Two frames, so many seconds apart."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10)
        for pts in (0, seconds * 10):
            picture = np.zeros((size[1], size[0], 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def with_claimed_hours(content: bytes, hours: int) -> bytes:
    """A Matroska file whose header says that it lasts so long."""
    at = content.index(b"\x44\x89\x88") + 3  # Duration, a double in milliseconds
    return content[:at] + struct.pack(">d", 3.6e6 * hours) + content[at + 8 :]


def png_bomb(side: int) -> bytes:
    """A small PNG that unpacks into so many pixels a side."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (side + 1) * 64, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def zip_bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("video.mp4", b"\0" * 10_000_000)
    return file.getvalue()


@pytest.fixture(scope="module")
def hostile(videos, tmp_path_factory):
    """(content, what the answer says) by name."""
    folder = tmp_path_factory.mktemp("hostile")
    secret, good = str(videos["red"]).encode(), videos["red"].read_bytes()
    flat = "limit of this server"
    return {
        "a playlist": (M3U8.replace(b"{}", secret), "cannot read clip.mp4: Invalid "),
        "a playlist of a device": (
            M3U8.replace(b"{}", b"/dev/zero"),
            "cannot read clip.mp4: Invalid ",
        ),
        "a list of files": (CONCAT.replace(b"{}", secret), "cannot read clip.mp4: Invalid "),
        "a manifest": (
            b"<MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
            "cannot read clip.mp4: Invalid ",
        ),
        "a session": (
            b"v=0\nm=video 5004 RTP/AVP 96\nc=IN IP4 127.0.0.1\n",
            "cannot read clip.mp4: Invalid ",
        ),
        "a page": (b"<html><script>alert(1)</script></html>", "cannot read clip.mp4: Invalid "),
        "ten hours of header": (
            with_claimed_hours(as_matroska(good), 10),
            "claims to last 36,000 s",
        ),
        "ten hours of two frames": (
            write_spread(folder / "long.mp4", 36000),
            "claims to last 36,0",
        ),
        "a zip bomb": (zip_bomb(), "cannot read clip.mp4: Invalid "),
        "a picture bomb": (png_bomb(60_000), "pixels"),
        "a large picture": (write_spread(folder / "big.mp4", 1, (1024, 1024)), flat),
        "truncated": (good[: len(good) // 2], "cannot read"),
        "truncated behind its header": (as_matroska(good)[:-400], "bytes after the file"),
        "zeros": (b"\0" * 500_000, "cannot read clip.mp4: Invalid "),
    }


def as_matroska(content: bytes) -> bytes:
    """The same MP4 as Matroska, whose header comes first."""
    with av.open(io.BytesIO(content)) as old:
        file = io.BytesIO()
        with av.open(file, "w", format="matroska") as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    new.mux(packet)
        return file.getvalue()


def test_hostile_files_are_refused_in_one_sentence(hostile, server):
    for what, (content, said) in hostile.items():
        answer = server.ask("/api/predict", content, name="clip.mp4", sliding="true")
        assert answer.status == 422, (what, answer.body)
        assert said in answer.error and "\n" not in answer.error, (what, answer.error)
        assert str(server.service.folder) not in answer.error, what
        assert "clip.mp4" in answer.error, (what, answer.error)
    assert list(server.service.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<script>alert(1)</script>.mp4", "script>.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\videos\\a.mp4", "a.mp4"),
        ("a\x1b]0;x\x07\r\nb.mp4", "a\\x1b]0;x\\x07\\x0d\\x0ab.mp4"),
        ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
        ("///", "video"),
        ("x" * 300, "x" * 120),
    ],
)
def test_names_are_text_and_never_paths(name, shown, server, videos):
    assert shown_name(name) == shown
    answer = server.ask("/api/predict", videos["red"].read_bytes(), name=name)
    assert answer.status == 200 and answer.json["video"] == shown
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_bodies_that_are_too_large_or_none(server):
    too_large = "the file is larger than 2 MB, the limit of this server"
    assert server.ask("/api/predict", b"\0" * 2_000_001).error == too_large
    pieces = (b"\0" * 100_000 for _ in range(40))
    answer = server.ask("/api/predict", pieces)
    assert (answer.status, answer.error) == (413, too_large)
    assert server.ask("/api/predict", b"").status == 400
    packed = server.ask("/api/predict", gzip.compress(b"\0" * 10**7), {"Content-Encoding": "gzip"})
    assert packed.status == 415 and "Content-Encoding" in packed.error
    assert list(server.service.folder.iterdir()) == []


def test_half_a_gigabyte_never_lies_in_memory(server):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    piece = b"\0" * 2**20
    answer = server.ask("/api/predict", (piece for _ in range(500)))
    assert answer.status == 413
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # kB
    assert list(server.service.folder.iterdir()) == []


def test_more_windows_than_allowed_are_refused(server, tmp_path):
    path = write_colours(tmp_path / "long.mp4", [("red", 150)])
    answer = server.ask("/api/predict", path.read_bytes(), stride=0.1, name="long.mp4")
    assert answer.status == 422
    said = "long.mp4 has 143 windows at this stride, more than 100, the limit of this server"
    assert answer.error == said


def test_a_full_queue_sends_away(server, videos):
    with contextlib.ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(server.service.held())
        answer = server.ask("/api/predict", videos["red"].read_bytes())
    assert answer.status == 503 and answer.headers["retry-after"] == "5"
    assert "queue is full" in answer.error
    assert server.ask("/api/predict", videos["red"].read_bytes()).status == 200


def test_files_of_the_machine_are_out_of_reach(server):
    places = (
        *(
            "/static/../app.py",
            "/static/..%2fapp.py",
            "/static/%2e%2e/app.py",
            "/static//etc/passwd",
        ),
        *("/static/....//app.py", "/../../etc/passwd", "/api/results/..%2f..%2fetc%2fpasswd.csv"),
    )
    for place in places:
        answer = server.ask(place)
        assert answer.status in (404, 405) and b"root:" not in answer.body, place
        assert answer.json["error"]


def test_requests_of_other_pages_are_not_answered(server, videos):
    body = videos["red"].read_bytes()
    own = server.address
    for headers, status in (
        ({"Origin": own}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": f"localhost:{server.port}"}, 200),
        ({"Host": "[::1"}, 403),
    ):
        answer = server.ask("/api/predict", body, headers)
        assert answer.status == status, headers
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")


@dataclass(frozen=True)
class Crash(Step):
    path: str

    def run(self, cfgs, limits):
        os.kill(os.getpid(), signal.SIGSEGV)


@dataclass(frozen=True)
class Hang(Step):
    path: str

    def run(self, cfgs, limits):
        time.sleep(60)


@dataclass(frozen=True)
class Greed(Step):
    path: str

    def run(self, cfgs, limits):
        return bytearray(2**31)[:1]


@dataclass(frozen=True)
class Bug(Step):
    path: str

    def run(self, cfgs, limits):
        return 1 / 0


@dataclass(frozen=True)
class Process(Step):
    path: str

    def run(self, cfgs, limits):
        return os.getpid()


@pytest.mark.parametrize(
    ("step", "timeout", "error", "said"),
    [
        (Crash("a.mp4"), 60, DecodeError, "cannot read a.mp4: it ended its process with SIGSEGV"),
        (Hang("a.mp4"), 3, DecodeError, "cannot read a.mp4: it took longer than 3 s"),
        (Greed("a.mp4"), 60, DecodeError, "a.mp4 needs more than 1000 MB to decode"),
        (Bug("a.mp4"), 60, RuntimeError, "ZeroDivisionError"),
    ],
)
def test_a_decoder_may_crash_hang_and_want_all_memory(step, timeout, error, said):
    decoders = Decoders(Decoding([], Limits(memory_mb=1000)), 1, timeout)
    try:
        with pytest.raises(error, match=said):
            decoders.submit(step).result(120)
        processes = [decoders.submit(Process("b.mp4")).result(60) for _ in range(3)]
        assert len(set(processes)) == 1  # and it stays
    finally:
        decoders.close()


class Files(http.server.BaseHTTPRequestHandler):
    """/clip is a video, /away leads elsewhere, /large has no end."""

    content = b""

    def do_GET(self):
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://localhost:9/clip")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(1000 if self.path == "/large" else 1):
                self.wfile.write(self.content)

    def log_message(self, *_):
        return


def test_addresses_are_fetched_from_allowed_hosts_alone(start_server, videos):
    Files.content = videos["blue"].read_bytes()
    files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=files.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{files.server_port}"
    server = start_server(
        {"plain": make_predictor()}, url_hosts=frozenset((host,)), limits={"max_mb": 1}
    )
    try:

        def ask(url):
            return server.ask("/api/predict", b"", url=url)

        assert ask(f"http://{host}/clip").json["results"][0]["top"][0]["label"] == "blue"
        assert ask(f"http://{host}/large").status == 413
        elsewhere = f"this server fetches from {host} alone"
        urls = (
            *("http://localhost:9/clip", "file:///etc/passwd", f"ftp://{host}/clip", "http://["),
            *(f"http://{host}@localhost:9/clip", f"http://{host}/away"),
        )
        for url in urls:
            answer = ask(url)
            assert (answer.status, answer.error) == (403, elsewhere), url
    finally:
        files.shutdown()
        files.server_close()
    assert "cannot fetch the address" in ask(f"http://{host}/clip").error
    assert list(server.service.folder.iterdir()) == []


def test_limits_are_above_zero():
    with pytest.raises(ConfigError, match=r"--max-mb is 0, but must be above 0"):
        Limits(max_mb=0)


def test_a_slow_upload_ends(start_server, tmp_path):
    server = start_server({"plain": make_predictor()}, limits={"upload_seconds": 0.3})

    def pieces():
        for _ in range(20):
            yield b"\0" * 100
            time.sleep(0.05)

    answer = server.ask("/api/predict", pieces())
    assert answer.status == 408 and "the upload took longer than 0.3 s" in answer.error
    assert write_colours(tmp_path / "a.mp4", [("red", 5)]).is_file()
