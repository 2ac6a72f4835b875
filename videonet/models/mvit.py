"""Multiscale vision transformers: MViT (arXiv 2104.11227) and MViTv2 (arXiv 2112.01526).

Reads top to bottom: how a plan of strides becomes one row per block, the block, the network, and
the published variants. Parameter names are those of the official implementation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from videonet.errors import ConfigError
from videonet.models.base import RunBlock, StageInfo, StageOutput, init_linear
from videonet.models.token_stem import TokenStem
from videonet.ops.grid import Grid, volume
from videonet.ops.linear import call_linear
from videonet.ops.mlp import Mlp
from videonet.ops.pooling import max_pool
from videonet.ops.pooling_attention import NORM_EPS, PoolingAttention

StridePlan = Mapping[int, Grid]  # block index -> (t, h, w); blocks left out do not pool


@dataclass(frozen=True)
class BlockPlan:
    """Everything in which one block differs from another."""

    dim: int
    dim_out: int
    num_heads: int
    q_stride: Grid | None
    kv_stride: Grid | None
    window: Grid | None = None  # in cells of its input; None for global attention

    @property
    def downsamples(self) -> bool:
        return self.q_stride is not None and volume(self.q_stride) > 1


def scaled_width(width: int, factor: float, divisor: int = 1) -> int:
    """``width * factor`` rounded to a multiple of `divisor`, never below 90 % of it."""
    scaled = width * factor
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


def plan_blocks(
    depth: int,
    embed_dim: int,
    num_heads: int,
    dim_mul: Mapping[int, float],
    head_mul: Mapping[int, float],
    pool_q_stride: StridePlan,
    pool_kv_stride: StridePlan | None,
    pool_kv_stride_adaptive: Grid | None,
    dim_mul_in_att: bool,
) -> list[BlockPlan]:
    """One row per block.

    With ``pool_kv_stride_adaptive`` the stride of keys and values shrinks by every query stride
    met so far, so that the number of keys stays constant (MViTv2, Sec. 4.1).

    Raises:
        ConfigError: the heads of a block do not divide the width of its attention.
    """
    plans, kv_stride = [], pool_kv_stride_adaptive
    for i in range(depth):
        num_heads = scaled_width(num_heads, head_mul.get(i, 1.0))
        # Width grows in the attention of this block, or in the MLP for the sake of the next.
        grows = i if dim_mul_in_att else i + 1
        divisor = scaled_width(num_heads, head_mul.get(grows, 1.0))
        dim_out = scaled_width(embed_dim, dim_mul.get(grows, 1.0), divisor)
        width = dim_out if dim_mul_in_att else embed_dim
        if width % num_heads:
            raise ConfigError(
                f"the attention of block {i} is {width} wide, which {num_heads} heads do not divide"
            )
        q_stride = pool_q_stride.get(i)
        if pool_kv_stride_adaptive is not None:
            if q_stride is not None:
                kv_stride = tuple(max(k // q, 1) for k, q in zip(kv_stride, q_stride, strict=True))
        else:
            kv_stride = (pool_kv_stride or {}).get(i)
        plans.append(BlockPlan(embed_dim, dim_out, num_heads, q_stride, kv_stride))
        embed_dim = dim_out
    return plans


def stage_ends(plans: Sequence[BlockPlan]) -> list[int]:
    """The last block of each stage: a stage ends where the next block strides."""
    last = len(plans) - 1
    return [i for i in range(last) if plans[i + 1].downsamples] + [last]


def stage_infos(plans: Sequence[BlockPlan], patch_stride: Grid) -> tuple[StageInfo, ...]:
    """Width and strides of the map at the end of each stage."""
    infos, strides = [], tuple(patch_stride)
    for i, plan in enumerate(plans):
        if plan.q_stride is not None:
            strides = tuple(s * q for s, q in zip(strides, plan.q_stride, strict=True))
        if i in stage_ends(plans):
            infos.append(StageInfo(plan.dim_out, strides))
    return tuple(infos)


def with_windows(plans: Sequence[BlockPlan], window: Grid) -> list[BlockPlan]:
    """Hybrid window attention (MViTv2, Sec. 4.2): windows everywhere but in the last block of the
    last three stages.

    Args:
        window: cells (t, h, w) of the first grid; it shrinks with every query stride, so that it
            always covers the same part of the clip.

    Raises:
        ConfigError: a stride does not divide the window.
    """
    global_blocks = stage_ends(plans)[-3:]
    planned = []
    for i, plan in enumerate(plans):
        if i not in global_blocks:
            _check_window(i, window, plan)
            plan = replace(plan, window=window)
        planned.append(plan)
        if plan.q_stride is not None:
            window = tuple(max(w // s, 1) for w, s in zip(window, plan.q_stride, strict=True))
    return planned


def _check_window(block: int, window: Grid, plan: BlockPlan) -> None:
    for stride in filter(None, (plan.q_stride, plan.kv_stride)):
        if any(w % s for w, s in zip(window, stride, strict=True)):
            raise ConfigError(
                f"the window {window} of block {block} is no multiple of its stride {stride}"
            )


def pool_kernel_for(stride: Grid | None, kernel: Grid | None) -> Grid | None:
    """The given kernel, or one that just overlaps the next window: stride + 1 where it strides."""
    if stride is None or kernel is not None:
        return kernel if stride is not None else None
    return tuple(s + 1 if s > 1 else 1 for s in stride)


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
        self.norm1 = nn.LayerNorm(plan.dim, eps=NORM_EPS)
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
        self.norm2 = nn.LayerNorm(dim_att, eps=NORM_EPS)
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


def max_pooled_shortcut(x: Tensor, grid: Grid, stride: Grid, num_prefix_tokens: int) -> Tensor:
    """Tokens (B, num_prefix_tokens + T*H*W, C) with the grid's cells pooled by their maximum."""
    kernel = pool_kernel_for(stride, None)
    first, patches = x.split((num_prefix_tokens, volume(grid)), dim=1)
    pooled, _ = max_pool(patches, grid, kernel, stride)
    return torch.cat((first, pooled), dim=1) if num_prefix_tokens else pooled


class MViT(TokenStem):
    """Multiscale vision transformer for clips and, with one frame, for images.

    Args:
        num_classes, num_frames, crop_size (pixels; an int or (height, width)), in_channels: of
            the clips that positions are made for. Other sizes run too: positions interpolate.
        depth, embed_dim, num_heads, mlp_ratio, qkv_bias: of the transformer.
        patch_kernel, patch_stride, patch_padding: of the stem, (t, h, w).
        dim_mul, head_mul: block index -> factor on the width and on the number of heads.
        pool_q_stride: block index -> (t, h, w); blocks left out do not pool their queries.
        pool_kv_stride: likewise for keys and values, or ``pool_kv_stride_adaptive``: the stride
            of the first block, divided by the query strides that follow.
        pool_kernel: of all poolings; None for stride + 1 in the dimensions that stride.
        pool_mode, pool_first, separate_qkv, residual_pooling, rel_pos_*: see PoolingAttention.
        cls_token: a class token that the head reads, else the mean of all tokens;
            cls_key_log_frames: see PoolingAttention.
        window_size: (t, h, w) cells of the stem's grid for hybrid window attention, without a
            class token; None for global attention in all blocks.
        use_abs_pos, sep_pos_embed: absolute positions, joint or separate in space and time.
        dim_mul_in_att: the width grows in the attention (MViTv2) or in the MLP (MViTv1).
        norm_stem: layer norm after the positions. mean_pooling: head reads the mean of the
            patch tokens, normed after the mean, although there is a class token.
        dropout: in the transformer; head_dropout: before the classifier; drop_path_rate: of the
            last block, rising linearly from 0; head_init_scale: on the classifier's weights.
    """

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 16,
        crop_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        depth: int = 16,
        embed_dim: int = 96,
        num_heads: int = 1,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        patch_kernel: Grid = (3, 7, 7),
        patch_stride: Grid = (2, 4, 4),
        patch_padding: Grid = (1, 3, 3),
        dim_mul: Mapping[int, float] | None = None,
        head_mul: Mapping[int, float] | None = None,
        pool_q_stride: StridePlan | None = None,
        pool_kv_stride: StridePlan | None = None,
        pool_kv_stride_adaptive: Grid | None = None,
        pool_kernel: Grid | None = (3, 3, 3),
        pool_mode: str = "conv",
        pool_first: bool = False,
        separate_qkv: bool = False,
        cls_token: bool = True,
        cls_key_log_frames: bool = False,
        window_size: Grid | None = None,
        use_abs_pos: bool = False,
        sep_pos_embed: bool = False,
        rel_pos_spatial: bool = True,
        rel_pos_temporal: bool = True,
        rel_pos_zero_init: bool = False,
        residual_pooling: bool = True,
        dim_mul_in_att: bool = True,
        norm_stem: bool = False,
        mean_pooling: bool = False,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        head_init_scale: float = 1.0,
    ):
        super().__init__()
        if pool_kv_stride is not None and pool_kv_stride_adaptive is not None:
            raise ConfigError("give pool_kv_stride or pool_kv_stride_adaptive, not both")
        self.still_clips_are_exact = cls_key_log_frames
        self.mean_pooling = mean_pooling
        self.add_stem(
            (num_frames, crop_size),
            in_channels,
            embed_dim,
            kernel=patch_kernel,
            stride=patch_stride,
            padding=patch_padding,
            cls_token=cls_token,
            use_abs_pos=use_abs_pos,
            sep_pos_embed=sep_pos_embed,
            dropout=dropout,
            norm_stem=norm_stem,
        )
        plans = plan_blocks(
            depth,
            embed_dim,
            num_heads,
            dim_mul or {},
            head_mul or {},
            pool_q_stride or {},
            pool_kv_stride,
            pool_kv_stride_adaptive,
            dim_mul_in_att,
        )
        if window_size is not None:
            if cls_token:
                raise ConfigError("window_size is given, but windows need cls_token=False")
            plans = with_windows(plans, tuple(window_size))
        self._add_blocks(
            plans,
            drop_path_rate,
            mlp_ratio=mlp_ratio,
            pool_kernel=pool_kernel,
            dim_mul_in_att=dim_mul_in_att,
            dropout=dropout,
            qkv_bias=qkv_bias,
            pool_mode=pool_mode,
            pool_first=pool_first,
            separate_qkv=separate_qkv,
            rel_pos_spatial=rel_pos_spatial,
            rel_pos_temporal=rel_pos_temporal,
            rel_pos_zero_init=rel_pos_zero_init,
            residual_pooling=residual_pooling,
            cls_token=cls_token,
            cls_key_log_frames=cls_key_log_frames,
        )
        self.num_features = plans[-1].dim_out
        self.feature_info = stage_infos(plans, patch_stride)
        self.norm = nn.LayerNorm(self.num_features, eps=NORM_EPS)
        self.head_dropout, self.head_init_scale = head_dropout, head_init_scale
        self.apply(init_linear)
        self.reset_classifier(num_classes)

    def _add_blocks(self, plans: list[BlockPlan], drop_path_rate: float, **options) -> None:
        self.blocks = nn.ModuleList()
        grid, last = self.grid, len(plans) - 1
        for i, plan in enumerate(plans):
            drop_path = drop_path_rate * i / max(last, 1)
            self.blocks.append(MultiScaleBlock(plan, grid, drop_path=drop_path, **options))
            if plan.downsamples:  # the official tables are made for sizes rounded down
                grid = tuple(n // s for n, s in zip(grid, plan.q_stride, strict=True))
        self.stage_ends = stage_ends(plans)

    def run_stages(self, clip: Tensor, run: RunBlock) -> Iterator[StageOutput]:
        """The tokens (B, [1+]T*H*W, C) at the end of each stage."""
        x, grid = self.embed(clip)
        for i, block in enumerate(self.blocks):
            x, grid = run(block, x, grid)
            if i in self.stage_ends:
                yield StageOutput(x, grid)

    def finish(self, last: StageOutput) -> Tensor:
        """The tokens (B, [1+]N, C), normed unless the norm follows the mean."""
        return last.x if self.mean_pooling else self.norm(last.x)

    def pool_features(self, features: Tensor) -> Tensor:
        """Tokens (B, [1+]N, C) -> one normed vector per clip (B, C)."""
        if self.mean_pooling:
            return self.norm(features[:, int(self.cls_token is not None) :].mean(dim=1))
        return features[:, 0] if self.cls_token is not None else features.mean(dim=1)


@dataclass(frozen=True)
class Variant:
    """A published size: where it doubles its width and halves the frame, and what is its own.

    The settings that papers share are in :func:`build_v1` and :func:`build_v2`.
    """

    depth: int
    stage_starts: tuple[int, ...]
    embed_dim: int = 96
    num_heads: int = 1
    num_frames: int = 16
    crop_size: int = 224
    kv_stride: Grid = (1, 8, 8)  # of keys and values in the first block
    image_kv_stride: Grid = (1, 4, 4)
    image: Mapping[str, object] | None = None  # settings of the image model alone


V1_VARIANTS = {"mvit_v1_b": Variant(16, (1, 3, 14))}  # arXiv 2104.11227, Tab. 2 and 4
V2_VARIANTS = {  # arXiv 2112.01526, Tab. 1 and 10; xs is videonet's own, for CPUs
    "mvit_v2_xs": Variant(3, (1,), 48, num_frames=8, crop_size=48, kv_stride=(1, 4, 4)),
    "mvit_v2_t": Variant(10, (1, 3, 8)),
    "mvit_v2_s": Variant(16, (1, 3, 14)),
    "mvit_v2_b": Variant(24, (2, 5, 21), num_frames=32),
    "mvit_v2_l": Variant(
        48, (2, 8, 44), 144, 2, num_frames=40, crop_size=312, image={"dim_mul_in_att": False}
    ),
    "mvit_v2_h": Variant(80, (4, 12, 72), 192, 3, image={"cls_token": True}),
}


def _arguments(variant: Variant, num_frames: int | None, crop_size) -> dict[str, object]:
    """What all MViTs share: temporal kernels of 1 for one frame, 3 for more."""
    num_frames = variant.num_frames if num_frames is None else num_frames
    if crop_size is None:
        crop_size = 224 if num_frames == 1 else variant.crop_size
    factors = dict.fromkeys(variant.stage_starts, 2.0)
    arguments = {
        "num_frames": num_frames,
        "crop_size": crop_size,
        "depth": variant.depth,
        "embed_dim": variant.embed_dim,
        "num_heads": variant.num_heads,
        "dim_mul": factors,
        "head_mul": factors,
        "pool_kv_stride_adaptive": variant.kv_stride,
    }
    if num_frames == 1:
        arguments |= {
            "patch_kernel": (1, 7, 7),
            "patch_stride": (1, 4, 4),
            "patch_padding": (0, 3, 3),
            "pool_kernel": (1, 3, 3),
            "pool_kv_stride_adaptive": variant.image_kv_stride,
        }
    return arguments


def build_v1(
    variant: Variant, *, num_frames: int | None = None, crop_size=None, **overrides
) -> MViT:
    """MViT (v1): absolute positions, joint for images, separate in space and time for clips."""
    arguments = _arguments(variant, num_frames, crop_size)
    arguments |= {
        "pool_q_stride": dict.fromkeys(variant.stage_starts, (1, 2, 2)),
        "use_abs_pos": True,
        "sep_pos_embed": arguments["num_frames"] > 1,
        "rel_pos_spatial": False,
        "rel_pos_temporal": False,
        "residual_pooling": False,
        "dim_mul_in_att": False,
    }
    return MViT(**(arguments | overrides))


def build_v2(
    variant: Variant, *, num_frames: int | None = None, crop_size=None, **overrides
) -> MViT:
    """MViTv2: every block pools its queries, at stride 1 within a stage.

    The image models have no class token (but for H) and no temporal table.
    """
    arguments = _arguments(variant, num_frames, crop_size)
    starts = set(variant.stage_starts)
    arguments["pool_q_stride"] = {
        i: (1, 2, 2) if i in starts else (1, 1, 1) for i in range(variant.depth)
    }
    if arguments["num_frames"] == 1:
        arguments |= {"cls_token": False, "rel_pos_temporal": False} | dict(variant.image or {})
    return MViT(**(arguments | overrides))


MODELS = {name: partial(build_v1, variant) for name, variant in V1_VARIANTS.items()}
MODELS |= {name: partial(build_v2, variant) for name, variant in V2_VARIANTS.items()}
