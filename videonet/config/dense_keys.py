"""The keys of dense tasks: the pyramid, the detector and the segmenter on a backbone."""

from __future__ import annotations

from videonet.config.key import Group, Key

NECK = Group(
    "The pyramid of maps between a backbone and the heads of a detector or segmenter.",
    {
        "NAME": Key(
            "auto",
            "fpn, hor_fpn, hrfpn, simple_pyramid, multi_level or none. auto: simple_pyramid for "
            "backbones whose maps have one resolution; else fpn, and none for a segmenter whose "
            "head reads the backbone's maps.",
            own=True,
        ),
        "CHANNELS": Key(256, "Channels of its maps.", own=True),
        "INDICES": Key([], "Numbers of the backbone's maps that are used; empty: all.", own=True),
        "TEMPORAL_KERNEL": Key(
            1,
            "Taps along time of the 3x3 convolutions of the neck and of a segmenter's heads; 1 "
            "keeps the frames of a clip apart, and holds with DATA.NUM_FRAMES 1 in any case.",
            own=True,
        ),
        "ARGUMENTS": Key({}, "Further arguments of the neck, by name.", own=True),
    },
)

DETECTOR = Group(
    "The detector of MODEL.TASK instance_segmentation: Faster, Mask or Cascade R-CNN.",
    {
        "RULES": Key(
            "detectron2",
            "Whose anchors, losses, pooling and pasting: detectron2, mmdet or torchvision.",
            own=True,
        ),
        "CONVENTIONS": Key({}, "Single rules that differ from those of RULES, by name.", own=True),
        "CASCADE": Key(False, "Three stages of box heads (Cascade R-CNN).", own=True),
        "CLASS_AGNOSTIC": Key(
            None,
            "One box for all classes; None: for cascades of detectron2 alone.",
            own=True,
            optional=bool,
        ),
        "MASKS": Key(True, "Mask heads; False for boxes alone.", own=True),
        "STRIDES": Key(
            [], "Pixels per cell of every level; empty: as the backbone and neck say.", own=True
        ),
        "ANCHOR_SCALE": Key(8.0, "Sides of the anchors in units of the stride.", own=True),
        "SAMPLE_PER": Key(
            "frame",
            "Anchors and regions to learn from are drawn for each frame, or for each clip as many "
            "in all of its frames together.",
            own=True,
        ),
        "RPN": Key({}, "Further arguments of the proposal network, by name.", own=True),
        "HEADS": Key({}, "Further arguments of the box and mask heads, by name.", own=True),
        "PAD_SQUARE": Key(
            0, "Batches are padded to squares of at least this side (ViTDet: 1024).", own=True
        ),
        "LINKER": Key(
            {}, "Arguments of what links detections over the frames of a clip, by name.", own=True
        ),
    },
)

SEGMENTER = Group(
    "The heads of MODEL.TASK semantic_segmentation.",
    {
        "HEAD": Key("uper", "uper, semantic_fpn, fcn or hrnet.", own=True),
        "NORM": Key(
            "batch",
            "Norm of the heads: batch, group (group:8 for 8 groups), layer or none.",
            own=True,
        ),
        "ALIGN_CORNERS": Key(False, "Of every bilinear resizing.", own=True),
        "AUXILIARY": Key(
            None,
            "Number of the map that a second head learns from in training (published: 2); None: "
            "no such head.",
            own=True,
            optional=int,
        ),
        "AUXILIARY_WEIGHT": Key(0.4, "Factor of its loss.", own=True),
        "HEAD_ARGUMENTS": Key({}, "Further arguments of the first head, by name.", own=True),
        "WINDOW": Key(
            [],
            "Height and width of windows that slide over a picture in validation and test; empty: "
            "whole pictures.",
            own=True,
        ),
        "STRIDE": Key([], "Steps of the windows; empty: two thirds of them.", own=True),
        "SCALES": Key([1.0], "Scales whose probabilities are averaged.", own=True),
        "FLIP": Key(False, "Average over mirror images too.", own=True),
    },
)
