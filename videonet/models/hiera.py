"""Hiera: a hierarchical vision transformer without the bells and whistles (arXiv 2306.00989).

Stages of plain transformer blocks between which the queries are pooled by their maximum, with
absolute positions alone. Early stages attend within mask units, later ones everywhere, so a masked
clip is the same network on fewer units. Reads top to bottom: the block, the network, the published
sizes. Parameter names are those of the official implementation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.models.base import VideoModel, refuse_class_token
from videonet.models.initial import drop_path_rates
from videonet.models.patch_tokens import token_numbers
from videonet.models.positions import AbsolutePositions, learned_tokens
from videonet.models.stages import ModuleListOf, RunBlock, StageInfo, StageOutput
from videonet.models.variants import published
from videonet.ops.grid import Grid, tiled, volume
from videonet.ops.layer_scale import LayerScale
from videonet.ops.linear import call_linear, init_linear
from videonet.ops.mask_units import (
    MaskUnitAttention,
    Units,
    average_units,
    cut_units,
    pool_units,
)
from videonet.ops.mlp import Mlp
from videonet.ops.patch_embed import PatchEmbed
from videonet.ops.pooling import to_tokens
from videonet.ops.stochastic_depth import StochasticDepth

NORM_EPS = 1e-6


def check_pooling(depths: Sequence[int], mask_unit: Grid, q_stride: Grid, q_pool: int) -> None:
    """Refuse poolings that would cut a mask unit.

    Raises:
        ConfigError: there are fewer stages than poolings need, or a unit is too small for them.
    """
    if q_pool >= len(depths):
        raise ConfigError(f"q_pool is {q_pool}, but depths has {len(depths)} stages")
    if any(m % s**q_pool for m, s in zip(mask_unit, q_stride, strict=True)):
        raise ConfigError(
            f"mask_unit is {mask_unit}, expected multiples of q_stride {q_stride} to the power "
            f"of q_pool, {q_pool}"
        )


class BlockPlan(NamedTuple):
    """In what one block differs from another.

    Attributes:
        dim, dim_out, num_heads: its widths.
        stride: of the pooling, (t, h, w); None for no pooling.
        within_units: attention within mask units.
    """

    dim: int
    dim_out: int
    num_heads: int
    stride: Grid | None
    within_units: bool


def plan_blocks(
    depths: Sequence[int],
    dim: int,
    num_heads: int,
    dim_mul: float,
    head_mul: float,
    q_stride: Grid,
    q_pool: int,
    mask_unit_attn: Sequence[bool],
) -> list[BlockPlan]:
    """One row per block; the arguments are those of :class:`Hiera`.

    Raises:
        ConfigError: `mask_unit_attn` has no entry for a stage.
    """
    if len(mask_unit_attn) < len(depths):
        raise ConfigError(
            f"mask_unit_attn has {len(mask_unit_attn)} entries, but depths has {len(depths)} stages"
        )
    plans = []
    for stage, depth in enumerate(depths):
        dim_out = int(dim * dim_mul) if stage else dim
        num_heads = int(num_heads * head_mul) if stage else num_heads
        for i in range(depth):
            stride = q_stride if i == 0 < stage <= q_pool else None
            # The first block of a stage attends as the stage before, on its finer grid.
            within_units = mask_unit_attn[max(stage - (i == 0), 0)]
            plans.append(BlockPlan(dim, dim_out, num_heads, stride, within_units))
            dim = dim_out
    return plans


def stage_infos(
    plans: Sequence[BlockPlan], ends: Sequence[int], strides: Grid
) -> tuple[StageInfo, ...]:
    """Width and strides of the map after each of the blocks `ends`; `strides` are the stem's."""
    infos = []
    for i, plan in enumerate(plans):
        if plan.stride is not None:
            (t, h, w), (qt, qh, qw) = strides, plan.stride
            strides = (t * qt, h * qh, w * qw)
        if i in ends:
            infos.append(StageInfo(plan.dim_out, strides))
    return tuple(infos)


class Block(nn.Module):
    """Attention, with a shortcut that is pooled and widened alongside, then the MLP.

    Args:
        dim, dim_out, num_heads, stride, within_units: see BlockPlan.
        expand_proj: a linear layer widens the shortcut; otherwise it is the maxima and the means of
            the input.
        layer_scale: initial factor on both branches, None for no layer scale.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        num_heads: int,
        stride: Grid | None,
        within_units: bool,
        *,
        mlp_ratio: float,
        expand_proj: bool,
        layer_scale: float | None,
        drop_path: float,
    ):
        super().__init__()
        self.stride, self.widens = stride, dim != dim_out
        if not expand_proj and dim_out not in (dim, 2 * dim):
            raise ConfigError(
                f"use_expand_proj=False doubles the width, but it grows from {dim} to {dim_out}"
            )
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = MaskUnitAttention(dim, dim_out, num_heads, stride, within_units)
        self.norm2 = nn.LayerNorm(dim_out, eps=NORM_EPS)
        self.mlp = Mlp(dim_out, int(dim_out * mlp_ratio), dim_out)
        self.proj = nn.Linear(dim, dim_out) if self.widens and expand_proj else None
        self.ls1, self.ls2 = (
            nn.Identity() if layer_scale is None else LayerScale(dim_out, layer_scale) for _ in "12"
        )
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor, units: Units) -> Tensor:
        """Cells (B, U, m, dim) -> (B, U, m', dim_out)."""
        normed = self.norm1(x)
        shortcut = self._shortcut(x, normed, units)
        x = shortcut + self.drop_path(self.ls1(self.attn(normed, units)))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))

    def _shortcut(self, x: Tensor, normed: Tensor, units: Units) -> Tensor:
        if self.widens and self.proj is None:
            stride = self.stride or (1, 1, 1)
            pooled = pool_units(x, units, stride), average_units(x, units, stride)
            return torch.cat(pooled, dim=3)
        x = x if self.proj is None else call_linear(self.proj, normed)
        return x if self.stride is None else pool_units(x, units, self.stride)


class Hiera(VideoModel, AbsolutePositions):
    """Hiera for clips and, with one frame, for images.

    Frames of any size run: positions are interpolated, and mask units at the border are cut off
    where the grid is no multiple of them.

    Args:
        num_classes, num_frames, crop_size (pixels; an int or (height, width)), in_channels: of
            the clips that positions are made for.
        embed_dim, num_heads: of the first stage, which grow by the factors dim_mul and head_mul
            with each stage. depths: blocks of each stage; mlp_ratio: of all.
        patch_kernel, patch_stride, patch_padding: of the stem, (t, h, w).
        mask_unit: (t, h, w) cells of the stem's grid that form a mask unit.
        q_stride, q_pool: the queries are pooled by `q_stride` where a stage begins, but the first,
            `q_pool` times (2 in pre-training, where the last stage only widens).
        mask_unit_attn: per stage, whether cells attend within their mask unit alone. The first
            block of a stage, which pools, does as the stage before.
        use_expand_proj, layer_scale: see Block.
        sep_pos_embed: separate positions for space and time, None for clips alone.
        global_pos_size: positions of so many cells (height, width), which are stretched over the
            grid, and learned ones of a mask unit beside, which are repeated (arXiv 2311.05613);
            None for positions of the grid.
        tile_positions: what the positions of all mask units have in common is repeated on another
            grid, and only the rest interpolated (arXiv 2311.05613); False for plain interpolation.
        antialias_positions: as in ViT.
        cls_token: there is none, so True is an error.
        head_dropout: before the classifier; drop_path_rate: of the last block, rising linearly
            from 0; head_init_scale: on the classifier's weights.
        centre_clips: the mean colour of a clip is taken away first, see VideoModel.as_clip.

    Raises:
        ConfigError: arguments that contradict each other.
    """

    position_resize = "bicubic"
    works_on_parts = True
    undecayed = ("pos_embed", "window_embed")
    norm: nn.LayerNorm

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 16,
        crop_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        embed_dim: int = 96,
        num_heads: int = 1,
        depths: Sequence[int] = (2, 3, 16, 3),
        dim_mul: float = 2.0,
        head_mul: float = 2.0,
        mlp_ratio: float = 4.0,
        patch_kernel: Grid = (3, 7, 7),
        patch_stride: Grid = (2, 4, 4),
        patch_padding: Grid = (1, 3, 3),
        mask_unit: Grid = (1, 8, 8),
        q_stride: Grid = (1, 2, 2),
        q_pool: int = 3,
        mask_unit_attn: Sequence[bool] = (True, True, False, False),
        use_expand_proj: bool = True,
        layer_scale: float | None = None,
        sep_pos_embed: bool | None = None,
        global_pos_size: tuple[int, int] | None = None,
        tile_positions: bool = True,
        antialias_positions: bool = True,
        cls_token: bool | None = None,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        centre_clips: bool = False,
        head_init_scale: float = 0.001,
    ):
        super().__init__(centre_clips)
        refuse_class_token(self, cls_token)
        check_pooling(depths, mask_unit, q_stride, q_pool)
        self.mask_unit, self.patch_stride = mask_unit, patch_stride
        self.patch_embed = PatchEmbed(
            in_channels, embed_dim, patch_kernel, patch_stride, patch_padding
        )
        height, width = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
        sizes = zip((num_frames, height, width), patch_stride, strict=True)
        frames, *space = (-(-n // s) for n, s in sizes)
        self.add_positions(
            (frames, *(global_pos_size or space)),
            embed_dim,
            0,
            use=True,
            separate=num_frames > 1 if sep_pos_embed is None else sep_pos_embed,
        )
        self.window_embed = None
        if global_pos_size is not None:
            self.window_embed = learned_tokens(volume(mask_unit), embed_dim)
        self.antialias_positions = antialias_positions
        tiles = tile_positions and global_pos_size is None
        self.position_period = mask_unit if tiles else None

        plans = plan_blocks(
            depths, embed_dim, num_heads, dim_mul, head_mul, q_stride, q_pool, mask_unit_attn
        )
        self.blocks: ModuleListOf[Block] = ModuleListOf(
            Block(
                *plan,
                mlp_ratio=mlp_ratio,
                expand_proj=use_expand_proj,
                layer_scale=layer_scale,
                drop_path=rate,
            )
            for plan, rate in zip(plans, drop_path_rates(drop_path_rate, len(plans)), strict=True)
        )
        self.stage_ends = [end - 1 for end in accumulate(depths)]
        self.feature_info = stage_infos(plans, self.stage_ends, patch_stride)
        self.num_features = plans[-1].dim_out
        self.norm = nn.LayerNorm(self.num_features, eps=NORM_EPS)
        self.head_dropout, self.head_init_scale = head_dropout, head_init_scale
        self.apply(init_linear)
        self.reset_classifier(num_classes)

    def absolute_positions(self, grid: Grid) -> Tensor | None:
        """Positions (1, T*H*W, C) of the cells of a grid."""
        positions = super().absolute_positions(grid)
        if positions is None or self.window_embed is None:
            return positions
        return positions + tiled(self.window_embed[0].unflatten(0, self.mask_unit), grid)

    def embed(self, clip: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Units]:
        """Stem, positions and units: a clip -> cells (B, U, m, C) of its U mask units.

        Args:
            keep: see :meth:`forward_features`; there are K units then, and the stem sees zeros in
                place of the pixels of the others, which its kernels would reach.

        Raises:
            ConfigError: a frame is smaller than a patch, `keep` does not fit the units, or the
                grid is no multiple of them.
        """
        clip = self.as_clip(clip, self.patch_stride[1:])
        if keep is not None:
            keep, clip = self._keep(keep, clip)
        x, grid = self.patch_embed(clip)
        positions = self.absolute_positions(grid)
        x, units = cut_units(x if positions is None else x + positions, grid, self.mask_unit)
        if keep is not None:
            places = keep[:, :, None, None].expand(-1, -1, *x.shape[2:])  # (B, K, m, C)
            x = x.gather(1, places)
        return x, units

    def _keep(self, keep: Tensor, clip: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers (B, K) of the units that are kept, and the clip with their pixels alone."""
        pixels = [m * s for m, s in zip(self.mask_unit, self.patch_stride, strict=True)]
        if any(n % p for n, p in zip(clip.shape[2:], pixels, strict=True)):
            raise ConfigError(
                f"clips of {' x '.join(map(str, clip.shape[2:]))} are no multiple of the mask unit "
                f"of {' x '.join(map(str, pixels))} pixels: leave out keep"
            )
        counts = tuple(n // p for n, p in zip(clip.shape[2:], pixels, strict=True))
        keep = token_numbers(keep, clip.shape[0], volume(counts)).to(clip.device)
        mask = torch.zeros(clip.shape[0], volume(counts), dtype=torch.bool, device=clip.device)
        mask = mask.scatter(1, keep, True).unflatten(1, counts)
        for axis, repeats in enumerate(pixels, start=1):
            mask = mask.repeat_interleave(repeats, dim=axis)
        return keep, clip * mask.unsqueeze(1)

    def run_stages(
        self, clip: Tensor, run: RunBlock, keep: Tensor | None = None
    ) -> Iterator[StageOutput]:
        """The cells (B, U, m, C) at the end of each stage; of K units with `keep`."""
        x, units = self.embed(clip, keep)
        for i, block in enumerate(self.blocks):
            x = run(block, x, units)
            if block.stride is not None:
                units = units.pooled(block.stride)
            if i in self.stage_ends:
                yield StageOutput(x, windows=units.windows if keep is None else None)

    def finish(self, last: StageOutput) -> Tensor:
        """The cells in a row, (B, N, C): of the grid or, unit by unit, of the kept units.

        The norm follows their mean.
        """
        return last.tensor().flatten(1, 2) if last.windows is None else to_tokens(last.maps()[0])[0]

    def pool_features(self, features: Tensor) -> Tensor:
        """Cells (B, N, C) -> their mean, normed (B, C)."""
        return self.norm(features.mean(dim=1))


IMAGE = {  # what all image models have instead
    "patch_kernel": (1, 7, 7),
    "patch_stride": (1, 4, 4),
    "patch_padding": (0, 3, 3),
}
VARIANTS: dict[str, dict[str, Any]] = {  # arXiv 2306.00989
    "hiera_xs": {  # videonet's own, for CPUs
        "embed_dim": 32,
        "depths": (1, 1, 1),
        "mask_unit": (1, 4, 4),
        "q_pool": 2,
        "mask_unit_attn": (True, False, False),
        "num_frames": 8,
        "crop_size": 48,
    },
    "hiera_t": {"depths": (1, 2, 7, 2)},
    "hiera_s": {"depths": (1, 2, 11, 2)},
    "hiera_b": {},
    "hiera_bp": {"embed_dim": 112, "num_heads": 2},
    "hiera_l": {"embed_dim": 144, "num_heads": 2, "depths": (2, 6, 36, 4)},
    "hiera_h": {"embed_dim": 256, "num_heads": 4, "depths": (2, 6, 36, 4)},
}
MODELS = published(Hiera, VARIANTS, IMAGE)
