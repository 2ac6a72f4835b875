"""Decoded frames that are kept on disk, so that what every epoch reads is decoded once.

Decoding a short video of a phone takes longer than training a small model on its clip. The frames
are kept at the size at which clips are cropped from them, and read where they lie: of a clip's
frames alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from videonet.data.video.info import VideoInfo
from videonet.data.video.reader import VideoReader
from videonet.errors import DecodeError
from videonet.files import replacing

FORMAT = 1
LONGEST = 2000  # frames; of longer videos a clip is a small part
LEFT = 1e9  # bytes of the disk that are not taken
RECOUNT = 32  # files after which a process looks at what others have written
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class FrameStore:
    """The frames of videos in a folder that all processes share.

    Attributes:
        folder: it may be there already; what it holds of other videos is left alone.
        limit: bytes that it may take, by a few videos more where several processes write.
    """

    folder: str
    limit: float
    _use: _Use = field(default_factory=lambda: _Use(), compare=False, repr=False)

    def open(
        self, path: str, how: tuple[object, ...], opened: Callable[[], VideoReader]
    ) -> VideoReader:
        """The frames that are kept of a video; else it is opened, and kept if there is room.

        Args:
            path: of a file; anything else is opened as ever.
            how: what its frames depend on besides: size and decoder.
            opened: opens the video.

        Raises:
            DecodeError: the video cannot be opened, or the file of its frames is damaged.
            WriteError: the folder cannot be written.
        """
        if not os.path.isfile(path):
            return opened()
        place = self._place(path, how)
        if not place.is_file():
            reader = opened()
            if not self._has_room(reader):
                return reader
            try:
                frames = reader.frames_at(range(reader.info.frames))
            except DecodeError:  # some other part of it may be whole
                return reader
            with reader:
                self._keep(place, reader, frames)
        return _stored(path, place)

    def _place(self, path: str, how: tuple[object, ...]) -> Path:
        file = os.stat(path)
        about = [FORMAT, os.path.abspath(path), file.st_size, file.st_mtime_ns, *map(str, how)]
        digest = hashlib.blake2b(json.dumps(about).encode(), digest_size=16).hexdigest()
        return Path(self.folder) / f"{digest}{SUFFIX}"

    def _has_room(self, reader: VideoReader) -> bool:
        needed = decoded_bytes(reader.info.frames, *reader.size)
        if needed == 0 or self._use.of(self.folder) + needed > self.limit:
            return False
        place = Path(self.folder)
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free - needed >= LEFT

    def _keep(self, place: Path, reader: VideoReader, frames: Tensor) -> None:
        tensors = {"frames": frames.contiguous(), "times": torch.from_numpy(reader.times.copy())}
        with replacing(place) as temporary:
            save_file(tensors, temporary, metadata={"info": json.dumps(asdict(reader.info))})
        self._use.add(place.stat().st_size)


def decoded_bytes(frames: int, width: int, height: int) -> int:
    """What the frames of a video take, 0 for one that is too long to be kept."""
    return 3 * width * height * frames if frames <= LONGEST else 0


@dataclass
class _Use:
    """Bytes of a folder, counted again after every few files that this process has written."""

    bytes: float = 0.0
    left: int = 0

    def of(self, folder: str) -> float:
        if not self.left:
            files = os.scandir(folder) if os.path.isdir(folder) else ()
            self.bytes = sum(f.stat().st_size for f in files if f.name.endswith(SUFFIX))
            self.left = RECOUNT
        return self.bytes

    def add(self, size: int) -> None:
        self.bytes += size
        self.left -= 1


class StoredVideo(VideoReader):
    """A video whose frames are decoded already."""

    def __init__(self, path: str, info: VideoInfo, times: np.ndarray, frames: Tensor):
        super().__init__(path, info, times, None)
        self.size = (frames.shape[2], frames.shape[1])
        self._frames = frames  # (frames, H, W, 3) uint8, in the file

    def _read(self, wanted: np.ndarray) -> Tensor:
        return self._frames[torch.from_numpy(wanted)]

    def close(self) -> None:
        del self._frames


def _stored(path: str, place: Path) -> StoredVideo:
    try:
        with safe_open(place, framework="pt") as file:
            info = VideoInfo(**json.loads(file.metadata()["info"]))
            return StoredVideo(
                path, info, file.get_tensor("times").numpy(), file.get_tensor("frames")
            )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DecodeError(
            f"cannot read {path}: the file of its decoded frames, {place}, is damaged ({error}); "
            "delete it"
        ) from error
