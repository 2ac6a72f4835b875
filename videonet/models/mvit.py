"""Multiscale vision transformers: MViT (arXiv 2104.11227) and MViTv2 (arXiv 2112.01526).

Reads top to bottom: which blocks attend in windows, the block, the network, and the published
variants; :mod:`videonet.models.multiscale` has the plan of strides and widths, and the stem.
Parameter names are those of the official implementation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.models.initial import drop_path_rates
from videonet.models.multiscale import (
    BlockPlan,
    MultiscaleTransformer,
    max_pooled_shortcut,
    pool_kernel_for,
    stage_ends,
    stage_infos,
)
from videonet.models.stages import RunBlock, StageOutput
from videonet.models.variants import published
from videonet.ops.grid import Grid, strided
from videonet.ops.linear import call_linear
from videonet.ops.mlp import Mlp
from videonet.ops.pooling_attention import PoolingAttention
from videonet.ops.stochastic_depth import StochasticDepth


def with_windows(
    plans: Sequence[BlockPlan], window: Grid, global_blocks: Sequence[int] | None = None
) -> list[BlockPlan]:
    """The plan of hybrid window attention (MViTv2, Sec. 4.2).

    Args:
        plans: one per block.
        window: cells (t, h, w) of the first grid; it shrinks behind every query stride, so that it
            always covers the same part of the clip. The block that strides still has the window of
            its input.
        global_blocks: those that attend globally; None for the last ones of the last three stages.

    Raises:
        ConfigError: a stride does not divide the window, or there is no such block.
    """
    if global_blocks is None:
        global_blocks = stage_ends(plans)[-3:]
    if odd := [i for i in global_blocks if i >= len(plans)]:
        raise ConfigError(f"global_blocks names block {odd[0]}, but there are {len(plans)} blocks")
    planned = []
    for i, plan in enumerate(plans):
        if i not in global_blocks:
            _check_window(i, window, plan)
            plan = replace(plan, window=window)
        planned.append(plan)
        if plan.q_stride is not None:
            window = strided(window, plan.q_stride, least=1)
    return planned


def with_wide_strides(plans: Sequence[BlockPlan]) -> list[BlockPlan]:
    """The plan with twice the key/value stride at the ends of the second and third stage.

    That is how detectron2 spares its largest global blocks half of the rows and columns of keys.
    """
    planned = list(plans)
    for i in stage_ends(plans)[1:3]:
        if (stride := plans[i].kv_stride) is not None:
            wide = (stride[0], 2 * stride[1], 2 * stride[2])
            planned[i] = replace(plans[i], kv_stride=wide)
    return planned


def _check_window(block: int, window: Grid, plan: BlockPlan) -> None:
    for stride in filter(None, (plan.q_stride, plan.kv_stride)):
        if any(w % s for w, s in zip(window, stride, strict=True)):
            raise ConfigError(
                f"the window {window} of block {block} is no multiple of its stride {stride}"
            )


class MultiScaleBlock(nn.Module):
    """Pooling attention and MLP, with a shortcut that is pooled alongside.

    A change of width goes through ``proj`` on the normed input: before the attention's sum with
    ``dim_mul_in_att``, else in the sum after the MLP.
    """

    def __init__(
        self,
        plan: BlockPlan,
        grid: Grid,
        *,
        mlp_ratio: float,
        pool_kernel: Grid | None,
        dim_mul_in_att: bool,
        drop_path: float,
        dropout: float,
        **attention,
    ):
        super().__init__()
        dim_att = plan.dim_out if dim_mul_in_att else plan.dim
        self.cls_token = attention["cls_token"]
        self.dim_mul_in_att = dim_mul_in_att
        self.norm1 = nn.LayerNorm(plan.dim, eps=attention["norm_eps"])
        self.attn = PoolingAttention(
            plan.dim,
            dim_att,
            plan.num_heads,
            grid,
            q_kernel=pool_kernel_for(plan.q_stride, pool_kernel),
            q_stride=plan.q_stride,
            kv_kernel=pool_kernel_for(plan.kv_stride, pool_kernel),
            kv_stride=plan.kv_stride,
            window=plan.window,
            dropout=dropout,
            **attention,
        )
        self.norm2 = nn.LayerNorm(dim_att, eps=attention["norm_eps"])
        self.mlp = Mlp(dim_att, int(dim_att * mlp_ratio), plan.dim_out, dropout)
        self.proj = nn.Linear(plan.dim, plan.dim_out) if plan.dim != plan.dim_out else None
        self.skip_stride = plan.q_stride if plan.downsamples else None
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """(B, [1+]T*H*W, dim) -> (B, [1+]T'*H'*W', dim_out) and the new grid."""
        normed = self.norm1(x)
        attended, new_grid = self.attn(normed, grid)
        shortcut = x
        if self.proj is not None and self.dim_mul_in_att:
            shortcut = call_linear(self.proj, normed)
        x = self._pool_shortcut(shortcut, grid) + self.drop_path(attended)
        normed = self.norm2(x)
        shortcut = x
        if self.proj is not None and not self.dim_mul_in_att:
            shortcut = call_linear(self.proj, normed)
        return shortcut + self.drop_path(self.mlp(normed)), new_grid

    def _pool_shortcut(self, x: Tensor, grid: Grid) -> Tensor:
        if self.skip_stride is None:
            return x
        return max_pooled_shortcut(x, grid, self.skip_stride, int(self.cls_token))


class MViT(MultiscaleTransformer):
    """Multiscale vision transformer for clips and, with one frame, for images.

    Args:
        num_classes: 0 for no classifier; num_frames, crop_size, in_channels: of the clips.
        window_size: (t, h, w) cells of the stem's grid for hybrid window attention, without a
            class token; None for global attention in all blocks.
        global_blocks: blocks that attend globally although there are windows; None for the last
            ones of the last three stages.
        wide_global_strides: twice the stride of keys and values, in height and width, in the last
            blocks of the second and third stage, as in the published detectors.
        output_norms: a norm per stage and no classifier, see
            :meth:`videonet.models.base.VideoModel.add_norms`.
        **options: see :class:`videonet.models.multiscale.MultiscaleTransformer`.

    Raises:
        ConfigError: options that contradict each other.
    """

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 16,
        crop_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        window_size: Grid | None = None,
        global_blocks: Sequence[int] | None = None,
        wide_global_strides: bool = False,
        output_norms: bool | Sequence[int] = False,
        **options: Any,
    ):
        super().__init__(num_frames, crop_size, in_channels, **options)
        if window_size is not None:
            if self.cls_token is not None:
                raise ConfigError("window_size is given, but windows need cls_token=False")
            self.plans = with_windows(self.plans, window_size, global_blocks)
        elif global_blocks is not None:
            raise ConfigError("global_blocks is given, but without window_size all blocks are")
        if wide_global_strides:
            self.plans = with_wide_strides(self.plans)
        rates = drop_path_rates(self.drop_path_rate, len(self.plans))
        self.blocks = nn.ModuleList()
        grid = self.first_grid
        for plan, rate in zip(self.plans, rates, strict=True):
            self.blocks.append(
                MultiScaleBlock(
                    plan,
                    grid,
                    mlp_ratio=self.mlp_ratio,
                    pool_kernel=self.pool_kernel,
                    dim_mul_in_att=self.dim_mul_in_att,
                    drop_path=rate,
                    **self.attention_options,
                )
            )
            # The official tables are made for sizes rounded down.
            grid = grid if plan.q_stride is None else strided(grid, plan.q_stride)
        self.stage_ends = stage_ends(self.plans)
        self.feature_info = stage_infos(self.plans, self.patch_stride)
        self.add_head(num_classes, self.plans[-1].dim_out, output_norms)

    def run_stages(self, clip: Tensor, run: RunBlock) -> Iterator[StageOutput]:
        """The tokens (B, [1+]T*H*W, C) at the end of each stage."""
        x, grid = self.embed(clip)
        for i, block in enumerate(self.blocks):
            x, grid = run(block, x, grid)
            if i in self.stage_ends:
                yield StageOutput(x, grid)

    def finish(self, last: StageOutput) -> Tensor:
        """The tokens (B, [1+]N, C), normed unless the norm follows the mean."""
        return last.tensor() if self.mean_pooling else self.norm_last(last.tensor())


V1 = {  # what all sizes of MViT share; its image models have joint positions
    "use_abs_pos": True,
    "sep_pos_embed": True,
    "rel_pos_spatial": False,
    "rel_pos_temporal": False,
    "residual_pooling": False,
    "dim_mul_in_att": False,
}
IMAGE = {  # what all image models have instead
    "patch_kernel": (1, 7, 7),
    "patch_stride": (1, 4, 4),
    "patch_padding": (0, 3, 3),
    "pool_kernel": (1, 3, 3),
    "pool_kv_stride_adaptive": (1, 4, 4),
    "crop_size": 224,
}
V1_IMAGE = IMAGE | {"sep_pos_embed": False}
V2_IMAGE = IMAGE | {"cls_token": False, "rel_pos_temporal": False}


def doubling(depth: int, *starts: int, pool_all: bool = True) -> dict[str, Any]:
    """Stages that double the width and the number of heads and halve height and width.

    Args:
        depth: number of blocks.
        *starts: the first block of each stage but the first.
        pool_all: the queries of the other blocks are pooled too, at stride 1 (MViTv2).
    """
    factors = dict.fromkeys(starts, 2.0)
    strides = dict.fromkeys(range(depth) if pool_all else starts, (1, 1, 1))
    strides |= dict.fromkeys(starts, (1, 2, 2))
    return {
        "depth": depth,
        "dim_mul": factors,
        "head_mul": factors,
        "pool_q_stride": strides,
        "pool_kv_stride_adaptive": (1, 8, 8),
    }


V1_VARIANTS: dict[str, dict[str, Any]] = {  # arXiv 2104.11227, Tab. 2 and 4
    "mvit_v1_b": doubling(16, 1, 3, 14, pool_all=False) | V1
}
V2_VARIANTS: dict[str, dict[str, Any]] = {  # arXiv 2112.01526, Tab. 1 and 10
    "mvit_v2_xs": {  # videonet's own, for CPUs
        **doubling(3, 1),
        "embed_dim": 48,
        "num_frames": 8,
        "crop_size": 48,
        "pool_kv_stride_adaptive": (1, 4, 4),
    },
    "mvit_v2_t": doubling(10, 1, 3, 8),
    "mvit_v2_s": doubling(16, 1, 3, 14),
    "mvit_v2_b": doubling(24, 2, 5, 21) | {"num_frames": 32},
    "mvit_v2_l": {
        **doubling(48, 2, 8, 44),
        "embed_dim": 144,
        "num_heads": 2,
        "num_frames": 40,
        "crop_size": 312,
        "image": {"dim_mul_in_att": False},
    },
    "mvit_v2_h": {
        **doubling(80, 4, 12, 72),
        "embed_dim": 192,
        "num_heads": 3,
        "image": {"cls_token": True},
    },
}
MODELS = published(MViT, V1_VARIANTS, V1_IMAGE) | published(MViT, V2_VARIANTS, V2_IMAGE)
