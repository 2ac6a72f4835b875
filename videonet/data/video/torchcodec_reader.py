"""Reading with torchcodec, for the files that it is known to read exactly."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from videonet.data.video.access import INDEXED, decode_error
from videonet.data.video.decord_reader import check_times, import_backend, plain
from videonet.data.video.pyav_reader import PyAVReader
from videonet.data.video.reader import VideoReader
from videonet.errors import ConfigError, DecodeError


class TorchcodecReader(VideoReader):
    """Reads with torchcodec (optional, needs FFmpeg's libraries on the system).

    ``reference`` says what the file contains. Raises DecodeError where torchcodec says something
    else.
    """

    device = "cpu"

    def __init__(
        self, reference: PyAVReader, short_side: int | None = None, allow_larger: bool = False
    ):
        path, info = reference.path, reference.info
        super().__init__(path, info, reference.times, short_side, allow_larger)
        decoders = import_backend("torchcodec.decoders")
        weakness = self._weakness(reference)
        if weakness:
            raise DecodeError(f"cannot read {path}: torchcodec does not read {weakness} exactly")
        try:
            self._decoder = decoders.VideoDecoder(
                plain(reference.source),
                stream_index=reference.stream_index,
                dimension_order="NCHW",
                num_ffmpeg_threads=1,
                seek_mode="exact",
                device=self.device,
            )
        except (RuntimeError, ValueError, OSError) as error:
            if self.device == "cuda" and "nsupported device" in str(error):
                raise ConfigError(
                    "the video backend cuda cannot be used: this torchcodec is built without CUDA; "
                    "install the one of torch's index for its CUDA version"
                ) from None
            if "libtorchcodec" in str(error):
                raise ConfigError(
                    "the video backend torchcodec cannot be used: it finds no FFmpeg libraries "
                    "(on Debian: apt install ffmpeg), or does not fit the version of torch"
                ) from None
            raise decode_error(path, error) from None
        if len(self._decoder) != info.frames:
            raise DecodeError(
                f"cannot read {path}: torchcodec counts {len(self._decoder)} frames, "
                f"the file holds {info.frames}"
            )

    def _read(self, wanted: np.ndarray) -> Tensor:
        from torchvision.transforms.v2 import functional as F

        start = self._decoder.metadata.begin_stream_seconds or 0.0
        try:
            found = self._decoder.get_frames_at(indices=wanted.tolist())
        except (RuntimeError, ValueError, IndexError) as error:
            raise decode_error(self.path, error) from None
        check_times(self.path, "torchcodec", found.pts_seconds.numpy() - start, self.times[wanted])
        frames = found.data  # (T, 3, H, W)
        if tuple(frames.shape[2:]) != self.size[::-1]:
            frames = F.resize(frames, self.size[::-1], antialias=True)
        return frames.permute(0, 2, 3, 1).cpu()

    def close(self) -> None:
        self._decoder = None

    def _weakness(self, reference: PyAVReader) -> str:
        """What of a file torchcodec reads otherwise, else nothing."""
        info = reference.info
        if info.container not in INDEXED:  # AVI, MPEG program streams
            return info.container
        if info.mirrored:
            return "mirrored pictures"
        if reference.crop is not None:
            return "cropped pictures"
        return "files whose packets do not tell their frames" if info.counted else ""


class CudaReader(TorchcodecReader):
    """The same with the decoder of an NVIDIA GPU (NVDEC) and its own conversion of colours.

    Every process that reads has a CUDA context, some hundred MB of the GPU's memory.
    """

    device = "cuda"

    def __init__(
        self, reference: PyAVReader, short_side: int | None = None, allow_larger: bool = False
    ):
        if not torch.cuda.is_available():
            raise ConfigError(
                "the video backend cuda decodes on an NVIDIA GPU, and torch finds none here: set "
                "DATA.DECODING_BACKEND to torchcodec or auto"
            )
        super().__init__(reference, short_side, allow_larger)

    def _weakness(self, reference: PyAVReader) -> str:
        turned = "turned pictures" if reference.info.rotation else ""
        return turned or super()._weakness(reference)
