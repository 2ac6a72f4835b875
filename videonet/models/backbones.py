"""The backbones of published detectors and segmentations: what they need beside their name."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from videonet.errors import ConfigError
from videonet.models.registry import create_model
from videonet.models.variants import IMAGE

NORMS = {"output_norms": True}
# Pattern of names -> arguments; under ``image`` those that are different with one frame.
DETECTION: dict[str, Mapping[str, Any]] = {
    # detectron2, projects/MViTv2: windows of the grid of the pre-training, 224 pixels.
    "mvit_v2_xs": NORMS | {"cls_token": False},  # videonet's own: too small for windows
    "mvit_v2_*": {
        **NORMS,
        "cls_token": False,
        "dim_mul_in_att": True,
        "window_size": (8, 56, 56),
        "padded_keys": True,
        "wide_global_strides": True,
        IMAGE: {"window_size": (1, 56, 56)},
    },
    "swin_*": NORMS | {"window_rule": "detection"},  # Swin-Transformer-Object-Detection
    # HorNet, object_detection: filters of these frequencies, resized to every map.
    "hornet_gf_*": NORMS | {"filter_sizes": (None, None, (24, 13), (12, 7))},
    "hornet_*": NORMS,
    "asmlp_*": NORMS,  # AS-MLP-Object-Detection
    "cyclemlp_*": NORMS,
    # Without norms of the outputs.
    "vitdet_*": {"num_classes": 0},
    "hrnet_*": {"num_classes": 0},
    "vit_*": {"num_classes": 0},
}


def detection_arguments(name: str, num_frames: int | None = None) -> dict[str, Any]:
    """Constructor arguments with which a model is the backbone of its published detectors.

    Args:
        name: of a model; its family's architecture has options for dense tasks.
        num_frames: 1 for the image model; None for the clips that the model is published for.

    Raises:
        ConfigError: nothing is published for it.
    """
    row = next((row for p, row in DETECTION.items() if fnmatchcase(name, p)), None)
    if row is None:
        raise ConfigError(
            f"no detector is published on {name}, expected one of {', '.join(DETECTION)}"
        )
    arguments = {key: value for key, value in row.items() if key != IMAGE}
    return arguments | (row.get(IMAGE, {}) if num_frames == 1 else {})


def create_backbone(
    name: str,
    *,
    num_frames: int | None = None,
    weights: str | Path | None = None,
    **arguments: Any,
) -> nn.Module:
    """Build the backbone of a detector or of a segmentation, as published.

    Args:
        name: of a model, see :func:`detection_arguments`.
        num_frames, weights, arguments: of :func:`videonet.create_model`; arguments win over the
            published ones.

    Returns:
        A model without a classifier, whose :meth:`forward_intermediates` gives the maps.

    Raises:
        ConfigError: nothing is published for it, or what ``create_model`` raises.
    """
    published = detection_arguments(name, num_frames)
    return create_model(name, num_frames=num_frames, weights=weights, **published | arguments)
