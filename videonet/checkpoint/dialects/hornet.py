"""HorNet in the names of the official repository."""

from __future__ import annotations

from videonet.checkpoint.dialect import Dialect
from videonet.checkpoint.names import Row

DIALECTS = (
    Dialect(
        "hornet",
        ("stages.{n}.{m}.gnconv.proj_in.weight",),
        (
            Row("norm{n}.{leaf}", "output_norms.{n}.{leaf}"),  # of detectors and segmentations
            Row("head.{leaf}", "head.projection.{leaf}"),
        ),
    ),
)
