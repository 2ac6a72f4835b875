"""Thousands of damaged pictures: no crash, no hang, no damage in silence that a library names."""

from __future__ import annotations

import io
import os
import random
import struct
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videonet.data.decode import open_video
from videonet.data.loading.workers import WorkerFailure, WorkerPool
from videonet.data.preparing.verify import Examiner
from videonet.errors import DecodeError

HERE = Path(__file__).parent
DAMAGED = 1200  # folders of each seed
LIMIT = 60.0  # seconds for one, on a slow and busy machine
WIDTH, HEIGHT = 72, 56


def scene(mode: str = "RGB") -> Image.Image:
    """A picture with edges, a ramp and noise, so that most bytes of a file matter."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    noise = rng.integers(0, 40, (HEIGHT, WIDTH, 3))
    ramp = np.stack([3 * columns, 4 * rows, 2 * (rows + columns)], axis=-1) % 215
    return Image.fromarray((ramp + noise).astype(np.uint8)).convert(mode)


def encoded(suffix: str, mode: str = "RGB", **options: object) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
    scene(mode).save(buffer, format=kind, **options)
    return suffix, buffer.getvalue()


SOURCES = {
    "jpeg": encoded("jpg", quality=85),
    "jpeg progressive": encoded("jpg", quality=80, progressive=True),
    "jpeg grey": encoded("jpg", "L", quality=85),
    "jpeg restarts": encoded("jpg", quality=85, restart_marker_rows=1),
    "jpeg cmyk": encoded("jpg", "CMYK", quality=85),
    "png": encoded("png"),
    "png palette": encoded("png", "P"),
    "png alpha": encoded("png", "RGBA"),
    "png 16 bits": encoded("png", "I;16"),
    "webp": encoded("webp", quality=85),
    "webp lossless": encoded("webp", lossless=True),
    "webp alpha": encoded("webp", "RGBA", quality=85, exif=b"Exif\0\0"),
    "bmp": encoded("bmp"),
    "bmp palette": encoded("bmp", "P"),
}
OTHERS = {"tiff": encoded("tif")[1], "gif": encoded("gif", "P")[1]}  # formats that are not read


def cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(1, len(data))]


def flip_bits(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.randrange(1, 6)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def zero_a_part(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    part = data[start : start + rng.randrange(4, 400)]
    data[start : start + len(part)] = bytes(len(part))
    return data


def leave_out(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    del data[start : start + rng.randrange(1, 200)]
    return data


def swap_blocks(data: bytearray, rng: random.Random) -> bytearray:
    size = rng.choice([16, 64, 256])
    first, second = (rng.randrange(max(1, len(data) - size)) for _ in range(2))
    block = data[first : first + size]
    data[first : first + size] = data[second : second + size]
    data[second : second + size] = block
    return data


def lie_about_size(data: bytearray, rng: random.Random) -> bytearray:
    """Another width or height in the header, with a checksum that fits."""
    value = rng.choice([0, 1, 55, 57, 73, 1000, 16_383, 65_535, 2**31 - 1, 2**32 - 1])
    second = rng.randrange(2)
    if data.startswith(b"\xff\xd8"):
        frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        struct.pack_into(">H", data, frame + 5 + 2 * second, value & 0xFFFF)
    elif data.startswith(b"\x89PNG"):
        struct.pack_into(">L", data, 16 + 4 * second, value)
        struct.pack_into(">L", data, 29, zlib.crc32(data[12:29]))
    elif data.startswith(b"BM"):
        struct.pack_into("<L", data, 18 + 4 * second, value)
    elif data[12:16] == b"VP8 ":
        struct.pack_into("<H", data, 26 + 2 * second, value & 0x3FFF)
    elif data[12:16] == b"VP8L":
        struct.pack_into("<L", data, 21, value)
    else:  # VP8X
        data[24 + 3 * second : 27 + 3 * second] = (value & 0xFFFFFF).to_bytes(3, "little")
    return data


DAMAGE: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    *(cut, flip_bits, zero_a_part, leave_out, swap_blocks, lie_about_size),
)


def said_aloud(path: str) -> str:
    """What Pillow, libjpeg, libpng and libwebp report of a file, errors and warnings alike."""
    from torchvision.io import decode_image, read_file

    try:
        with warnings.catch_warnings(record=True) as warned, Image.open(path) as picture:
            warnings.simplefilter("always")
            picture.load()
        if warned:
            return f"Pillow: {warned[0].message}"
    except Exception as error:
        return f"Pillow: {error}"
    if path.endswith(".bmp"):
        return ""
    with tempfile.TemporaryFile() as stderr:  # the libraries write their warnings there
        kept = os.dup(2)
        os.dup2(stderr.fileno(), 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                decode_image(read_file(path), apply_exif_orientation=False)
        except RuntimeError as error:
            if "not support" not in str(error) and "CMYK" not in str(error):
                return f"torchvision: {str(error).splitlines()[0]}"
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        stderr.seek(0)
        text = stderr.read().decode(errors="replace").strip()
    return text.splitlines()[0] if text else ""


class ReadPictures:
    """What a worker does: the frames of a folder, what verify says, and what libraries say."""

    def __call__(self, folder: str) -> tuple[str, str, bytes]:
        """(verify's reason, a library's report where verify has none, the second picture)."""
        reason = Examiner()(folder)["reason"]
        damaged = max(os.scandir(folder), key=lambda entry: entry.name).path
        try:
            with open_video(folder) as reader:
                picture = reader.frames_at([1])[0].numpy().tobytes()
        except DecodeError as error:
            assert reason, f"verify accepts {folder}, but reading says {error}"
            return reason, "", b""
        return reason, "" if reason else said_aloud(damaged), picture


def read_all(folders: list[str]) -> list:
    """What :class:`ReadPictures` or a lost process says of each folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        import test_damaged_pictures

        pool = WorkerPool(test_damaged_pictures.ReadPictures(), 2, LIMIT)
    for k, folder in enumerate(folders):
        pool.submit(k, folder)
    found = [None] * len(folders)
    while (done := pool.result()) is not None:
        found[done[0]] = done[1]
    pool.close()
    return found


def write_folder(folder: Path, suffix: str, whole: bytes, second: bytes) -> str:
    folder.mkdir()
    (folder / f"000001.{suffix}").write_bytes(whole)
    (folder / f"000002.{suffix}").write_bytes(second)
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_damaged_folders_of_pictures(tmp_path, record_property, seed):
    rng, names = random.Random(seed), [*SOURCES]
    folders = [
        write_folder(tmp_path / f"whole {k}", *SOURCES[name], SOURCES[name][1])
        for k, name in enumerate(names)
    ]
    made = []
    for k in range(DAMAGED):
        name, damage = names[k % len(names)], rng.choice(DAMAGE)
        suffix, whole = SOURCES[name]
        second = bytes(damage(bytearray(whole), rng))
        made.append((name, damage.__name__, second == whole))
        folders.append(write_folder(tmp_path / str(k), suffix, whole, second))
    found = read_all(folders)
    originals = dict(zip(names, found, strict=False))
    assert {name: (o[0], o[1]) for name, o in originals.items()} == dict.fromkeys(names, ("", ""))
    counts, unheard = Counter(), []
    for (name, damage, same), outcome in zip(made, found[len(names) :], strict=True):
        if isinstance(outcome, WorkerFailure):
            counts["lost"] += 1
            continue
        reason, heard, picture = outcome
        if reason:
            counts["refused" if not picture else "named by verify"] += 1
            assert "\n" not in reason
        elif heard:
            counts["unheard"] += 1
            unheard.append((name, damage, heard))
        else:
            right = same or picture == originals[name][2]
            counts["right" if right else f"wrong, and nothing can know: {name.split()[0]}"] += 1
    record_property("counts", dict(counts))
    sys.stderr.write(f"{dict(counts)}\n{Counter(unheard).most_common(20)}\n")
    assert sum(counts.values()) == DAMAGED
    assert counts["lost"] == counts["unheard"] == 0


def test_formats_that_are_not_read_are_refused_under_any_name(tmp_path):
    for k, (kind, data) in enumerate(OTHERS.items()):
        for suffix in ("png", "jpg"):
            folder = write_folder(tmp_path / f"{k}{suffix}", suffix, *[data] * 2)
            with pytest.raises(DecodeError, match="cannot identify the picture"):
                open_video(folder)
            assert "cannot identify" in Examiner()(folder)["reason"], kind
        folder = write_folder(tmp_path / kind, kind[:3], *[data] * 2)
        with pytest.raises(DecodeError, match="holds no pictures"):
            open_video(folder)
