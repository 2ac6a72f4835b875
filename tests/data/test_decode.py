import dataclasses
import importlib.util
import logging

import numpy as np
import pytest
import torch

from videonet.data import decode
from videonet.data.decode import open_video, scaled_size
from videonet.data.video import fallback
from videonet.errors import ConfigError, DecodeError

NEEDS_DECORD = pytest.mark.skipif(
    importlib.util.find_spec("decord") is None, reason="decord is not installed"
)
BACKENDS = [
    pytest.param("auto"),
    pytest.param("pyav"),
    pytest.param("decord", marks=NEEDS_DECORD),
]


@pytest.fixture(scope="module", params=["libx264", "mpeg4"])
def video(request, make_video, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return make_video(folder / "clip.mp4", frames=30, codec=request.param)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "wanted", [[0], [29], [3, 4, 5], [0, 7, 8, 9, 16, 29], [20, 3, 3, 29, 0], list(range(30))]
)
def test_frames_come_in_the_order_asked_for(video, indices_in, backend, wanted):
    with open_video(video, backend) as reader:
        frames = reader.frames_at(wanted)
    assert frames.dtype == torch.uint8 and frames.shape == (len(wanted), 48, 64, 3)
    assert indices_in(frames) == wanted


@pytest.mark.parametrize("backend", BACKENDS)
def test_reading_again_goes_back_and_forth(video, indices_in, backend):
    with open_video(video, backend) as reader:
        for wanted in ([10, 12], [12], [2], [2, 28], [29], [0]):
            assert indices_in(reader.frames_at(wanted)) == wanted


def test_info(video):
    with open_video(video) as reader:
        info = reader.info
    assert (info.frames, info.width, info.height, info.rotation) == (30, 64, 48, 0)
    assert info.fps == pytest.approx(30) and info.duration == pytest.approx(1.0, abs=0.01)
    assert info.codec in ("h264", "mpeg4") and "mp4" in info.container
    assert reader.times == pytest.approx(np.arange(30) / 30, abs=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("side", [24, 31, 96])
def test_the_short_side_is_exact(video, backend, side):
    with open_video(video, backend, short_side=side) as reader:
        assert reader.frames_at([0, 5]).shape == (2, side, side * 64 // 48, 3)


def test_scaled_size():
    assert scaled_size(640, 480, 64) == (85, 64)
    assert scaled_size(480, 640, 64) == (64, 85)
    assert scaled_size(320, 240, None) == (320, 240)


@pytest.mark.parametrize("suffix", ["mkv", "avi", "mov"])
def test_other_containers(make_video, tmp_path, indices_in, suffix):
    path = make_video(tmp_path / f"clip.{suffix}", frames=25)
    for backend in ("auto", "pyav"):
        with open_video(path, backend) as reader:
            assert reader.info.frames == 25
            assert indices_in(reader.frames_at([24, 2, 13])) == [24, 2, 13]


def test_frames_shown_before_their_key_frame(make_video, tmp_path, indices_in):
    options = {"x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:scenecut=0:b-adapt=0"}
    path = make_video(tmp_path / "open.mp4", frames=36, options=options)
    with open_video(make_video(tmp_path / "closed.mp4", frames=36)) as reader:
        assert not reader.info.open_gop
    for k in range(36):
        with open_video(path) as reader:
            assert reader.info.open_gop and indices_in(reader.frames_at([k])) == [k]


def test_full_colour_and_b_frames(make_video, tmp_path, indices_in):
    for pixels, gop in (("yuv444p", 8), ("yuv420p", 12), ("yuv420p", 250)):
        path = make_video(tmp_path / f"{pixels}{gop}.mkv", frames=36, gop=gop, pixels=pixels)
        with open_video(path) as reader:
            assert reader.info.pixels == pixels
            for wanted in ([20, 31], [33], [9, 10, 11]):
                assert indices_in(reader.frames_at(wanted)) == wanted


def test_uneven_frames_have_their_times(make_video, tmp_path):
    stamps = [0, 10, 20, 200, 210, 220, 700, 710]
    path = make_video(tmp_path / "vfr.mkv", frames=8, stamps=stamps)
    with open_video(path) as reader:
        assert reader.times == pytest.approx(np.array(stamps) / 1000, abs=2e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no such file"), (b"", ""), (b"not a video at all" * 50, "")],
    ids=["missing", "empty", "text"],
)
def test_what_is_no_video_is_named(tmp_path, backend, content, reason):
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DecodeError) as caught:
        open_video(path, backend)
    message = str(caught.value)
    assert message.startswith(f"cannot read {path}: ") and reason in message
    assert "\n" not in message and "Errno" not in message


def test_sound_without_pictures_is_named(tmp_path):
    import av

    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        samples = np.zeros((1, 1024), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DecodeError, match="no video stream"):
        open_video(path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_damaged_middle_is_an_error_not_a_picture(make_video, tmp_path, backend):
    path = make_video(tmp_path / "clip.mp4", frames=40, width=160, height=128)
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 8
    data[start + 1500 : start + 4000] = bytes(2500)
    path.write_bytes(data)
    with (
        pytest.raises(DecodeError, match="cannot read .*clip.mp4: "),
        open_video(path, backend) as reader,
    ):
        reader.frames_at(range(reader.info.frames))


def test_indices_outside_are_a_mistake_of_the_caller(video):
    with open_video(video) as reader:
        for wanted in ([30], [-1], []):
            with pytest.raises(IndexError):
                reader.frames_at(wanted)


def test_unknown_backend(video):
    with pytest.raises(ConfigError, match="'opencv'.*decord, pyav"):
        open_video(video, "opencv")


def test_falling_back_is_logged_once(video, monkeypatch, caplog, indices_in):
    class Refusing(decode.DecordReader):
        def __init__(self, reference, *_):
            raise DecodeError(f"cannot read {reference.path}: not today")

    monkeypatch.setattr(decode, "DecordReader", Refusing)
    fallback._log_fallback.cache_clear()
    with caplog.at_level(logging.INFO, logger="videonet.data.video.fallback"):
        for _ in range(3):
            with open_video(video, "decord") as reader:
                assert indices_in(reader.frames_at([4])) == [4]
    assert len(caplog.records) == 1 and "pyav" in caplog.text and "decord" in caplog.text


def test_a_gpu_that_is_not_there_is_one_sentence(video, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="cuda decodes on an NVIDIA GPU, and torch finds none"):
        open_video(video, "cuda")


def test_a_torchcodec_without_cuda_is_one_sentence(video, monkeypatch):
    decoders = pytest.importorskip("torchcodec.decoders")

    def refuse(*_, device, **__):
        raise RuntimeError(f"Unsupported device: {device}")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(decoders, "VideoDecoder", refuse)
    with pytest.raises(ConfigError, match="this torchcodec is built without CUDA"):
        open_video(video, "cuda")


@pytest.mark.cuda
def test_a_gpu_decodes_nearly_the_same(make_video, tmp_path, device):
    if device.type != "cuda":
        pytest.skip("NVDEC is on NVIDIA's GPUs")
    pytest.importorskip("torchcodec.decoders")
    path = make_video(tmp_path / "clip.mp4", frames=30, codec="libx264")
    wanted = [3, 4, 29, 0]
    with open_video(path, "cuda", 24) as reader, open_video(path, "pyav", 24) as reference:
        found, expected = reader.frames_at(wanted), reference.frames_at(wanted)
    assert found.device.type == "cpu" and found.shape == expected.shape
    assert (found.float() - expected.float()).abs().mean() < 4


@pytest.mark.parametrize("gop", [4, 8, 250])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_that_nobody_wants_are_not_missed(make_video, tmp_path, indices_in, suffix, gop):
    """What is skipped between wanted frames changes neither them nor those read later."""
    options = {"x264-params": "bframes=3:b-adapt=0:scenecut=0"}
    path = make_video(tmp_path / f"clip.{suffix}", frames=36, gop=gop, options=options)
    with open_video(path, "pyav") as reader:
        every = reader.frames_at(range(36))
    with open_video(path, "pyav") as reader:
        for wanted in ([3, 9, 27], [28, 29, 35], [35], [0, 1, 2, 33], [4, 5], [6, 7, 20]):
            assert torch.equal(reader.frames_at(wanted), every[wanted])
    assert indices_in(every) == list(range(36))


def test_what_a_manifest_knows_makes_no_difference(video, indices_in):
    with open_video(video) as reader:
        known = reader.info
    for backend in ("pyav", "decord"):
        with open_video(video, backend, known=known) as reader:
            assert reader.info == known
            assert reader.times == pytest.approx(np.arange(30) / 30, abs=1e-3)
            assert indices_in(reader.frames_at([20, 3, 29])) == [20, 3, 29]


def test_what_a_manifest_says_wrongly_changes_nothing(video, indices_in):
    """Of facts that are in the header or the packets, the file's are right."""
    with open_video(video) as reader:
        info = reader.info
    lies = ({"frames": 12}, {"width": 1}, {"height": 960}, {"fps": 1000.0}, {"codec": "vp8"})
    for lie in lies:
        known = dataclasses.replace(info, **lie)
        for backend in ("pyav", "decord"):
            with open_video(video, backend, known=known) as reader:
                assert reader.info == info and indices_in(reader.frames_at([25])) == [25]


@pytest.mark.parametrize("lie", [{"rotation": 180}, {"mirrored": True}, {"pixels": "yuv444p"}])
def test_what_only_frames_tell_is_compared_with_them(video, lie):
    with open_video(video) as reader:
        known = dataclasses.replace(reader.info, **lie)
    with (
        pytest.raises(DecodeError, match="not as the manifest says; run tools/data.py verify"),
        open_video(video, known=known) as reader,
    ):
        reader.frames_at([3])
