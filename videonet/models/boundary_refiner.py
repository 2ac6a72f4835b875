"""Boundary patch refinement (BPR, CVPR 2021): an HRNet that sees a patch and its coarse mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from videonet.errors import ConfigError
from videonet.heads.semantic import SemanticHead, hrnet_head
from videonet.models.base import VideoModel
from videonet.models.registry import create_model
from videonet.models.segmenter import SemanticSegmenter

CLASSES = 2  # not the object, the object


class BoundaryRefiner(SemanticSegmenter):
    """Gives every pixel of a patch the logits of not belonging and of belonging to the object.

    It maps patches with masks, see :func:`with_masks`, (B, 4, T, H, W), or of images (B, 4, H, W),
    to logits (B, 2, T, H, W).

    Args:
        backbone: an HRNet with ``mask_channels=1``, that keeps all frames.
        decode_head: on its branches.
        align_corners: of the last resizing; None for what the head does.
    """

    parts_on_top = (*SemanticSegmenter.parts_on_top, "conv_mask.")

    def __init__(
        self,
        backbone: VideoModel,
        decode_head: SemanticHead,
        *,
        align_corners: bool | None = None,
    ):
        super().__init__(backbone, decode_head, align_corners=align_corners)


def with_masks(clips: Tensor, masks: Tensor) -> Tensor:
    """Patches with their coarse masks as fourth channel, -1 outside and 1 inside.

    Args:
        clips: normalised, (B, 3, T, H, W).
        masks: (B, T, H, W), what is not zero belongs to the mask.

    Returns:
        (B, 4, T, H, W).
    """
    signs = torch.where(masks != 0, 1.0, -1.0).to(clips.dtype)
    return torch.cat((clips, signs[:, None]), dim=1)


def make_boundary_refiner(
    name: str = "hrnet_w18_small_v2",
    *,
    align_corners: bool = False,
    head_options: dict[str, Any] | None = None,
    **arguments: Any,
) -> BoundaryRefiner:
    """A refiner on an HRNet, by default the smaller one of the published two.

    Args:
        name: of an HRNet; ``hrnet_w48`` is the larger one.
        align_corners: of every bilinear resizing.
        head_options: of :func:`videonet.heads.semantic.hrnet_head`.
        **arguments: of the HRNet. ``num_frames=1`` is the official model for images; longer clips
            have kernels of 3×3×3.

    Raises:
        ConfigError: an unknown name or argument, or no HRNet.
    """
    if not name.startswith("hrnet"):
        raise ConfigError(f"a boundary refiner on {name!r}: expected an HRNet, as hrnet_w48")
    of_refiners: dict[str, Any] = {
        "num_frames": 1,
        "num_classes": 0,
        "mask_channels": 1,
        "temporal_stride": 1,
        "fuse_upsample": "bilinear",
        "fuse_align_corners": align_corners,
    }
    backbone = create_model(name, **(of_refiners | arguments))
    assert isinstance(backbone, VideoModel)
    widths = [info.channels for info in backbone.feature_info]
    head = hrnet_head(widths, CLASSES, align_corners=align_corners, **(head_options or {}))
    return BoundaryRefiner(backbone, head)
