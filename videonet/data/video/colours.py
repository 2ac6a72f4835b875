"""From the colours of a decoded frame to RGB, whichever version of PyAV converts.

Matrix (BT.601, BT.709, BT.2020) and range (limited, full) are those that the frame is marked with;
without a mark they are BT.601 and limited, FFmpeg's defaults. Transfer curves and primaries stay
(HDR is not mapped to SDR), and alpha is dropped.
"""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from videonet.data.video.cropping import Crop

# From av 17 on the marks of the frame are followed; before, they have to be given as arguments.
_FOLLOWS_MARKS = int(av.__version__.split(".")[0]) >= 17
_BT709, _BT601, _FULL, _LIMITED = 1, 5, 2, 1
# The matrices by FFmpeg's number of a colour space; av before 17 has none for BT.2020 (9).
_MATRICES = {1: _BT709, 4: 4, 7: 7, 9: _BT709}


class RGBConverter:
    """Makes RGB pictures of frames, resized on the way; one for frames of one kind is fast."""

    def __init__(self):
        self._scaler = VideoReformatter()

    def __call__(self, frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
        """uint8 ``(height, width, 3)``, as the frame was coded: neither turned nor mirrored."""
        marks = {} if _FOLLOWS_MARKS or not frame.format.name.startswith("yuv") else _marks(frame)
        scaled = self._scaler.reformat(
            frame, width, height, format="rgb24", interpolation="BILINEAR", **_THREADS, **marks
        )
        return scaled.to_ndarray()

    def cropped(self, frame: av.VideoFrame, crop: Crop, width: int, height: int) -> np.ndarray:
        """The same of a part of the frame."""
        part = crop.cut(self(frame, frame.width, frame.height))
        if part.shape[:2] == (height, width):
            return part
        return self(av.VideoFrame.from_ndarray(np.ascontiguousarray(part)), width, height)


def _marks(frame: av.VideoFrame) -> dict[str, int]:
    matrix = _MATRICES.get(int(frame.colorspace), _BT601)
    return {
        "src_colorspace": matrix,
        # Where source and target are the same nothing is set: RGB has no matrix to be wrong.
        "dst_colorspace": _BT709 if matrix == _BT601 else _BT601,
        "src_color_range": int(frame.color_range) or _LIMITED,
        "dst_color_range": _FULL,
    }


_THREADS = {"threads": 1} if _FOLLOWS_MARKS else {}  # the workers are the parallelism


_MATRIX_NAMES = {0: "RGB", 1: "BT.709", 4: "FCC", 5: "BT.601", 6: "BT.601", 7: "SMPTE 240M"}
_MATRIX_NAMES |= {9: "BT.2020", 10: "BT.2020 with constant luminance"}
_TRANSFER_NAMES = {16: "PQ (HDR, shown as it is)", 18: "HLG (HDR, shown as it is)"}


def describe_colours(context: av.VideoCodecContext) -> str:
    """Matrix, range and HDR transfer that a decoder's stream is marked with."""
    matrix = _MATRIX_NAMES.get(int(context.colorspace), "no matrix given, BT.601 assumed")
    full = int(context.color_range) == _FULL or str(context.pix_fmt).startswith("yuvj")
    words = [matrix, "full range" if full else "limited range"]
    words.append(_TRANSFER_NAMES.get(int(context.color_trc), ""))
    return ", ".join(filter(None, words))
