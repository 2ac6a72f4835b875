"""What is in a media file, what is read of it and why, for a person who wonders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from matplotlib.figure import Figure

from videonet.data.decode import FRAMES_FPS, open_video
from videonet.data.preparing.verify import Examiner
from videonet.data.video.access import is_attached
from videonet.data.video.info import VideoInfo
from videonet.data.video.pyav_reader import PyAVReader
from videonet.data.video.reader import VideoReader
from videonet.errors import DecodeError
from videonet.figures import save_figure
from videonet.terminal import printable

SHOWN = 20  # frames on a contact sheet
_COLUMNS = 5
_SIDE = 180  # pixels


@dataclass
class Inspection:
    """What was found out about a file.

    Attributes:
        path: the file, or a folder of pictures.
        facts: (what, how much) of what is read, and of what it was found in.
        warnings: what somebody who trains on the file should know.
        reason: why it cannot be read to its end; empty where it can.
        times: seconds of the frames, (frames,).
    """

    path: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reason: str = ""
    times: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def text(self) -> str:
        """The findings as lines for a terminal."""
        lines = [self.path, *(f"  {name:<12}{value}" for name, value in self.facts)]
        lines += [f"  warning     {warning}" for warning in self.warnings]
        if self.reason:
            lines.append(f"  unreadable  {self.reason}")
        return "\n".join(printable(line) for line in lines)


def inspect(path: str | os.PathLike[str], frames_fps: float = FRAMES_FPS) -> Inspection:
    """Read a video file, a picture or a folder of pictures to its end and say what is in it.

    In this process, which a decoder may crash. What cannot be read is told, not raised.
    """
    path = os.fspath(path)
    found = Inspection(path)
    found.reason = Examiner(frames_fps)(path)["reason"]
    try:
        with open_video(path, "pyav", frames_fps=frames_fps) as reader:
            found.times = reader.times
            if isinstance(reader, PyAVReader):
                found.facts += [("stream", line) for line in _streams(reader)]
            found.facts += _facts(reader)
            found.warnings += _warnings(reader)
    except DecodeError as error:
        found.reason = found.reason or str(error).removeprefix(f"cannot read {path}: ")
    return found


def _streams(reader: PyAVReader) -> Iterator[str]:
    """Every stream of a file, and which one is read."""
    for stream in reader.all_streams:
        context = stream.codec_context
        words = [f"{stream.index}", stream.type, context.name if context else "unknown codec"]
        if isinstance(stream, av.VideoStream) and context:
            words.append(f"{stream.codec_context.width} x {stream.codec_context.height}")
            words.append("attached picture" if is_attached(stream) else "")
        words.append("<- read" if stream.index == reader.stream_index else "")
        yield " ".join(filter(None, words))


def _facts(reader: VideoReader) -> list[tuple[str, str]]:
    info = reader.info
    rows = [
        ("container", info.container),
        ("video", f"{info.codec}, {info.pixels}"),
        ("frames", f"{info.frames}, {_how_found(reader)}"),
        ("times", _clock(info, reader.times)),
        ("size", f"{info.width} x {info.height}, upright, with square pixels"),
    ]
    turns = [f"turned by {info.rotation} degrees counter-clockwise"] if info.rotation else []
    turns += ["mirrored"] if info.mirrored else []
    aspect = getattr(reader, "aspect", 1.0)
    turns += [f"stretched by {aspect:.3f}, the shape of its pixels"] if aspect != 1 else []
    if (crop := getattr(reader, "crop", None)) is not None:
        turns.append(f"cropped to {crop.width} x {crop.height} at ({crop.left}, {crop.top})")
    rows.append(("orientation", ", ".join(turns) or "as it was coded"))
    if isinstance(reader, PyAVReader):
        rows.append(("colours", reader.colours))
        keys = len(reader.table.keys)
        way = f"to {keys} key frames" if keys > 1 else "from the start only"
        rows.append(("reading", way + (", open groups of pictures" if info.open_gop else "")))
    return rows


def _how_found(reader: VideoReader) -> str:
    if not isinstance(reader, PyAVReader):
        return "one a file"
    return "counted by decoding" if reader.info.counted else "as its packets say"


def _clock(info: VideoInfo, times: np.ndarray) -> str:
    text = f"{info.duration:.3f} s, {info.fps:.3f} frames per second"
    if info.even or len(times) < 2:
        return f"{text}, even"
    steps = np.diff(times)
    return (
        f"{text} on average, uneven: {steps.min():.3f} to {steps.max():.3f} s between frames, "
        f"mostly {np.median(steps):.3f}"
    )


def _warnings(reader: VideoReader) -> list[str]:
    info, warnings = reader.info, []
    if info.counted:
        warnings.append(
            "its frames have to be counted by decoding, each time it is opened; `verify` keeps "
            "what it found"
        )
    if isinstance(reader, PyAVReader):
        if len(reader.table.keys) == 1 and info.frames > 300:
            warnings.append("no frame can be sought: clips are read slowly; `prepare` helps")
        if reader.streams > 1:
            warnings.append(f"it holds {reader.streams} video streams, of which one is read")
        header = reader.header_rate
        if header and abs(header / info.fps - 1) > 0.01:
            warnings.append(f"its header says {header:.3f} frames per second, its times not")
    if not info.even and len(reader.times) > 1:
        longest = float(np.diff(reader.times).max())
        if longest > 1:
            warnings.append(f"a frame stands still for {longest:.1f} s")
    return warnings


def write_frame_sheet(found: Inspection, path: Path, frames_fps: float = FRAMES_FPS) -> int:
    """Draw frames that are evenly spread over the file, with number and time, to a picture file.

    Returns how many could be read; of those after a damaged one there is none.
    """
    pictures: list[tuple[int, float, np.ndarray]] = []
    error = ""
    with open_video(found.path, "pyav", _SIDE, frames_fps=frames_fps) as reader:
        count = min(SHOWN, reader.info.frames)
        for index in np.linspace(0, reader.info.frames - 1, count).round().astype(int):
            try:
                picture = reader.frames_at([index])[0].numpy()
            except DecodeError as stop:
                error = str(stop)
                break
            pictures.append((int(index), float(reader.times[index]), picture))
    rows = max(1, -(-len(pictures) // _COLUMNS))
    figure = Figure(figsize=(2.6 * _COLUMNS, 2.2 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False)
    title = f"{os.path.basename(found.path)}  {error or found.reason}"
    figure.suptitle(title, fontsize=9)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (index, time, picture) in zip(axes.flat, pictures, strict=False):
        axis.imshow(picture)
        axis.set_title(f"{index}   {time:.3f} s", fontsize=8)
    save_figure(figure, path, dpi=100)
    return len(pictures)
