"""Anchors: boxes of several sizes and aspect ratios around every cell of a map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from videonet.errors import ConfigError
from videonet.heads.detection.conventions import Conventions

Size = tuple[int, int]  # (height, width)


class Anchors:
    """The anchors of every level of a pyramid (arXiv 1506.01497, Sec. 3.1.1).

    Args:
        sizes: for each level the sides of square anchors, in pixels; as many on every level.
        ratios: heights over widths, at the same area.
        strides: pixels from one cell of a level to the next.
        rules: see :class:`Conventions`.

    Attributes:
        per_cell: number of anchors in a place.

    Raises:
        ConfigError: levels with other numbers of sizes, or of strides.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float],
        strides: Sequence[int],
        rules: Conventions,
    ):
        if len(sizes) != len(strides) or len({len(level) for level in sizes}) != 1:
            raise ConfigError(
                f"anchors have the sizes {[tuple(level) for level in sizes]}, expected as many for "
                f"each of {len(strides)} levels"
            )
        self.sizes, self.ratios, self.strides = sizes, tuple(ratios), tuple(strides)
        self.rules = rules
        self.per_cell = len(self.ratios) * len(sizes[0])

    def around_origin(self, level: int) -> Tensor:
        """The anchors of the first cell of a level, (A, 4)."""
        sizes = torch.tensor(self.sizes[level], dtype=torch.float32)
        roots = torch.tensor(self.ratios, dtype=torch.float32).sqrt()
        heights, widths = roots[:, None] * sizes, (1 / roots)[:, None] * sizes  # (ratios, sizes)
        if not self.rules.ratio_major:
            heights, widths = heights.t(), widths.t()
        widths, heights = widths.flatten(), heights.flatten()
        corners = torch.stack((-widths, -heights, widths, heights), dim=1) / 2
        return corners.round() if self.rules.round_anchors else corners

    def of_maps(
        self, map_sizes: Sequence[Size], frame_size: Size, device: torch.device
    ) -> list[Tensor]:
        """The anchors of each level, in the order of rows, columns and anchors in a place.

        Args:
            map_sizes: of every level.
            frame_size: of the frames that the maps come from, with their padding.
            device: of the anchors.

        Returns:
            (H * W * A, 4) for each level.

        Raises:
            ConfigError: another number of maps.
        """
        if len(map_sizes) != len(self.sizes):
            raise ConfigError(
                f"there are anchors for {len(self.sizes)} levels, but {len(map_sizes)} maps"
            )
        levels = []
        for level, size in enumerate(map_sizes):
            step = (self.strides[level], self.strides[level])
            if self.rules.strides_from_maps:
                step = (frame_size[0] // size[0], frame_size[1] // size[1])
            y = torch.arange(size[0], dtype=torch.float32, device=device) * step[0]
            x = torch.arange(size[1], dtype=torch.float32, device=device) * step[1]
            y, x = torch.meshgrid(y, x, indexing="ij")
            shifts = torch.stack((x, y, x, y), dim=-1)[:, :, None]  # (H, W, 1, 4)
            levels.append((shifts + self.around_origin(level).to(device)).flatten(0, 2))
        return levels
