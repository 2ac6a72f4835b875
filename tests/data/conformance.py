"""Videos whose pictures say which frame they are and which side is up, of every kind there is.

A picture has eight bars above, the bits of its number (white 1, black 0, the high bit on the left),
and below them a red half on the left and a blue one on the right. Run as a script, this prints the
table of docs/data.md.
"""

from __future__ import annotations

import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from videonet.data.decode import open_video
from videonet.data.video import boxes
from videonet.errors import DecodeError

FRAMES, RATE = 40, 25
WIDTH, HEIGHT = 64, 48
ENCODERS = {
    "h264": ("libx264", {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=0"}),
    "hevc": ("libx265", {"x265-params": "log-level=none:keyint=12:min-keyint=12:bframes=0"}),
    "vp8": ("libvpx", {"auto-alt-ref": "0"}),
    "vp9": ("libvpx-vp9", {"auto-alt-ref": "0", "lag-in-frames": "0", "cpu-used": "8"}),
    "av1": ("libsvtav1", {"preset": "10", "svtav1-params": "keyint=12:lp=1"}),
}
CONTAINERS = {
    "mp4": ("h264", "hevc", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg"),
    "mov": ("h264", "hevc", "mpeg4", "mjpeg", "prores_ks", "qtrle", "png"),
    "mkv": ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "ffv1"),
    "webm": ("vp8", "vp9", "av1"),
    "avi": ("h264", "mpeg4", "mjpeg", "msmpeg4", "huffyuv", "ffv1"),
    "ts": ("h264", "hevc", "mpeg2video"),
    "mpg": ("mpeg1video", "mpeg2video"),
    "vob": ("mpeg2video",),
    "flv": ("h264", "flv"),
    "wmv": ("wmv2", "msmpeg4"),
    "nut": ("h264", "mpeg4"),
    "gif": ("gif",),
    "h264": ("h264",),
    "m4v": ("mpeg4",),
}
PIXELS = {
    "mjpeg": "yuvj420p",
    "gif": "rgb8",
    "prores_ks": "yuv422p10le",
    "qtrle": "rgb24",
    "png": "rgb24",
    "huffyuv": "yuv422p",
}


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """uint8 (H, W, 3) of a frame."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for bit in range(8):
        left, right = bit * width // 8, (bit + 1) * width // 8
        image[: height // 2, left:right] = 255 * (number >> (7 - bit) & 1)
    image[height // 2 :, : width // 2] = (220, 20, 20)
    image[height // 2 :, width // 2 :] = (20, 20, 220)
    return image


def number_of(image: np.ndarray) -> int:
    """The number of an upright picture (H, W, 3); -1 for one that is not upright."""
    height, width = image.shape[:2]
    left = image[7 * height // 8, width // 4].astype(int)
    right = image[7 * height // 8, 3 * width // 4].astype(int)
    if left[0] - left[2] < 60 or right[2] - right[0] < 60:
        return -1
    bars = [image[height // 4, (2 * bit + 1) * width // 16].mean() > 128 for bit in range(8)]
    return sum(int(is_set) << (7 - bit) for bit, is_set in enumerate(bars))


@dataclass(frozen=True)
class Film:
    """How a video is written."""

    codec: str
    first: int = 0  # number of the first picture
    frames: int = FRAMES
    width: int = WIDTH
    height: int = HEIGHT
    options: tuple[tuple[str, str], ...] = ()
    b_frames: int = 0
    stamps: tuple[int, ...] = ()  # milliseconds; even without
    pixels: str = ""
    aspect: Fraction = Fraction(1)  # width of a pixel over its height


def packets(container: av.container.OutputContainer, film: Film) -> Iterator[av.Packet]:
    """Add a stream to a container and encode a film to it."""
    encoder, options = ENCODERS.get(film.codec, (film.codec, {}))
    stream = container.add_stream(encoder, rate=RATE, options={**options, **dict(film.options)})
    stream.width, stream.height = film.width, film.height
    stream.pix_fmt = film.pixels or PIXELS.get(film.codec, "yuv420p")
    stream.codec_context.gop_size = 12
    if film.aspect != 1:
        stream.codec_context.sample_aspect_ratio = film.aspect
    if film.codec not in ("h264", "hevc", "av1", "vp9", "vp8"):
        stream.bit_rate = 3_000_000
    if film.b_frames:
        stream.codec_context.max_b_frames = film.b_frames
    if film.stamps:
        stream.codec_context.time_base = Fraction(1, 1000)
    for k in range(film.frames):
        frame = av.VideoFrame.from_ndarray(
            picture(film.first + k, film.width, film.height), format="rgb24"
        )
        frame.pts = film.stamps[k] if film.stamps else k
        frame.time_base = Fraction(1, 1000 if film.stamps else RATE)
        yield from stream.encode(frame)
    yield from stream.encode()


def write(path: Path, film: Film, **options: str) -> Path:
    with av.open(str(path), "w", options=options) as container:
        for packet in packets(container, film):
            container.mux(packet)
    return path


def remux(
    source: Path,
    target: Path,
    change: Callable[[int, av.Packet], bool] = lambda k, packet: True,
    options: dict[str, str] | None = None,
) -> Path:
    """Copy the packets that ``change(number, packet)`` keeps, as it has changed them."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options or {}) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for k, packet in enumerate(p for p in old.demux(stream) if p.size):
            if change(k, packet):
                packet.stream = copy
                new.mux(packet)
    return target


B_FRAMES = {
    "h264": (("x264-params", "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0"),),
    "hevc": (("x265-params", "log-level=none:keyint=12:min-keyint=12:bframes=3:open-gop=0"),),
}
OPEN_GOP = {
    "h264": (("x264-params", "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:open-gop=1"),),
    "hevc": (("x265-params", "log-level=none:keyint=12:min-keyint=12:bframes=3:open-gop=1"),),
}
UNEVEN = tuple(int(40 * k + 13 * (k % 3)) for k in range(20)) + tuple(
    2000 + 90 * k for k in range(20)
)


def with_b_frames(folder: Path, codec: str, suffix: str, options=B_FRAMES) -> Path:
    film = Film(codec, options=options.get(codec, ()), b_frames=2)
    return write(folder / f"b.{suffix}", film)


def with_open_gops(folder: Path, codec: str, suffix: str) -> Path:
    return with_b_frames(folder, codec, suffix, OPEN_GOP)


def uneven(folder: Path, codec: str, suffix: str) -> Path:
    return write(folder / f"vfr.{suffix}", Film(codec, stamps=UNEVEN))


def with_edit_list(folder: Path, codec: str, suffix: str) -> Path:
    """The first frames are in the file, but before the time at which it begins."""
    whole = with_b_frames(folder, codec, suffix)

    def earlier(k: int, packet: av.Packet) -> bool:
        shift = round(5 / RATE / float(packet.time_base))
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        return True

    return remux(whole, folder / f"edit.{suffix}", earlier, {"avoid_negative_ts": "disabled"})


def cut_at_a_key(folder: Path, codec: str, suffix: str) -> Path:
    """Cut at a key frame of an open GOP, without encoding."""
    whole, keys = with_open_gops(folder, codec, suffix), []

    def later(k: int, packet: av.Packet) -> bool:
        keys.extend([k] if packet.is_keyframe else [])
        return len(keys) > 1

    return remux(whole, folder / f"cut.{suffix}", later)


def cut_between_keys(folder: Path, codec: str, suffix: str) -> Path:
    whole = with_b_frames(folder, codec, suffix)
    return remux(whole, folder / f"middle.{suffix}", lambda k, packet: k >= 5)


def decoding_stamps(folder: Path, codec: str, suffix: str) -> Path:
    """Packets carry the time of their decoding as that of showing, as from a raw stream."""
    whole = with_b_frames(folder, codec, suffix)

    def as_decoded(k: int, packet: av.Packet) -> bool:
        packet.pts = packet.dts
        return True

    return remux(whole, folder / f"raw.{suffix}", as_decoded)


def odd_size(folder: Path, codec: str, suffix: str) -> Path:
    pixels = "yuv444p" if codec in ("h264", "hevc") else ""
    return write(folder / f"odd.{suffix}", Film(codec, width=71, height=53, pixels=pixels))


def two_streams(folder: Path, codec: str, suffix: str) -> Path:
    """A small preview first, then the main one."""
    path = folder / f"two.{suffix}"
    films = (Film(codec, first=100, width=32, height=32), Film(codec))
    with av.open(str(path), "w") as container:
        # Both streams have to be there before the first packet is written.
        every = [list(packets(container, film)) for film in films]
        preview, main = container.streams.video
        if hasattr(main, "disposition"):
            main.disposition, preview.disposition = type(main.disposition)["default"], 0
        for packet in sorted(sum(every, []), key=lambda p: (p.dts or 0) * p.time_base):
            container.mux(packet)
    return path


def with_hidden_pictures(folder: Path, codec: str, suffix: str) -> Path:
    """Reference pictures in packets of their own that are never shown."""
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "arnr-maxframes": "5"}
    return write(folder / f"altref.{suffix}", Film(codec, options=tuple(options.items())))


MATRICES = {
    "hflip": (-1, 0, 0, 1),
    "vflip": (1, 0, 0, -1),
    "transpose": (0, 1, 1, 0),
    "antitranspose": (0, -1, -1, 0),
    "90": (0, -1, 1, 0),
    "180": (-1, 0, 0, -1),
    "270": (0, 1, -1, 0),
}


def set_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a display matrix into the header of the track of an mp4 file."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    values = np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30])
    data[place : place + 36] = values.astype(">i4").tobytes()
    path.write_bytes(data)
    return path


def add_clean_aperture(path: Path, left: int, top: int, width: int, height: int) -> Path:
    """Tell in an mp4 file of one track, its index at the end, which part of pictures is shown."""
    data = bytearray(path.read_bytes())
    values = (width, 1, height, 1, 2 * left + width - WIDTH, 2, 2 * top + height - HEIGHT, 2)
    box = struct.pack(">I4sIIIIiIiI", 40, b"clap", *values)
    place = data.index(b"stsd") + 12  # of its first entry
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        grow(data, data.index(name) - 4, 4, len(box))
    end = place + int.from_bytes(data[place : place + 4], "big")
    grow(data, place, 4, len(box))
    data[end:end] = box
    path.write_bytes(data)
    return path


def add_pixel_crop(path: Path, left: int, top: int, width: int, height: int) -> Path:
    """The same in a Matroska file as FFmpeg writes it, which leaves room before its tracks."""
    data = bytearray(path.read_bytes())
    sides = (left, WIDTH - left - width, top, HEIGHT - top - height)
    codes = (0x54CC, 0x54DD, 0x54BB, 0x54AA)  # left, right, top, bottom
    crop = b"".join(struct.pack(">HBB", c, 0x81, n) for c, n in zip(codes, sides, strict=True))
    with path.open("rb") as file:
        _, start, _ = next(e for e in boxes.elements(file) if e[0] == 0x18538067)
        level = {kind: (place, end) for kind, place, end in boxes.elements(file, start)}
        tracks = level[0x1654AE6B]
        track = next(e[1:] for e in boxes.elements(file, *tracks) if e[0] == 0xAE)
        video = next(e[1:] for e in boxes.elements(file, *track) if e[0] == 0xE0)
        room = level[0xEC][0]
    for (place, _), code in ((tracks, b"\x16\x54\xae\x6b"), (track, b"\xae"), (video, b"\xe0")):
        size = next(w for w in (8, 4, 3, 2, 1) if data[: place - w].endswith(code))
        grow(data, place - size, size, len(crop))
    data[video[1] : video[1]] = crop
    grow(data, room - 8, 8, -len(crop))
    del data[room : room + len(crop)]
    path.write_bytes(data)
    return path


def grow(data: bytearray, place: int, width: int, more: int) -> None:
    """Add to the big-endian number of ``width`` bytes at a place."""
    value = int.from_bytes(data[place : place + width], "big") + more
    data[place : place + width] = value.to_bytes(width, "big")


FEATURES: dict[str, tuple[Callable[[Path, str, str], Path], dict[str, tuple[str, ...]]]] = {
    "B-frames": (
        with_b_frames,
        {
            "mp4": ("h264", "hevc", "mpeg4", "mpeg2video"),
            "mkv": ("h264", "hevc", "mpeg4", "mpeg2video"),
            "avi": ("h264", "mpeg4"),
            "ts": ("h264", "hevc", "mpeg2video"),
            "mpg": ("mpeg2video",),
            "flv": ("h264",),
            "h264": ("h264",),
        },
    ),
    "open GOPs": (
        with_open_gops,
        {"mp4": ("h264", "hevc"), "mkv": ("h264", "hevc"), "ts": ("h264", "hevc")},
    ),
    "uneven times": (
        uneven,
        {"mp4": ("h264", "mpeg4", "vp9"), "mkv": ("h264", "hevc", "vp8"), "webm": ("vp9", "vp8")},
    ),
    "edit list": (with_edit_list, {"mp4": ("h264", "hevc", "mpeg4"), "mov": ("h264",)}),
    "cut at an open GOP": (
        cut_at_a_key,
        {"mkv": ("h264", "hevc"), "mp4": ("h264", "hevc"), "ts": ("h264", "hevc")},
    ),
    "cut between keys": (
        cut_between_keys,
        {"mkv": ("h264", "hevc", "mpeg4"), "mp4": ("h264", "mpeg4"), "ts": ("h264",)},
    ),
    "stamps of decoding": (decoding_stamps, {"mp4": ("h264", "hevc", "mpeg4")}),
    "odd size": (
        odd_size,
        {"mp4": ("h264", "hevc", "mpeg4"), "mkv": ("vp8", "vp9", "ffv1"), "avi": ("mjpeg",)},
    ),
    "two streams": (two_streams, {"mp4": ("h264",), "mkv": ("h264", "vp8")}),
    "hidden pictures": (with_hidden_pictures, {"webm": ("vp8", "vp9"), "mkv": ("vp8", "vp9")}),
}


def plain(folder: Path, codec: str, suffix: str) -> Path:
    return write(folder / f"plain.{suffix}", Film(codec))


def all_cells() -> Iterator[tuple[str, str, str, Callable[[Path, str, str], Path]]]:
    """(feature, container, codec, what makes the file) of the whole matrix."""
    for suffix, codecs in CONTAINERS.items():
        for codec in codecs:
            yield "plain", suffix, codec, plain
    for feature, (make, places) in FEATURES.items():
        for suffix, codecs in places.items():
            for codec in codecs:
                yield feature, suffix, codec, make


def reference(path: Path) -> list[int]:
    """What FFmpeg's decoder shows, from the start to the end, of the largest stream."""
    numbers = []
    with av.open(str(path)) as container:
        stream = max(container.streams.video, key=lambda s: s.codec_context.width)
        stream.thread_type = "NONE"
        for packet in container.demux(stream):
            try:
                numbers += [number_of(f.to_ndarray(format="rgb24")) for f in packet.decode()]
            except av.FFmpegError:
                continue
    return numbers


def numbers_at(path: Path, backend: str, *groups) -> list[list[int]]:
    """The numbers of frames, read a group after the other from one reader."""
    with open_video(path, backend) as reader:
        return [[number_of(f) for f in reader.frames_at(g).numpy()] for g in groups]


def wrong_frames(path: Path, backend: str, expected: list[int], seed: int = 0) -> str:
    """Read in every way and compare. Returns what is wrong, empty where nothing is.

    Raises DecodeError where the file is refused.
    """
    with open_video(path, backend) as reader:
        count = reader.info.frames
    if count != len(expected):
        return f"{count} frames of {len(expected)}"
    rng, every = np.random.default_rng(seed), np.arange(count)
    random = rng.integers(0, count, 12)
    ways = {
        "in sequence": [every],
        "in pieces": np.array_split(every, 5),
        "backwards": [[k] for k in every[::-3]],
        "at random": [[k] for k in random],
        "several at random": [np.sort(rng.choice(every, 4)), random, random[::-1]],
        "repeated": [[random[0]], [random[0]], [random[1], random[1], random[0]]],
    }
    for name, groups in ways.items():
        for wanted, found in zip(groups, numbers_at(path, backend, *groups), strict=True):
            if found != [expected[k] for k in wanted]:
                return f"{name}: {found} where {[expected[k] for k in wanted]} were expected"
    for k in random[:6]:
        if numbers_at(path, backend, [k]) != [[expected[k]]]:
            return f"alone: frame {k}"
    return ""


def judge(path: Path, backend: str) -> str:
    """``exact``, ``refused: why`` or ``WRONG: why``."""
    try:
        wrong = wrong_frames(path, backend, reference(path))
    except DecodeError as error:
        return f"refused: {str(error).removeprefix(f'cannot read {path}: ')}"
    return f"WRONG: {wrong}" if wrong else "exact"


def main(backend: str) -> None:
    rows: dict[tuple[str, str], list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for feature, suffix, codec, make in all_cells():
            place = Path(folder, f"{feature}-{suffix}-{codec}".replace(" ", "_"))
            place.mkdir()
            try:
                path = make(place, codec, suffix)
            except Exception as error:  # a codec that this build does not write
                sys.stderr.write(f"{feature} {suffix} {codec}: {error!r}\n")
                continue
            verdict = judge(path, backend)
            rows.setdefault((feature, verdict), []).append(f"{codec} {suffix}")
    for (feature, verdict), cells in rows.items():
        sys.stdout.write(f"| {feature} | {', '.join(cells)} | {verdict} |\n")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["auto"])
