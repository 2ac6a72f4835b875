"""Frame k is frame k in every codec, container and way of reading, or the file is refused."""

import importlib.util
import random
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from videonet.data.decode import open_video
from videonet.data.loading.workers import WorkerFailure, WorkerPool
from videonet.data.preparing.prepare import Encoder
from videonet.data.preparing.verify import Examiner
from videonet.errors import DecodeError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import conformance  # noqa: E402

sys.path.remove(str(HERE))

NEEDS_DECORD = pytest.mark.skipif(
    importlib.util.find_spec("decord") is None, reason="decord is not installed"
)
BACKENDS = ["pyav", pytest.param("decord", marks=NEEDS_DECORD)]
# One cell for each way in which frames are found and placed.
FAST = [
    ("plain", "mp4", "mpeg4"),
    ("plain", "mov", "qtrle"),
    ("plain", "avi", "mjpeg"),
    ("plain", "ts", "h264"),
    ("B-frames", "mp4", "h264"),
    ("B-frames", "avi", "mpeg4"),
    ("B-frames", "mpg", "mpeg2video"),
    ("open GOPs", "mkv", "h264"),
    ("uneven times", "webm", "vp8"),
    ("edit list", "mp4", "h264"),
    ("cut at an open GOP", "mkv", "h264"),
    ("cut between keys", "mp4", "mpeg4"),
    ("stamps of decoding", "mp4", "h264"),
    ("two streams", "mp4", "h264"),
    ("hidden pictures", "webm", "vp8"),
]
DAMAGED = 2000  # files of each seed


def made(feature, suffix, codec, folder):
    """The file of a cell; skips where this FFmpeg does not write it."""
    cells = {cell[:3]: cell[3] for cell in conformance.all_cells()}
    try:
        return cells[feature, suffix, codec](folder, codec, suffix)
    except (av.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        pytest.skip(f"cannot write {codec} in {suffix}: {error}")


@pytest.mark.parametrize("cell", FAST, ids="-".join)
def test_every_frame_is_itself_however_it_is_reached(tmp_path, cell):
    assert conformance.judge(made(*cell, tmp_path), "pyav") == "exact"


@NEEDS_DECORD
@pytest.mark.parametrize("cell", [FAST[4], FAST[8], FAST[13]], ids="-".join)
def test_another_backend_agrees_or_gives_way(tmp_path, cell):
    assert conformance.judge(made(*cell, tmp_path), "decord") == "exact"


@pytest.mark.parametrize("cell", [FAST[4], FAST[6], FAST[10]], ids="-".join)
def test_what_verify_found_makes_no_difference(tmp_path, cell):
    path = made(*cell, tmp_path)
    with open_video(path) as reader:
        info, times = reader.info, reader.times
    assert {key: Examiner()(str(path))[key] for key in ("frames", "counted", "reason")} == {
        "frames": info.frames, "counted": info.counted, "reason": "",
    }  # fmt: skip
    expected = conformance.reference(path)
    for wanted in ([5, 20], [26], [2]):
        with open_video(path, known=info) as reader:
            assert reader.info == info and np.array_equal(reader.times, times)
            found = [conformance.number_of(f) for f in reader.frames_at(wanted).numpy()]
            assert found == [expected[k] for k in wanted]


def test_the_seven_orientations(tmp_path):
    """A picture written the other way round is upright; nothing else is."""
    plain = conformance.plain(tmp_path, "h264", "mp4")
    with open_video(plain) as reader:
        upright = reader.frames_at([3])[0].numpy()
    changes = {
        "hflip": lambda p: p[:, ::-1],
        "vflip": lambda p: p[::-1],
        "transpose": lambda p: p.transpose(1, 0, 2),
        "antitranspose": lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        "90": lambda p: np.rot90(p),
        "180": lambda p: np.rot90(p, 2),
        "270": lambda p: np.rot90(p, 3),
    }
    for name, matrix in conformance.MATRICES.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(plain.read_bytes())
        conformance.set_matrix(path, *matrix)
        for backend in ("pyav", "decord") if importlib.util.find_spec("decord") else ("pyav",):
            with open_video(path, backend) as reader:
                picture = reader.frames_at([3])[0].numpy()
            expected = changes[name](upright)
            assert picture.shape == expected.shape, (name, backend)
            assert np.abs(picture.astype(int) - expected).max() <= 2, (name, backend)
        target = tmp_path / "small" / f"{name}.mp4"
        assert Encoder(48, 4, 10)((str(path), str(target))) is None
        with open_video(target) as reader:
            assert (reader.info.rotation, reader.info.mirrored) == (0, False)
            written = reader.frames_at([3])[0].numpy()
        assert np.abs(written.astype(int) - expected).mean() < 8, name


def test_pixels_that_are_not_square(tmp_path):
    film = conformance.Film("h264", aspect=Fraction(4, 3))
    path = conformance.write(tmp_path / "wide.mp4", film)
    for backend in ("pyav", "decord") if importlib.util.find_spec("decord") else ("pyav",):
        with open_video(path, backend) as reader:
            assert (reader.info.width, reader.info.height) == (85, 48)
            frames = reader.frames_at([0, 33])
            assert frames.shape == (2, 48, 85, 3)
            assert [conformance.number_of(f) for f in frames.numpy()] == [0, 33]


@pytest.mark.parametrize(
    ("suffix", "add"),
    [("mp4", conformance.add_clean_aperture), ("mkv", conformance.add_pixel_crop)],
)
def test_cropping_that_the_container_asks_for(tmp_path, suffix, add):
    plain = conformance.plain(tmp_path, "h264", suffix)
    with open_video(plain) as reader:
        whole = reader.frames_at([3, 30]).numpy()
    path = tmp_path / f"cropped.{suffix}"
    for left, top, width, height in ((8, 4, 48, 40), (1, 3, 62, 41)):
        path.write_bytes(plain.read_bytes())
        add(path, left, top, width, height)
        expected = whole[:, top : top + height, left : left + width]
        for backend in ("pyav", "decord") if importlib.util.find_spec("decord") else ("pyav",):
            with open_video(path, backend) as reader:
                assert (reader.info.width, reader.info.height) == (width, height)
                assert np.array_equal(reader.frames_at([3, 30]).numpy(), expected), backend
    with open_video(path, short_side=20) as reader:
        assert reader.frames_at([3]).shape == (1, 20, 30, 3)
    target = tmp_path / "small" / "cropped.mp4"
    assert Encoder(40, 4, 10)((str(path), str(target))) is None
    with open_video(target) as reader:
        assert (reader.info.width, reader.info.height) == (60, 40)
    if suffix == "mp4":  # a part outside of the picture is damage
        path.write_bytes(plain.read_bytes())
        add(path, 40, 4, 48, 40)
        with open_video(path) as reader:
            assert (reader.info.width, reader.info.height) == (64, 48)


def test_a_picture_attached_to_sound_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        cover = container.add_stream("mjpeg", rate=1)
        if not hasattr(cover, "disposition"):
            pytest.skip("this PyAV marks no attached picture")
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = type(cover.disposition)["attached_pic"]
        frame = av.VideoFrame.from_ndarray(conformance.picture(7), format="rgb24")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 8192), np.float32), "fltp", "mono")
        samples.sample_rate = 8000
        packets = [*sound.encode(samples), *sound.encode(), *cover.encode(frame), *cover.encode()]
        for packet in packets:
            container.mux(packet)
    with pytest.raises(DecodeError, match="no video, only a picture attached"):
        open_video(path)
    assert "no video" in Examiner()(str(path))["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_whole_matrix(tmp_path, backend):
    verdicts = {}
    for feature, suffix, codec, make in conformance.all_cells():
        folder = tmp_path / f"{feature}-{suffix}-{codec}".replace(" ", "_")
        folder.mkdir()
        try:
            path = make(folder, codec, suffix)
        except (av.FFmpegError, av.codec.codec.UnknownCodecError):
            continue
        verdicts[feature, suffix, codec] = conformance.judge(path, backend)
    assert len(verdicts) > 80
    assert {cell: verdict for cell, verdict in verdicts.items() if verdict != "exact"} == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_reading_at_random(tmp_path, seed):
    """Any wish after any other, from one reader."""
    rng = np.random.default_rng(seed)
    for feature, suffix, codec in FAST:
        folder = tmp_path / f"{feature}-{suffix}-{codec}"
        folder.mkdir()
        path = made(feature, suffix, codec, folder)
        expected = conformance.reference(path)
        with open_video(path) as reader:
            for _ in range(60):
                wanted = rng.integers(0, len(expected), rng.integers(1, 6))
                found = [conformance.number_of(f) for f in reader.frames_at(wanted).numpy()]
                assert found == [expected[k] for k in wanted], (feature, suffix, wanted)


def reported(path):
    """What FFmpeg, without this project around it, reports while it decodes a whole file."""
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as entries, av.open(path) as container:
            stream = container.streams.video[0]
            names = (stream.codec_context.name, container.format.name)
            stream.codec_context.options = {"err_detect": "crccheck+explode"}
            for packet in container.demux(stream):
                packet.decode()
            said = [text for level, name, text in entries if name in names]
            return said[0] if said else ""
    except (av.FFmpegError, IndexError, ValueError) as error:
        return str(error)
    finally:
        av.logging.set_level(None)


class ReadDamaged:
    """What a worker does: frames of a damaged file in sequence and at random, and what verify says.

    Returns what verify says, what FFmpeg reports where verify says nothing, and index, time in
    milliseconds and number of the frames, or why there are none.
    """

    def __call__(self, task):
        path, seed = task
        row = Examiner()(path)
        try:
            with open_video(path) as reader:
                rng = np.random.default_rng(seed)
                count = min(reader.info.frames, 200)
                wanted = [*range(0, count, 3), *rng.integers(0, count, 4)]
                found = []
                for index in wanted:
                    try:
                        picture = reader.frames_at([index])[0].numpy()
                    except DecodeError:
                        continue
                    time = round(1000 * float(reader.times[index]))
                    found.append((int(index), time, conformance.number_of(picture)))
                return row["reason"], "" if row["reason"] else reported(path), found
        except DecodeError as error:
            return row["reason"], "", str(error)


def damaged(data, rng):
    """Cut, with bits flipped, with a part zeroed, or with a part left out."""
    data, kind = bytearray(data), rng.randrange(4)
    if kind == 0:
        return bytes(data[: rng.randrange(len(data) // 10, len(data))])
    if kind == 1:
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    start, length = rng.randrange(len(data)), rng.randrange(4, 600)
    if kind == 2:
        data[start : start + length] = bytes(min(length, len(data) - start))
    if kind == 3:
        del data[start : start + length]
    return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_damaged_variants(tmp_path, record_property, seed):
    """No crash, no hang, and no frame at a wrong time without a word where FFmpeg has one."""
    rng, sources, noisy = random.Random(seed), [], []
    for feature, suffix, codec in FAST:
        if feature in ("cut between keys", "two streams"):  # a number alone is no place there
            continue
        folder = tmp_path / f"{feature}-{suffix}-{codec}"
        folder.mkdir()
        path = made(feature, suffix, codec, folder)
        with open_video(path) as reader:
            times = [round(1000 * float(time)) for time in reader.times]
        sources.append((path, dict(zip(conformance.reference(path), times, strict=True))))
        noisy += [path] if reported(str(path)) else []  # it refers to what was cut off
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        import test_conformance

        pool = WorkerPool(test_conformance.ReadDamaged(), 2, 60.0)
    for k in range(DAMAGED):
        path = tmp_path / f"{k}{sources[k % len(sources)][0].suffix}"
        path.write_bytes(damaged(sources[k % len(sources)][0].read_bytes(), rng))
        pool.submit(k, (str(path), k))
    kinds = ("lost", "refused", "named", "right", "unheard", "wrong", "moved")
    counts = dict.fromkeys(kinds, 0)
    wrong = []
    while (done := pool.result()) is not None:
        k, outcome = done
        if isinstance(outcome, WorkerFailure):
            counts["lost"] += 1
            continue
        reason, heard, found = outcome
        if isinstance(found, str):
            counts["refused"] += 1
            continue
        # What is missing at the start moves all times by the same.
        known = sources[k % len(sources)][1]
        shifts = {time - known[n] for _, time, n in found if n in known}
        odd = [n for _, _, n in found if n not in known]
        if reason:
            counts["named"] += 1
        elif odd or (shifts and max(shifts) - min(shifts) > 20):
            heard = heard if sources[k % len(sources)][0] not in noisy else ""
            counts["unheard" if heard else "wrong"] += 1
            wrong.append((k, sources[k % len(sources)][0].name, sorted(shifts), odd, heard))
        else:
            counts["right" if shifts <= {0} else "moved"] += 1
    pool.close()
    record_property("counts", counts)
    sys.stderr.write(f"{counts}\n{wrong}\n")
    assert counts["lost"] == counts["unheard"] == 0 and sum(counts.values()) == DAMAGED
    # VP8 and QuickTime's RLE have no checks; a damaged time stamp is a time stamp all the same.
    unchecked = sum(name in ("vfr.webm", "altref.webm", "plain.mov") for _, name, *_ in wrong)
    assert counts["wrong"] - unchecked <= DAMAGED // 80 and unchecked <= DAMAGED // 25
