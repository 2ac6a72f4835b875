"""A whole detector from a backbone, with the sizes that the projects publish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from videonet.errors import ConfigError
from videonet.heads.detection.anchors import Anchors
from videonet.heads.detection.conventions import Conventions, find_conventions
from videonet.heads.detection.detector import Detector
from videonet.heads.detection.roi_heads import RoIHeads
from videonet.heads.detection.rpn import RPN
from videonet.heads.fpn import FPN

RATIOS = (0.5, 1.0, 2.0)
ANCHOR_SCALE = 8  # sides of anchors in units of the stride, 32 pixels at stride 4
# The cascades of detectron2 and mmdetection: four convolutions with a norm, one linear layer.
CASCADE_HEADS: dict[str, Any] = {"box_convs": (256,) * 4, "box_fcs": (1024,), "box_norm": "batch"}


def build_detector(
    backbone: Any,
    num_classes: int,
    rules: str | Conventions = "detectron2",
    *,
    neck: nn.Module | None = None,
    indices: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    pooled: int | None = None,
    anchor_scale: float = ANCHOR_SCALE,
    cascade: bool = False,
    class_agnostic: bool | None = None,
    masks: bool = True,
    sample_per: str = "frame",
    rpn: dict[str, Any] | None = None,
    heads: dict[str, Any] | None = None,
    **options: Any,
) -> Detector:
    """Put Faster, Mask or Cascade R-CNN on a backbone.

    Args:
        backbone: a model of ``videonet.create_model``.
        num_classes: without the background.
        rules: see :class:`Conventions`, or the name of a preset.
        neck: makes the pyramid; None for an FPN of 256 channels with one level more than there
            are stage maps. Any other has ``out_channels``.
        indices: of the stage maps that are used; None for all.
        strides: pixels from cell to cell of every level of the pyramid; None for those of the
            stage maps, and twice the one before for the level behind them.
        pooled: number of the levels that regions are pooled from, the first ones; None for as
            many as there are stage maps.
        anchor_scale: sides of the anchors in units of the stride.
        cascade: three stages with four convolutions each, in place of one.
        class_agnostic: one box for all classes; None for cascades of detectron2 alone.
        masks: False for Faster R-CNN, or a cascade without masks.
        sample_per: "frame", or "clip" for as many anchors and regions in all frames together.
        rpn: further arguments of :class:`RPN`.
        heads: further arguments of :class:`RoIHeads`.
        **options: further arguments of :class:`Detector`.

    Raises:
        ConfigError: arguments that do not go together.
    """
    rules = find_conventions(rules)
    used = range(len(backbone.feature_info)) if indices is None else indices
    infos = [backbone.feature_info[number] for number in used]
    if strides is None:
        strides = [info.strides[1] for info in infos]
        strides.append(2 * strides[-1])
    if neck is None:
        neck = FPN([info.channels for info in infos], num_outs=len(strides))
    channels = getattr(neck, "out_channels", None)
    if not isinstance(channels, int):
        raise ConfigError(f"the neck is a {type(neck).__name__}, expected one with out_channels")
    anchors = Anchors([(anchor_scale * stride,) for stride in strides], RATIOS, strides, rules)
    convs = 2 if cascade and rules.name == "detectron2" else 1
    agnostic = cascade and rules.name == "detectron2" if class_agnostic is None else class_agnostic
    of_rpn: dict[str, Any] = {"num_convs": convs, "sample_per": sample_per}
    of_heads: dict[str, Any] = CASCADE_HEADS | {"stages": 3} if cascade else {}
    of_heads = of_heads | {"class_agnostic": agnostic, "masks": masks, "sample_per": sample_per}
    return Detector(
        backbone,
        neck,
        RPN(channels, anchors, **of_rpn | (rpn or {})),
        RoIHeads(
            channels,
            num_classes,
            strides[: pooled or len(infos)],
            rules,
            **of_heads | (heads or {}),
        ),
        indices=indices,
        **options,
    )
