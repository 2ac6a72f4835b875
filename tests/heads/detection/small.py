"""Small detectors on small backbones, for tests of behaviour."""

from __future__ import annotations

import torch

from tests.models.families import FAMILIES
from tests.models.invariants import randomise
from videonet.heads.detection import build_detector
from videonet.heads.fpn import FPN
from videonet.models import create_model
from videonet.models.stages import StageInfo

ONE_BLOCK = {  # for each of the four stages
    "mvit_v2_t": {
        "depth": 4,
        "dim_mul": {1: 2.0, 2: 2.0, 3: 2.0},
        "head_mul": {1: 2.0, 2: 2.0, 3: 2.0},
        "pool_q_stride": {0: (1, 1, 1), 1: (1, 2, 2), 2: (1, 2, 2), 3: (1, 2, 2)},
    },
}
RPN_SIZES = {"before_nms": (60, 40), "after_nms": (40, 20), "num_sampled": 32}
HEADS = {"box_fcs": (32,), "mask_convs": (8,), "mask_deconv": 8, "num_sampled": 32, "most": 10}


def small_backbone(name="hornet_t", frames=1, side=64):
    """A narrow backbone of a family."""
    family = FAMILIES[f"{name.split('_')[0]}_*"]
    arguments = (
        family.small | family.by_model.get(name, {}) | family.exact | ONE_BLOCK.get(name, {})
    )
    return create_model(name, num_classes=0, num_frames=frames, crop_size=side, **arguments)


def small_detector(backbone=None, rules="detectron2", num_classes=3, **options):
    """A detector with a pyramid of 16 channels, and weights far from zero."""
    backbone = small_backbone() if backbone is None else backbone
    infos = backbone.feature_info
    neck = FPN([info.channels for info in infos], 16, num_outs=len(infos) + 1)
    heads = HEADS | options.pop("heads", {})
    if options.get("cascade"):
        heads = heads | {"box_convs": (8,), "box_norm": "batch"}
    rpn = RPN_SIZES | options.pop("rpn", {})
    model = build_detector(
        backbone, num_classes, rules, neck=neck, anchor_scale=4, rpn=rpn, heads=heads, **options
    )
    return randomise(model)


class TinyBackbone(torch.nn.Module):
    """One strided convolution for each map: as quick as can be, and with any temporal stride."""

    def __init__(self, channels=8, temporal_stride=1):
        super().__init__()
        strides = ((temporal_stride, 4, 4), (1, 2, 2), (1, 2, 2), (1, 2, 2))
        self.convs = torch.nn.ModuleList(
            torch.nn.Conv3d(c, channels, s, s)
            for c, s in zip((3, *[channels] * 3), strides, strict=True)
        )
        self.feature_info = tuple(
            StageInfo(channels, (temporal_stride, side, side)) for side in (4, 8, 16, 32)
        )

    def forward_intermediates(self, clip, indices=None):
        """Maps of strides 4 to 32."""
        maps = []
        for conv in self.convs:
            clip = conv(clip).relu()
            maps.append(clip)
        return maps

    def no_weight_decay(self):
        """No names."""
        return set()

    def layer_groups(self, by="blocks"):
        """One group."""
        return [[name for name, _ in self.named_parameters()]]


def target(boxes, labels=None, size=(64, 64), masks=True):
    """The target of a frame: masks fill their boxes."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.zeros(len(boxes)) if labels is None else torch.tensor(labels)
    found = {"boxes": boxes, "labels": labels.long()}
    if masks:
        bitmaps = torch.zeros(len(boxes), *size, dtype=torch.bool)
        for bitmap, (x1, y1, x2, y2) in zip(bitmaps, boxes.round().int().tolist(), strict=True):
            bitmap[y1:y2, x1:x2] = True
        found["masks"] = bitmaps
    return found
