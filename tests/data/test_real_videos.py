"""The videos of shared/data/decode through every backend, against what PyAV counted in them."""

import csv
import importlib.util

import numpy as np
import pytest
import torch

from videonet.data import decode
from videonet.data.decode import open_video
from videonet.data.video.pyav_reader import PyAVReader
from videonet.errors import ConfigError, DecodeError

BACKENDS = {"decord": decode.DecordReader, "torchcodec": decode.TorchcodecReader}

# What a backend does not claim: its reader refuses the file and PyAV reads it.
REFUSED = {
    "decord": {
        "c3d/v_BaseballPitch_g01_c01.avi": "avi",
        "imageio/cockatoo.mp4": "yuv444p",
        "mmaction2/S001C001P001R001A001_rgb.avi": "avi",
        "mmaction2/test.avi": "avi",
        "mmaction2/demo.mp4": "pixels that are not square",
        "mmaction2/part_0.mp4": "pixels that are not square",
        "mmaction2/test.mp4": "pixels that are not square",
        "mp4parse/bbb_sunflower_QCIF_30fps_mp4v_noaudio_1f.mp4": "pixels that are not square",
        "mp4parse/h264_white_frame_sar_16_9.mp4": "pixels that are not square",
        "mp4parse/tiny_av1.mp4": "cannot find video stream",  # AV1
        "torchcodec/av1_video.mkv": "cannot find video stream",
        "torchcodec/testsrc2_av1_10bit.mp4": "cannot find video stream",
        "torchcodec/discard_first_keyframe.mp4": "decord counts 30 frames",  # an edit list
        "torchcodec/h265_video.mp4": "open GOPs",
        "torchcodec/nasa_13013.mp4": "several video streams",
        "torchcodec/sine_stereo_mp2.mpg": "mpeg",
        "torchcodec/testsrc2_mpeg4.avi": "avi",
        "torchcodec/testsrc2_444_10bit_hevc.mp4": "yuv444p10le",
        "torchcodec/testsrc2_444_12bit_hevc.mp4": "yuv444p12le",
        "torchcodec/testsrc2_444_8bit_hevc.mp4": "yuv444p",
        "torchcodec/testsrc2_odd_height_444.mp4": "yuv444p",
        "torchcodec/testsrc2_odd_height_and_width_444.mp4": "yuv444p",
        "torchcodec/testsrc2_odd_height_and_width_444_10bit.mp4": "yuv444p10le",
        "torchcodec/testsrc2_odd_width_444.mp4": "yuv444p",
    },
    "torchcodec": {
        "c3d/v_BaseballPitch_g01_c01.avi": "avi",
        "mmaction2/S001C001P001R001A001_rgb.avi": "avi",
        "mmaction2/test.avi": "avi",
        "torchcodec/sine_stereo_mp2.mpg": "mpeg",
        "torchcodec/testsrc2_mpeg4.avi": "avi",
    },
}

# Pixels are equal to PyAV's, but for these: test cards with sharp colour edges in 4:2:0, whose
# colours the versions of FFmpeg interpolate apart. The least PSNR in dB.
COLOUR_EDGES = {
    "torchcodec/bt2020_10bit.mp4": 25,
    "torchcodec/h264_10bits.mp4": 25,
    "torchcodec/h265_10bits.mp4": 25,
    "torchcodec/nasa_13013_hdr.mp4": 40,
    "torchcodec/testsrc2_12bit_hdr.mp4": 25,
    "torchcodec/testsrc2_av1_10bit.mp4": 40,
    "torchcodec/testsrc2_hdr.mp4": 25,
    "torchcodec/testsrc2_odd_height_and_width_mpeg2.mp4": 25,
    "torchcodec/testsrc2_odd_height_and_width_vp9.mp4": 30,
    "torchcodec/testsrc2_odd_height_and_width_vp9_10bit.mp4": 30,
    "torchcodec/testsrc2_odd_height_vp9.mp4": 30,
    "torchcodec/testsrc2_odd_height_vp9_10bit.mp4": 30,
    "torchcodec/testsrc2_odd_width_vp9_10bit.mp4": 30,
}

# Files that cannot be read to their end, and what of the reason has to be said.
BROKEN = {
    "decord/corrupted.mp4": "Invalid data",
    "mp4parse/chunk_out_of_range.mp4": "Invalid data",
    "mp4parse/invalid_userdata.mp4": "no video frame",
    "mp4parse/no_timescale.mp4": "Invalid data",
    "mp4parse/zero_empty_stsc.mp4": "no video frame",
}


# What is shown of a file where its pixels are not square, where its time stamps contradict its
# header, or where it has several video streams: (frames, (width, height), frames per second).
SHOWN = {
    "mmaction2/demo.mp4": (280, (427, 256), 28.0),
    "mmaction2/part_0.mp4": (32, (455, 256), 29.06),
    "mmaction2/test.mp4": (300, (455, 256), 30.0),
    "mp4parse/bbb_sunflower_QCIF_30fps_mp4v_noaudio_1f.mp4": (1, (256, 144), 30.0),
    "mp4parse/h264_white_frame_sar_16_9.mp4": (1, (1138, 480), 25.0),
    "torchcodec/nasa_13013.mp4": (390, (480, 270), 29.97),
}


@pytest.fixture(scope="module")
def rows(shared_dir):
    with open(shared_dir / "data" / "videos.csv", newline="") as lines:
        found = {row["path"]: row for row in csv.DictReader(lines)}
    rows = {
        path.removeprefix("decode/"): row
        for path, row in found.items()
        if path.startswith("decode/")
    }
    assert len(rows) == 70
    return rows


@pytest.fixture(scope="module")
def folder(shared_dir):
    return shared_dir / "data" / "decode"


def psnr(a, b):
    error = (a.float() - b.float()).pow(2).mean().item()
    return 10 * np.log10(255**2 / max(error, 1e-9))


def test_counts_sizes_rates_and_rotation(rows, folder):
    assert {name for name, row in rows.items() if row["error"]} == set(BROKEN)
    for name, row in rows.items():
        if name in BROKEN:
            continue
        with open_video(folder / name) as reader:
            info = reader.info
            last = reader.frames_at([info.frames - 1])
        size = (int(row["width"]), int(row["height"]))
        upright = size[::-1] if info.rotation % 180 else size
        coded = (int(row["frames"]), upright, float(row["avg_fps"]))
        frames, upright, fps = SHOWN.get(name, coded)
        assert info.frames == frames, name
        assert (info.width, info.height) == upright, name
        assert tuple(last.shape) == (1, *upright[::-1], 3), name
        assert info.rotation == int(row["rotation"]) % 360, name
        assert info.fps == pytest.approx(fps, abs=0.01), name


@pytest.mark.parametrize("name", sorted(BROKEN))
@pytest.mark.parametrize("backend", ["auto", "decord"])
def test_broken_files_are_named(folder, name, backend):
    if backend != "auto":
        pytest.importorskip(backend)
    path = folder / name
    with (
        pytest.raises(DecodeError) as caught,
        open_video(path, backend) as reader,
    ):
        reader.frames_at(range(reader.info.frames))
    message = str(caught.value)
    assert message.startswith(f"cannot read {path}: ") and BROKEN[name] in message


def test_skipping_frames_changes_none(rows, folder):
    for name in rows:
        if name in BROKEN:
            continue
        with open_video(folder / name, short_side=48) as reader:
            count = min(reader.info.frames, 48)
            every = reader.frames_at(range(count))
        with open_video(folder / name, short_side=48) as reader:
            for start, step in ((0, 3), (1, 7), (count // 2, 11)):
                some = np.arange(min(start, count - 1), count, step)
                assert torch.equal(reader.frames_at(some), every[some]), name


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_backends_show_the_same(rows, folder, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    compared = 0
    for name in rows:
        if name in BROKEN:
            continue
        reference = PyAVReader(str(folder / name))
        wanted = np.unique(np.linspace(0, reference.info.frames - 1, 7).astype(int))
        expected = reference.frames_at(wanted)
        if name in REFUSED[backend]:
            with pytest.raises(DecodeError, match=REFUSED[backend][name]):
                BACKENDS[backend](reference).frames_at(wanted)
            continue
        try:
            with BACKENDS[backend](reference) as reader:
                frames = reader.frames_at(wanted)
        except ConfigError as error:  # torchcodec without FFmpeg's libraries
            pytest.skip(str(error))
        assert frames.shape == expected.shape, name
        if name in COLOUR_EDGES or backend == "torchcodec":  # it has the system's FFmpeg
            assert psnr(frames, expected) >= COLOUR_EDGES.get(name, 40), name
        else:
            assert torch.equal(frames, expected), name
        compared += 1
    assert compared >= 40


@pytest.mark.parametrize("name", sorted(REFUSED["decord"]))
def test_what_decord_refuses_is_read_all_the_same(folder, name):
    pytest.importorskip("decord")
    frames = {}
    for backend in ("decord", "pyav"):
        with open_video(folder / name, backend, short_side=64) as reader:
            last = reader.info.frames - 1
            frames[backend] = reader.frames_at([last // 2, 4 * last // 5, last])
    assert torch.equal(frames["decord"], frames["pyav"])
