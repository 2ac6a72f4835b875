"""HRNet in the names of the official repositories, that of segmentation among them, and timm."""

from videonet.checkpoint.dialect import Dialect
from videonet.checkpoint.names import Row

DIALECTS = (
    Dialect(
        "hrnet",
        ("stage2.0.branches.0.0.conv1.weight",),
        (
            Row("classifier.{leaf}", "head.projection.{leaf}"),
            Row("last_layer.0.{leaf}", "decode_head.convs.0.conv.{leaf}"),
            Row("last_layer.1.{tensor}", "decode_head.convs.0.norm.{tensor}"),
            Row("last_layer.3.{leaf}", "decode_head.conv_seg.{leaf}"),
        ),
    ),
)
