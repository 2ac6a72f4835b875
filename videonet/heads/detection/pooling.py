"""RoIAlign over the levels of a pyramid, for the frames of clips."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from videonet.heads.detection.conventions import Conventions
from videonet.heads.detection.frames import Frames
from videonet.ops.precision import without_autocast


class RoIPooler:
    """Pools every region from the level that suits its size (FPN, arXiv 1612.03144, Eq. 1).

    Args:
        size: cells per side of a pooled region.
        strides: pixels from one cell of a level to the next.
        rules: see :class:`Conventions`.
    """

    def __init__(self, size: int, strides: Sequence[int], rules: Conventions):
        self.size, self.strides, self.rules = size, tuple(strides), rules

    def __call__(self, maps: Sequence[Tensor], boxes: Sequence[Tensor], frames: Frames) -> Tensor:
        """Pool regions of frames.

        Args:
            maps: (B, C, T, H_i, W_i) of the levels that regions are pooled from.
            boxes: (N_f, 4) of every frame f.
            frames: that the maps and boxes are of.

        Returns:
            One-frame maps (N, C, 1, size, size) in float32, frame by frame.
        """
        flat = [x.transpose(1, 2).flatten(0, 1) for x in maps]  # (B*T, C, H, W)
        numbers = torch.cat([b.new_full((len(b), 1), n) for n, b in enumerate(boxes)])
        regions = torch.cat((numbers, torch.cat(list(boxes))), dim=1).float()  # (N, 5)
        scales = self._scales(flat, frames)
        levels = self._levels(regions[:, 1:], scales)
        shape = (len(regions), flat[0].shape[1], self.size, self.size)
        pooled = torch.zeros(shape, device=flat[0].device)
        # float32 throughout: places in a map need more digits than half precision has
        with without_autocast(pooled):
            for level, (x, scale) in enumerate(zip(flat, scales, strict=True)):
                chosen = torch.where(levels == level)[0]
                if len(chosen) or level == 0:  # level 0 ties an empty result to the maps
                    cells = roi_align(
                        x.float(),
                        regions[chosen],
                        self.size,
                        scale,
                        self.rules.sampling_ratio,
                        self.rules.aligned,
                    )
                    pooled = pooled.index_copy(0, chosen, cells)
        return pooled.unsqueeze(2)

    def _scales(self, flat: Sequence[Tensor], frames: Frames) -> list[float]:
        """Cells per pixel of each level."""
        if not self.rules.strides_from_maps:
            return [1 / stride for stride in self.strides]
        height = max(size[0] for size in frames.sizes)
        ratios = torch.tensor([x.shape[2] / height for x in flat])
        return [2.0 ** float(power) for power in ratios.log2().round()]

    def _levels(self, boxes: Tensor, scales: Sequence[float]) -> Tensor:
        """The number of the level of every box (N, 4), 0 for the finest."""
        if len(scales) == 1:
            return torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        rules = self.rules
        sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        ratios = sides / rules.canonical_size
        if rules.epsilon_in_logarithm:
            levels = rules.canonical_level + torch.log2(ratios + rules.level_epsilon)
        else:
            levels = rules.canonical_level + torch.log2(ratios) + rules.level_epsilon
        finest, coarsest = (round(-math.log2(scale)) for scale in (scales[0], scales[-1]))
        return levels.floor().clamp(finest, coarsest).to(torch.int64) - finest
