"""HRNet in the names of the official repositories and of timm."""

from videonet.checkpoint.dialect import Dialect
from videonet.checkpoint.names import Row

DIALECTS = (
    Dialect(
        "hrnet",
        ("stage2.0.branches.0.0.conv1.weight",),
        (Row("classifier.{leaf}", "head.projection.{leaf}"),),
    ),
)
