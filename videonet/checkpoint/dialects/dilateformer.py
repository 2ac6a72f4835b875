"""DilateFormer in the names of the official repository."""

from __future__ import annotations

from videonet.checkpoint.dialect import Dialect
from videonet.checkpoint.names import Row

DIALECTS = (
    Dialect(
        "dilateformer",
        ("stages.{n}.blocks.{m}.attn.qkv.weight", "stages.{n}.downsample.proj.0.weight"),
        (Row("head.{leaf}", "head.projection.{leaf}"),),
    ),
)
