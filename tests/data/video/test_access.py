"""Files that are no video, or that would make the program do more than read them."""

import os
import shutil
import socket
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from videonet.data.decode import open_video
from videonet.data.preparing.prepare import Encoder
from videonet.data.preparing.verify import Examiner
from videonet.data.video.access import DEMUXERS, seconds_per_tick
from videonet.data.video.pictures import read_picture
from videonet.errors import DecodeError
from videonet.inference.sources import find_videos


@pytest.fixture
def odd_files(tmp_path):
    """A FIFO, a device, a socket and a folder under the names of videos and pictures."""
    paths = []
    for suffix in ("mp4", "jpg"):
        os.mkfifo(tmp_path / f"fifo.{suffix}")
        os.symlink("/dev/zero", tmp_path / f"zero.{suffix}")
        place = socket.socket(socket.AF_UNIX)
        place.bind(str(tmp_path / f"socket.{suffix}"))
        place.close()
        (tmp_path / f"folder.{suffix}").mkdir()
        paths += [tmp_path / f"{n}.{suffix}" for n in ("fifo", "zero", "socket", "folder")]
    return paths


def test_only_plain_files_are_opened(odd_files, tmp_path):
    for path in odd_files:
        for backend in ("auto", "decord"):
            with pytest.raises(DecodeError) as caught:
                open_video(path, backend)
        reason = str(caught.value).removeprefix(f"cannot read {path}: ")
        assert Examiner()(str(path))["reason"] == reason and "\n" not in reason
        assert reason in str(Encoder(32, 4, 30)((str(path), str(tmp_path / "out" / "x.mp4"))))


def test_a_stream_without_a_unit_of_time_is_refused():
    assert seconds_per_tick("a.mp4", SimpleNamespace(time_base=Fraction(1, 8))) == 0.125
    with pytest.raises(DecodeError, match="cannot read a.mp4: nothing says how long a unit"):
        seconds_per_tick("a.mp4", SimpleNamespace(time_base=None))


def test_playlists_and_lists_of_files_are_no_videos(tmp_path, make_video):
    make_video(tmp_path / "private.mp4")
    texts = {
        "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nprivate.mp4\n#EXT-X-ENDLIST\n",
        "b.mp4": "ffconcat version 1.0\nfile private.mp4\n",
        "c.mp4": "<MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>\n",
        "d.mp4": "v=0\nm=video 5004 RTP/AVP 96\nc=IN IP4 127.0.0.1\n",
        "e.nfo": "hello\n" * 30,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        for backend in ("pyav", "decord"):
            with pytest.raises(DecodeError, match=f"cannot read .*{name}: "):
                open_video(tmp_path / name, backend)
    names = set(DEMUXERS.split(","))
    assert not names & {"hls", "dash", "concat", "sdp", "rtsp", "image2", "lavfi", "tty"}


@pytest.mark.parametrize(
    "name", ["12:30:05.mp4", "concat:a.mp4", "file:a.mp4", "http:a.mp4", "im%03d.mp4", "-a.mp4"]
)
def test_the_file_of_this_name_is_read(tmp_path, monkeypatch, make_video, indices_in, name):
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "a.mp4", frames=10)
    shutil.copy(make_video(tmp_path / "b.mp4", frames=17), tmp_path / name)
    for backend in ("pyav", "decord"):
        with open_video(name, backend) as reader:
            assert reader.info.frames == 17 and indices_in(reader.frames_at([12])) == [12]
    assert Examiner()(name)["frames"] == 17
    assert Encoder(32, 4, 30)((name, name + ".small.mp4")) is None


def test_names_that_are_no_utf8(tmp_path, make_video):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    shutil.copy(make_video(tmp_path / "a.mp4", frames=12), path)
    for backend in ("pyav", "decord"):
        with open_video(path, backend) as reader:
            assert reader.info.frames == 12 and reader.frames_at([11]).shape[0] == 1
    assert Examiner()(path)["reason"] == ""
    assert [source.path for source in find_videos([tmp_path])] == [str(tmp_path / "a.mp4"), path]


def test_postscript_starts_no_program(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    with pytest.raises(DecodeError, match="cannot identify the picture, expected one of BMP"):
        open_video(tmp_path / "a.jpg")
    assert not (tmp_path / "ran").exists()


def test_pictures_have_a_largest_size(tmp_path):
    for side, reason in ((9_000, "9000 x 9000 pixels, more than 67,108,864"), (20_000, "exceeds")):
        Image.new("1", (side, side)).save(tmp_path / "a.png")
        with pytest.raises(DecodeError, match=reason):
            open_video(tmp_path / "a.png")


def test_pictures_of_16_bits_and_with_alpha(tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    with open_video(tmp_path / "a.png") as reader:
        assert np.array_equal(reader.frames_at([0])[0, ..., 0].numpy(), ramp >> 8)
    for suffix in ("png", "webp", "bmp"):
        Image.new("RGBA", (8, 8), (200, 100, 50, 128)).save(tmp_path / f"b.{suffix}", lossless=True)
        with open_video(tmp_path / f"b.{suffix}") as reader:
            assert reader.info.codec == suffix
            assert reader.frames_at([0])[0, 4, 4].tolist() == [200, 100, 50]  # alpha is dropped


def test_animations_are_no_pictures(tmp_path):
    first, second = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "red")
    first.save(tmp_path / "a.webp", save_all=True, append_images=[second])
    with pytest.raises(DecodeError, match="an animation of 2 pictures"):
        open_video(tmp_path / "a.webp")


def test_damage_that_pillow_conceals_is_named(tmp_path):
    rows = np.add.outer(np.arange(96), np.arange(96)).astype(np.uint8)
    path = tmp_path / "a.jpg"
    Image.fromarray(np.stack([rows, rows[::-1], rows.T], axis=-1)).save(path, quality=90)
    assert Examiner()(str(path))["reason"] == ""
    whole, reasons = path.read_bytes(), []
    for start in range(650, len(whole) - 60, 60):
        path.write_bytes(whole[:start] + bytes(40) + whole[start + 40 :])
        read_picture(str(path))  # Pillow says nothing
        reasons.append(Examiner()(str(path))["reason"])
    said = [reason.startswith(("FFmpeg reports", "libjpeg reports")) for reason in reasons]
    assert sum(said) > len(reasons) // 2


def test_damage_that_a_checksum_shows_is_named(tmp_path):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "a.webp", lossless=True)
    for suffix in ("png", "webp"):
        assert Examiner()(str(tmp_path / f"a.{suffix}"))["reason"] == ""
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[data.index(b"IEND") - 5] ^= 1  # the checksum of the pixels, which Pillow passes over
    (tmp_path / "a.png").write_bytes(data)
    read_picture(str(tmp_path / "a.png"))
    assert "checksum of its part 'IDAT'" in Examiner()(str(tmp_path / "a.png"))["reason"]
    picture.save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:-12])
    assert Examiner()(str(tmp_path / "b.png"))["reason"]


def test_several_series_in_a_folder(tmp_path):
    def write(*names):
        for name in names:
            Image.new("RGB", (8, 8)).save(tmp_path / name)

    write("img_00001.jpg", "img_00002.jpg", "flow_x_00000.jpg", "flow_y_00000.jpg")
    (tmp_path / "._img_00003.jpg").write_bytes(b"no picture")
    with open_video(tmp_path) as reader:
        assert reader.info.frames == 2
    write("depth_00001.jpg")
    with pytest.raises(DecodeError, match="4 series of pictures .depth_00001.jpg, flow_x_00000"):
        open_video(tmp_path)
    write("img_1.jpg")
    with pytest.raises(DecodeError, match="img_1.jpg and img_00001.jpg have one number"):
        open_video(tmp_path)
