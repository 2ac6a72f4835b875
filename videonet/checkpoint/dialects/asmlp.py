"""AS-MLP in the names of the official repository."""

from videonet.checkpoint.dialect import Dialect
from videonet.checkpoint.names import Row

DIALECTS = (
    Dialect(
        "asmlp",
        ("layers.0.blocks.0.axial_shift.conv1.weight",),
        (
            Row("norm{n}.{leaf}", "output_norms.{n}.{leaf}"),  # of detectors and segmentations
            Row("head.{leaf}", "head.projection.{leaf}"),
        ),
    ),
)
