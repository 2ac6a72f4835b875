"""HRNet in the names of the official repositories, of mmdetection and of timm."""

from videonet.checkpoint.dialect import Dialect
from videonet.checkpoint.names import Row

MARK = "stage2.0.branches.0.0.conv1.weight"
CLASSIFIER_NECK = ("incre_modules.{any}", "downsamp_modules.{any}", "final_layer.{any}")

DIALECTS = (
    Dialect(  # of boundary refiners, which see a coarse mask beside the picture
        "bpr", (MARK, "conv_mask.weight"), lacks=CLASSIFIER_NECK, absent=CLASSIFIER_NECK
    ),
    Dialect(  # of detectors and segmentations, whose backbone has no neck of a classifier
        "hrnet backbone", (MARK,), lacks=CLASSIFIER_NECK, absent=CLASSIFIER_NECK
    ),
    Dialect("hrnet", (MARK,), (Row("classifier.{leaf}", "head.projection.{leaf}"),)),
)
