"""Models of the detection references, from the constructors that their records state."""

from __future__ import annotations

import re
from dataclasses import replace

from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from videonet.heads.detection.anchors import Anchors
from videonet.heads.detection.conventions import DETECTRON2, TORCHVISION
from videonet.heads.detection.detector import Detector
from videonet.heads.detection.frames import Frames
from videonet.heads.detection.roi_heads import RoIHeads
from videonet.heads.detection.rpn import RPN
from videonet.heads.fpn import FPN
from videonet.models.stages import StageInfo

NORMS = {"BN": "batch", "GN": "group", "LN": "layer", "": None}


def frames_of(size, count, targets=None):
    """Frames of one size without padding."""
    return Frames([tuple(size)] * count, tuple(size), targets=targets)


def cascade_heads(arguments):
    """detectron2's CascadeROIHeads."""
    pooler, box, mask = (arguments[key] for key in ("box_pooler", "box_head", "mask_head"))
    rules = replace(
        DETECTRON2,
        canonical_size=pooler["canonical_box_size"],
        canonical_level=pooler["canonical_level"],
        aligned=pooler["type"] == "ROIAlignV2",
        sampling_ratio=pooler["sampling_ratio"],
        delta_weights=tuple(map(tuple, arguments["box_delta_weights"])),
    )
    test = {
        ours: arguments[theirs]
        for ours, theirs in {
            "score_threshold": "test_score_thresh",
            "nms_threshold": "test_nms_thresh",
            "most": "test_topk_per_image",
            "num_sampled": "batch_size_per_image",
            "positive_fraction": "positive_fraction",
            "append_truth": "proposal_append_gt",
        }.items()
        if theirs in arguments
    }
    return RoIHeads(
        arguments["channels"],
        arguments["num_classes"],
        pooler["strides"],
        rules,
        stages=len(arguments["ious"]),
        box_size=pooler["output_size"],
        box_convs=box["conv_dims"],
        box_fcs=box["fc_dims"],
        box_norm=NORMS[box["norm"]],
        class_agnostic=arguments["cls_agnostic_bbox_reg"],
        mask_size=mask["pooler_output_size"],
        mask_convs=mask["conv_dims"],
        mask_deconv=mask["deconv"],
        mask_norm=NORMS[mask["norm"]],
        match_thresholds=arguments["ious"],
        **test,
    )


class StubBackbone(nn.Module):
    """The backbone of the torchvision records: two convolutions, each with a ReLU and a norm."""

    def __init__(self, channels):
        super().__init__()
        self.stem = nn.Conv3d(3, channels, (1, 7, 7), (1, 4, 4), (0, 3, 3))
        self.norm0 = nn.BatchNorm3d(channels)
        self.down = nn.Conv3d(channels, channels, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.norm1 = nn.BatchNorm3d(channels)
        self.feature_info = (StageInfo(channels, (1, 4, 4)), StageInfo(channels, (1, 8, 8)))

    def forward_intermediates(self, clip, indices=None):
        """Maps of strides 4 and 8."""
        fine = self.norm0(self.stem(clip).relu())
        return [fine, self.norm1(self.down(fine).relu())]

    def no_weight_decay(self):
        """No names."""
        return set()

    def layer_groups(self, by="blocks"):
        """One group."""
        return [[name for name, _ in self.named_parameters()]]


def mask_rcnn(arguments):
    """torchvision's MaskRCNN."""
    channels, pool = arguments["channels"], arguments["roi_pool"]
    rules = replace(
        TORCHVISION,
        canonical_size=pool["canonical_scale"],
        canonical_level=pool["canonical_level"],
        sampling_ratio=pool["sampling_ratio"],
    )
    rpn = RPN(
        channels,
        Anchors(arguments["anchor_sizes"], arguments["aspect_ratios"], (4, 8), rules),
        num_convs=arguments["rpn_head_conv_depth"],
        before_nms=tuple(arguments["rpn_pre_nms_top_n"].values()),
        after_nms=tuple(arguments["rpn_post_nms_top_n"].values()),
        num_sampled=arguments.get("rpn_batch_size_per_image", 256),
        positive_fraction=arguments.get("rpn_positive_fraction", 0.5),
    )
    convs, fcs, box_norm = box_head_of(arguments["box_head"], channels)
    mask_convs, mask_norm = mask_head_of(arguments["mask_head"], channels)
    heads = RoIHeads(
        channels,
        arguments["num_classes"] - 1,
        (4, 8),
        rules,
        box_size=pool["box"],
        box_convs=convs,
        box_fcs=fcs,
        box_norm=box_norm,
        mask_size=pool["mask"],
        mask_convs=mask_convs,
        mask_deconv=mask_convs[-1],
        mask_norm=mask_norm,
        num_sampled=arguments.get("box_batch_size_per_image", 512),
        positive_fraction=arguments.get("box_positive_fraction", 0.25),
        score_threshold=arguments.get("box_score_thresh", 0.05),
        nms_threshold=arguments.get("box_nms_thresh", 0.5),
        most=arguments.get("box_detections_per_img", 100),
    )
    return Detector(StubBackbone(channels), None, rpn, heads)


def _norm_of(text):
    return "batch" if "BatchNorm2d" in text else None


def _widths(text, channels):
    """``[C,C]`` -> two times the channels."""
    return [channels if part == "C" else int(part) for part in text.split(",") if part]


def box_head_of(text, channels):
    """Widths of convolutions and of linear layers, and the norm, of a torchvision box head."""
    if text.startswith("TwoMLPHead"):
        width = int(re.search(r"(\d+)\)$", text)[1])
        return (), (width, width), None
    convs, fcs = re.findall(r"\[([^\]]*)\]", text)
    return _widths(convs, channels), _widths(fcs, channels), _norm_of(text)


def mask_head_of(text, channels):
    """Widths of the convolutions, and the norm, of torchvision's MaskRCNNHeads."""
    return _widths(re.search(r"\[([^\]]*)\]", text)[1], channels), _norm_of(text)


def prepared(record, tensors, training=False):
    """torchvision's preparation of the images of a record, as a batch, and its frames' sizes."""
    arguments = record["constructor"]
    transform = GeneralizedRCNNTransform(
        arguments["min_size"],
        arguments["max_size"],
        [0.485, 0.456, 0.406],
        [0.229, 0.224, 0.225],
    ).train(training)
    count = len(record["input"]["shape"])
    images = [tensors[f"input.{n}"] for n in range(count)]
    targets = None
    if training:
        targets = [
            {key: tensors[f"input.target.{n}.{key}"] for key in ("boxes", "labels", "masks")}
            for n in range(count)
        ]
    batch, targets = transform(images, targets)
    for target in targets or ():
        target["labels"] = target["labels"] - 1  # the background is class 0 there
    return batch.tensors, batch.image_sizes, targets, [tuple(i.shape[1:]) for i in images]


def cascade_detector(arguments, backbone):
    """detectron2's GeneralizedRCNN with cascade heads, on a backbone."""
    fpn, rpn, heads = (arguments[key] for key in ("FPN", "RPN", "CascadeROIHeads"))
    pyramid = FPN(
        [info.channels for info in backbone.feature_info],
        fpn["out_channels"],
        num_outs=len(rpn["strides"]),
        norm=NORMS[fpn["norm"]],
    )
    rules = replace(
        DETECTRON2,
        canonical_size=heads["canonical_box_size"],
        delta_weights=tuple(map(tuple, heads["box_delta_weights"])),
    )
    proposals = RPN(
        fpn["out_channels"],
        Anchors(rpn["anchor_sizes"], rpn["aspect_ratios"], rpn["strides"], rules),
        num_convs=rpn["head_convs"],
        before_nms=(rpn["pre_nms_topk"],) * 2,
        after_nms=(rpn["post_nms_topk"],) * 2,
        nms_threshold=rpn["nms_thresh"],
    )
    box, mask = heads["box_head"], heads["mask_head"]
    roi_heads = RoIHeads(
        heads["channels"],
        heads["num_classes"],
        rpn["strides"][: len(backbone.feature_info)],
        rules,
        stages=len(heads["box_delta_weights"]),
        box_convs=box["conv_dims"],
        box_fcs=box["fc_dims"],
        box_norm=NORMS[box["norm"]],
        class_agnostic=True,
        mask_convs=mask["conv_dims"],
        mask_deconv=mask["deconv"],
        mask_norm=NORMS[mask["norm"]],
        score_threshold=heads["test_score_thresh"],
        nms_threshold=heads["test_nms_thresh"],
        most=heads["test_topk_per_image"],
    )
    return Detector(backbone, pyramid, proposals, roi_heads)
