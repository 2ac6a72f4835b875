"""Two-stage detectors for images and the frames of clips: Faster, Mask and Cascade R-CNN."""

from videonet.heads.detection.build import build_detector
from videonet.heads.detection.conventions import (
    CONVENTIONS,
    DETECTRON2,
    MMDET,
    TORCHVISION,
    BoxLoss,
    Conventions,
)
from videonet.heads.detection.detector import Detector
from videonet.heads.detection.frames import Detections
from videonet.heads.detection.linking import Linker, Track, collect_tracks
from videonet.heads.detection.roi_heads import RoIHeads
from videonet.heads.detection.rpn import RPN

__all__ = [
    "CONVENTIONS",
    "DETECTRON2",
    "MMDET",
    "RPN",
    "TORCHVISION",
    "BoxLoss",
    "Conventions",
    "Detections",
    "Detector",
    "Linker",
    "RoIHeads",
    "Track",
    "build_detector",
    "collect_tracks",
]
