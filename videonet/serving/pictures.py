"""Pictures within JSON."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


def data_address(content: bytes, kind: str) -> str:
    """A picture as a data: address.

    Args:
        content: of its file.
        kind: "jpeg" or "png".
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def jpeg_address(picture: np.ndarray, smallest: int = 224) -> str:
    """An RGB picture uint8 (H, W, 3) as a JPEG, enlarged until its short side is `smallest`."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    factor = smallest / min(image.size)
    if factor > 1:
        size = (round(image.width * factor), round(image.height * factor))
        image = image.resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=85)
    return data_address(file.getvalue(), "jpeg")
