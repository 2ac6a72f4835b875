"""CycleMLP in the names of the official repository."""

from videonet.checkpoint.dialect import Dialect
from videonet.checkpoint.names import Row

DIALECTS = (
    Dialect(
        "cyclemlp",
        ("network.0.0.attn.sfc_h.weight",),
        (Row("head.{leaf}", "head.projection.{leaf}"),),
        constants=("{any}.offset",),  # of the deformable convolution that stands for the shift
    ),
)
