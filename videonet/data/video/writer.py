"""Writing video files: H.264 in MP4, whole under their name or not there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
import numpy as np

from videonet.files import replacing

CLOCK = Fraction(1, 90_000)  # seconds; the unit of time stamps, which frames at 24, 25 and 30/s fit


class VideoWriter:
    """Encodes RGB pictures. Odd sizes lose a row or a column, as 4:2:0 needs even ones.

    Args:
        target: the path of the file, or an open binary file that can seek.
        fps: nominal frames per second.
        crf: quality of x264, lower is better.
        preset: of x264, None for its own.
        gop: frames from one key frame to the next, None for x264's choice.
        threads: of the encoder, 0 for as many as it likes. With one the bytes are the same on
            every run.
        clock: seconds, the unit of the time stamps; None for pictures that follow at `fps`.
        bitexact: leave out what tells the version of the program.
    """

    def __init__(
        self,
        target: Path | IO[bytes],
        fps: float,
        *,
        crf: int = 20,
        preset: str | None = None,
        gop: int | None = None,
        threads: int = 0,
        clock: Fraction | None = CLOCK,
        bitexact: bool = False,
    ):
        flags = {"fflags": "+bitexact"} if bitexact else {}
        file = f"file:{target}" if isinstance(target, Path) else target
        self._container = av.open(file, "w", format="mp4", options=flags)
        options = {"crf": str(crf)} | ({} if preset is None else {"preset": preset})
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate, options=options)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.thread_count = threads
        if gop is not None:
            self._stream.codec_context.gop_size = gop
        if clock is not None:
            self._stream.codec_context.time_base = clock
        self._clock, self._size = clock, (0, 0)

    def add(self, picture: np.ndarray, time: float | None = None) -> None:
        """Add the next picture.

        Args:
            picture: RGB uint8 (H, W, 3), of the same size as the first one.
            time: seconds from the start at which it is shown, given where there is a clock.
        """
        if self._size == (0, 0):
            self._size = tuple(max(2, n // 2 * 2) for n in picture.shape[:2])
            self._stream.height, self._stream.width = self._size
        height, width = self._size
        picture = np.ascontiguousarray(picture[:height, :width])
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        if self._clock is not None and time is not None:
            frame.pts, frame.time_base = round(time / self._clock), self._clock
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.closing(self._container):
            if kind is None:
                self._container.mux(self._stream.encode())


@contextlib.contextmanager
def new_video(path: Path, fps: float) -> Iterator[VideoWriter]:
    """A writer whose file appears under its name when it is whole.

    Raises:
        WriteError: it cannot be written.
    """
    with replacing(path) as temporary, VideoWriter(temporary, fps) as writer:
        yield writer
