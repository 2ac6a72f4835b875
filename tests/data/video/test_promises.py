"""Cut-off and lossy files are named; whole ones are not."""

import sys
from pathlib import Path

import av
import pytest

from videonet.data.decode import open_video
from videonet.data.preparing.verify import Examiner
from videonet.data.video.packets import has_forbidden_bytes, unit_size
from videonet.errors import DecodeError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import conformance  # noqa: E402

sys.path.remove(str(HERE))

FILES = [
    ("mp4", "mpeg4"), ("mkv", "mpeg4"), ("webm", "vp8"), ("avi", "mpeg4"), ("gif", "gif"),
    ("flv", "flv"), ("ts", "mpeg2video"), ("mpg", "mpeg2video"), ("wmv", "wmv2"),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "codec"), FILES)
def test_what_is_cut_off_is_missed(tmp_path, suffix, codec):
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    whole = conformance.write(tmp_path / f"whole.{suffix}", conformance.Film(codec), **options)
    assert Examiner()(str(whole))["reason"] == ""
    data = whole.read_bytes()
    for share in (0.4, 0.7, 0.95):
        path = tmp_path / f"cut.{suffix}"
        path.write_bytes(data[: int(share * len(data))])
        assert Examiner()(str(path))["reason"] != "", share


def test_where_it_was_cut_is_said(tmp_path):
    path = conformance.write(tmp_path / "a.mkv", conformance.Film("mpeg4"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_video(path) as reader:  # what is there can be read all the same
        frames = reader.info.frames
        assert 10 < frames < 30 and conformance.number_of(reader.frames_at([9])[0].numpy()) == 9
    assert Examiner()(str(path))["reason"].startswith(f"cut at {frames / 25:.1f} of 1.6 s: its ")


def test_packets_lost_on_the_way_are_counted(tmp_path):
    whole = conformance.write(tmp_path / "a.ts", conformance.Film("h264"))
    data = whole.read_bytes()
    with av.open(str(whole)) as container:
        number = container.streams.video[0].id
    packets = [data[k : k + 188] for k in range(0, len(data), 188)]
    own = [k for k, p in enumerate(packets) if (p[1] & 31) << 8 | p[2] == number]
    lossy = tmp_path / "b.ts"
    lossy.write_bytes(b"".join(p for k, p in enumerate(packets) if k != own[len(own) // 2]))
    assert Examiner()(str(whole))["reason"] == "" and Examiner()(str(lossy))["reason"] != ""


def test_a_unit_of_a_transport_stream_without_its_start(tmp_path):
    """Its packets are all there; the header of a picture was overwritten."""
    path = conformance.write(tmp_path / "a.ts", conformance.Film("h264"))
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        number = container.streams.video[0].id
    starts = [
        k for k in range(0, len(data), 188)
        if (data[k + 1] & 31) << 8 | data[k + 2] == number and data[k + 1] & 0x40
    ]  # fmt: skip
    place = data.index(b"\0\0\1\xe0", starts[20])
    data[place : place + 14] = bytes(14)
    path.write_bytes(data)
    assert "packet of its transport stream is missing at byte" in Examiner()(str(path))["reason"]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_zeros_within_a_picture(tmp_path, codec, suffix):
    """As a lost sector leaves them: the decoder conceals them, and reports nothing of some."""
    path = conformance.write(tmp_path / f"a.{suffix}", conformance.Film(codec))
    assert Examiner()(str(path))["reason"] == ""
    data = path.read_bytes()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [bytes(p) for p in container.demux(stream) if p.size]
        size = unit_size(stream)
    assert not any(has_forbidden_bytes(memoryview(p), size) for p in packets)
    picture = max(packets[1:], key=len)
    middle = len(picture) // 2
    broken = picture[:middle] + bytes(8) + picture[middle + 8 :]
    assert has_forbidden_bytes(memoryview(broken), size)
    if suffix != "ts":  # whose packets lie in pieces
        place = data.index(picture) + middle
        path.write_bytes(data[:place] + bytes(8) + data[place + 8 :])
        assert Examiner()(str(path))["reason"] != ""


def test_a_picture_of_vp8_that_ends_too_early(tmp_path):
    path = conformance.write(tmp_path / "a.webm", conformance.Film("vp8"))
    assert Examiner()(str(path))["reason"] == ""
    data = path.read_bytes()
    with av.open(str(path)) as container:
        key = [bytes(p) for p in container.demux(video=0) if p.is_keyframe][1]
    place = data.index(key)
    # The length of the first partition is in the upper 19 bits of the first three bytes.
    size = int.from_bytes(key[:3], "little")
    tag = (size & 31 | 12 << 5).to_bytes(3, "little")
    path.write_bytes(data[:place] + tag + data[place + 3 :])
    assert Examiner()(str(path))["reason"] != ""


def test_a_time_stamp_far_from_its_neighbours(tmp_path):
    stamps = [40 * k for k in range(40)]
    stamps[30] += 2**21  # a damaged bit
    whole = conformance.write(tmp_path / "a.mkv", conformance.Film("mjpeg"))

    def moved(k, packet):
        packet.pts = stamps[k]
        return True

    path = conformance.remux(whole, tmp_path / "b.nut", moved)
    assert Examiner()(str(path))["reason"] == (
        "the time stamp of frame 30 is far from those around it"
    )
    with open_video(conformance.remux(whole, tmp_path / "c.nut")) as reader:
        assert reader.table.stray is None


def test_damage_before_the_first_frame_that_is_shown(tmp_path):
    """Frames before the start of an edit list are not shown, but others are decoded from them."""
    path = conformance.with_edit_list(tmp_path, "h264", "mp4")
    assert Examiner()(str(path))["reason"] == ""
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pts < 0]
    assert len(packets) > 3
    for place, size in packets[:3]:
        start, end = place + max(size // 2, 8), place + size - 4
        path.write_bytes(data[:start] + bytes(end - start) + data[end:])
        assert Examiner()(str(path))["reason"] != ""
        with pytest.raises(DecodeError), open_video(path) as reader:
            reader.frames_at([0])


def test_frames_that_a_header_promises_are_missed(tmp_path):
    """The boxes are whole, but the file of the samples is not what the table says."""
    path = conformance.write(tmp_path / "a.avi", conformance.Film("mjpeg"))
    data = bytearray(path.read_bytes())
    place = data.index(b"strh") + 8 + 32
    data[place : place + 4] = (400).to_bytes(4, "little")
    path.write_bytes(data)
    assert (
        "it holds 40 frames of 400" in Examiner()(str(path))["reason"]
        or "cut" in (Examiner()(str(path))["reason"])
    )
