"""What torchvision, detectron2 and mmdetection do differently, as data.

Weights trained by the rules of one project lose accuracy by those of another. Whoever mixes them
takes a preset and replaces fields: ``dataclasses.replace(MMDET, box_loss=BoxLoss("giou", 10.0))``.
"""

from __future__ import annotations

from dataclasses import dataclass

from videonet.errors import ConfigError

Weights = tuple[float, float, float, float]
BOX_LOSSES = ("smooth_l1", "l1", "giou")
DELTA_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))


@dataclass(frozen=True)
class BoxLoss:
    """The loss of a predicted box.

    Attributes:
        kind: "smooth_l1" or "l1" of the four deltas, or "giou" of the decoded boxes (generalised
            IoU, arXiv 1902.09630).
        weight: factor of the loss.
        beta: where the smooth L1 loss turns from a square into a line.
    """

    kind: str
    weight: float = 1.0
    beta: float = 1 / 9

    def __post_init__(self) -> None:
        if self.kind not in BOX_LOSSES:
            expected = ", ".join(BOX_LOSSES)
            raise ConfigError(f"the box loss is {self.kind!r}, expected one of {expected}")


@dataclass(frozen=True)
class Conventions:
    """The rules of one project.

    Attributes:
        name: of the project.
        aligned: RoIAlign takes the centre of a pixel at half, and a region keeps its true size;
            else coordinates are those of pixel corners and regions are at least one cell.
        sampling_ratio: points per row and column of a cell in RoIAlign; 0 for as many as there
            are pixels in it.
        canonical_size, canonical_level: a region with sides of so many pixels is pooled from the
            level of stride ``2 ** canonical_level``.
        level_epsilon: added to the level of a region, or with `epsilon_in_logarithm` to the size
            ratio that its logarithm is taken of.
        epsilon_in_logarithm: see `level_epsilon`.
        strides_from_maps: the strides of levels are inferred from the sizes of maps and images,
            in training and at test; else the model's own numbers hold.
        round_anchors: corners of the anchors around the origin are rounded, half to even.
        ratio_major: of several anchors in a place, those of one aspect ratio lie side by side;
            else those of one size.
        background_first: the classifier's class 0 is the background; else the last one is. Then
            box deltas and masks have a row for it too.
        clamp_shrinking: decoded widths and heights are limited in shrinking by a factor of 62.5
            as they are in growing.
        rank_by_probability: proposals go through NMS in the order of their probabilities, of which
            many are 1 in float32; else in that of the logits.
        min_proposal_side, min_detection_side: shorter boxes are dropped, in pixels; None to keep
            boxes without area too.
        low_quality_to_best: an anchor that is the best one of a ground-truth box, below the
            threshold, gets the ground truth that it overlaps most; else that box itself.
        least_low_quality: IoU below which such an anchor is none.
        rpn_loss_over_sampled: the RPN's losses are divided by the number of anchors sampled; else
            by the number that was asked for.
        rpn_box_loss, box_loss: of proposals and of detections.
        mask_targets_aligned: `aligned` of the RoIAlign that cuts ground-truth masks.
        mask_target_threshold: from which on such a cell is 1; None for soft targets.
        paste_by_sampling: masks are sampled at the centres of pixels; else resized to boxes of
            whole pixels.
        delta_weights: factors of (dx, dy, dw, dh), for each stage of a cascade.
        stage_loss_weights: of the losses of each stage.
        average_logits: a cascade averages logits over its stages; else probabilities.
        resample: every stage of a cascade samples its regions anew; else it takes those of the
            first one.
        divide_gradients: gradients that flow from a cascade into the maps are divided by the
            number of stages.
        mask_head_per_stage: a cascade has a mask head for each stage, whose masks are averaged.
    """

    name: str
    aligned: bool = True
    sampling_ratio: int = 0
    canonical_size: float = 224.0
    canonical_level: int = 4
    level_epsilon: float = 1e-8
    epsilon_in_logarithm: bool = True
    strides_from_maps: bool = False
    round_anchors: bool = False
    ratio_major: bool = False
    background_first: bool = False
    clamp_shrinking: bool = False
    rank_by_probability: bool = False
    min_proposal_side: float | None = 0.0
    min_detection_side: float | None = None
    low_quality_to_best: bool = True
    least_low_quality: float = 0.0
    rpn_loss_over_sampled: bool = False
    rpn_box_loss: BoxLoss = BoxLoss("l1")
    box_loss: BoxLoss = BoxLoss("l1")
    mask_targets_aligned: bool = True
    mask_target_threshold: float | None = 0.5
    paste_by_sampling: bool = True
    delta_weights: tuple[Weights, ...] = DELTA_WEIGHTS
    stage_loss_weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    average_logits: bool = False
    resample: bool = False
    divide_gradients: bool = True
    mask_head_per_stage: bool = False


DETECTRON2 = Conventions("detectron2")
TORCHVISION = Conventions(
    "torchvision",
    aligned=False,
    sampling_ratio=2,
    level_epsilon=1e-6,
    epsilon_in_logarithm=False,
    strides_from_maps=True,
    round_anchors=True,
    ratio_major=True,
    background_first=True,
    rank_by_probability=True,
    min_proposal_side=1e-3,
    min_detection_side=1e-2,
    rpn_loss_over_sampled=True,
    rpn_box_loss=BoxLoss("smooth_l1"),
    box_loss=BoxLoss("smooth_l1"),
    mask_targets_aligned=False,
    mask_target_threshold=None,
    paste_by_sampling=False,
)
MMDET = Conventions(
    "mmdet",
    canonical_size=56.0,
    canonical_level=2,
    level_epsilon=1e-6,
    ratio_major=True,
    clamp_shrinking=True,
    rank_by_probability=True,
    low_quality_to_best=False,
    least_low_quality=0.3,
    rpn_loss_over_sampled=True,
    delta_weights=(
        (1 / 0.1, 1 / 0.1, 1 / 0.2, 1 / 0.2),
        (1 / 0.05, 1 / 0.05, 1 / 0.1, 1 / 0.1),
        (1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067),
    ),
    stage_loss_weights=(1.0, 0.5, 0.25),
    average_logits=True,
    resample=True,
    divide_gradients=False,
    mask_head_per_stage=True,
)
CONVENTIONS = {rules.name: rules for rules in (TORCHVISION, DETECTRON2, MMDET)}


def find_conventions(rules: str | Conventions) -> Conventions:
    """A preset by its name; what is one already stays.

    Raises:
        ConfigError: an unknown name.
    """
    if isinstance(rules, Conventions):
        return rules
    if rules not in CONVENTIONS:
        expected = ", ".join(CONVENTIONS)
        raise ConfigError(f"the conventions are {rules!r}, expected one of {expected}")
    return CONVENTIONS[rules]
