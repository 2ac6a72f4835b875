"""The part of a clip that a patch along a boundary shows, in the size that a network takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.tv_tensors import Mask

from videonet.data.datasets.boundary_patches import COARSE, CORNER, TRUTH
from videonet.data.transforms.crops import Moving, pick_frames
from videonet.errors import ConfigError
from videonet.ops.boundary_patches import PatchRule, cut_patches
from videonet.ops.resize import resize_bytes, resize_space


class PatchCut:
    """Cuts the patch that the target ``corner`` names; its masks are cut already.

    Without targets it is the one at the top left.

    Args:
        rule: how patches are cut.
        side: of the result, in pixels.

    Attributes:
        shape: height and width of the result.
        decode_side: None, patches are cut from whole frames.
    """

    decode_side: int | None = None

    def __init__(self, rule: PatchRule, side: int):
        self.rule, self.shape = rule, (side, side)

    def __call__(
        self, clip: Tensor, targets: Moving | None = None, *, rows: Tensor | None = None
    ) -> Any:
        """Cut ``(T, 3, H, W)``, or what ``rows`` picks of it."""
        clip = clip if rows is None else pick_frames(clip, rows)
        if not targets:
            first = self._cut(clip, torch.zeros(2, dtype=torch.int64))
            return first if targets is None else (first, {})
        if CORNER not in targets:
            raise ConfigError("DATA.CROP patches goes with TRAIN.DATASET boundary_patches alone")
        moved = {
            name: Mask(self._resized(targets[name].as_subclass(Tensor))) for name in (COARSE, TRUTH)
        }
        return self._cut(clip, targets[CORNER]), {**targets, **moved}

    def _cut(self, clip: Tensor, corner: Tensor) -> Tensor:
        """The patch of a clip (T, 3, H, W) at a corner (2,), in the size of the result."""
        return resize_bytes(cut_patches(clip, corner[None], self.rule)[0], self.shape)

    def _resized(self, mask: Tensor) -> Tensor:
        """A mask bool (T, side, side) in the size of the result."""
        return resize_space(mask[None, None].float(), self.shape, "nearest")[0, 0].bool()
