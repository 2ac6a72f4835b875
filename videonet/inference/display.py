"""How a prediction looks where it is printed, and in a notebook."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

SHOWN_FRAMES = 6
HEIGHT = 96  # pixels of a shown frame
WIDTH = 120  # pixels of the bar of a score of 1


def as_text(top: Sequence[tuple[str, float]]) -> str:
    """A line for each name, with its score before it."""
    return "\n".join(f"{score:7.4f}  {name}" for name, score in top)


def as_html(top: Sequence[tuple[str, float]], clip: Tensor) -> str:
    """A table of names and scores above some frames.

    Args:
        top: (name, score), best first.
        clip: uint8 (3, T, H, W).
    """
    rows = "".join(
        f"<tr><td style='text-align:left'>{html.escape(name)}</td><td>{score:.4f}</td>"
        f"<td style='text-align:left'><div style='background:#3b82c4;height:0.8em;width:"
        f"{round(WIDTH * min(max(score, 0), 1))}px'></div></td></tr>"
        for name, score in top
    )
    picture = base64.b64encode(film_strip(clip)).decode("ascii")
    return (
        f"<table>{rows}</table><img alt='frames of the clip' src='data:image/png;base64,{picture}'>"
    )


def film_strip(clip: Tensor, *, kind: str = "PNG", height: int = HEIGHT) -> bytes:
    """A picture of frames that are spread over the clip, side by side.

    Args:
        clip: uint8 (3, T, H, W).
        kind: of the file, "PNG" or "JPEG".
        height: in pixels.
    """
    frames = clip.shape[1]
    shown = np.linspace(0, frames - 1, min(frames, SHOWN_FRAMES)).round().astype(int)
    pictures = clip.permute(1, 2, 3, 0).numpy()[shown]  # (n, H, W, 3)
    strip = Image.fromarray(np.ascontiguousarray(np.concatenate(list(pictures), axis=1)))
    strip = strip.resize((max(1, round(strip.width * height / strip.height)), height))
    file = io.BytesIO()
    strip.save(file, format=kind)
    return file.getvalue()
