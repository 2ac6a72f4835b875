"""What MViT and its reversible sibling share: the plan of their blocks, patches and positions.

Sources: MViT (arXiv 2104.11227) and MViTv2 (arXiv 2112.01526).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.models.base import VideoModel
from videonet.models.positions import AbsolutePositions, learned_tokens
from videonet.models.stages import StageInfo
from videonet.ops.grid import Grid, strided, volume
from videonet.ops.linear import init_linear
from videonet.ops.patch_embed import PatchEmbed
from videonet.ops.pooling import max_pool
from videonet.ops.pooling_attention import NORM_EPS

POSITION_RESIZES = ("trilinear", "bicubic")
StridePlan = Mapping[int, Grid]  # block index -> (t, h, w); blocks left out do not pool


@dataclass(frozen=True)
class BlockPlan:
    """Everything in which one block differs from another.

    Attributes:
        dim: width of its input.
        dim_out: width of its output.
        num_heads: of its attention.
        q_stride: stride (t, h, w) of the pooling of queries; None for no pooling.
        kv_stride: the same for keys and values.
        window: (t, h, w) cells of its input that attend to each other; None for all of them.
    """

    dim: int
    dim_out: int
    num_heads: int
    q_stride: Grid | None
    kv_stride: Grid | None
    window: Grid | None = None

    @property
    def downsamples(self) -> bool:
        """Whether its output has fewer cells than its input."""
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
    """One row per block; the arguments are those of :class:`MultiscaleTransformer`.

    With ``pool_kv_stride_adaptive`` the stride of keys and values shrinks by every query stride
    met so far, so that the number of keys stays constant (MViTv2, Sec. 4.1).

    Raises:
        ConfigError: the heads of a block do not divide the width of its attention.
    """
    plans, kv_stride = [], pool_kv_stride_adaptive
    for i in range(depth):
        num_heads = scaled_width(num_heads, head_mul.get(i, 1.0))
        # Width grows in the attention of this block, or in the MLP of the block before.
        grows = i if dim_mul_in_att else i + 1
        divisor = scaled_width(num_heads, head_mul.get(grows, 1.0))
        dim_out = scaled_width(embed_dim, dim_mul.get(grows, 1.0), divisor)
        width = dim_out if dim_mul_in_att else embed_dim
        if width % num_heads:
            raise ConfigError(
                f"the attention of block {i} is {width} wide, which {num_heads} heads do not divide"
            )
        q_stride = pool_q_stride.get(i)
        if pool_kv_stride_adaptive is None:
            kv_stride = (pool_kv_stride or {}).get(i)
        elif kv_stride is not None and q_stride is not None:
            kv_stride = strided(kv_stride, q_stride, least=1)
        plans.append(BlockPlan(embed_dim, dim_out, num_heads, q_stride, kv_stride))
        embed_dim = dim_out
    return plans


def stage_ends(plans: Sequence[BlockPlan]) -> list[int]:
    """The last block of each stage: a stage ends where the next block strides."""
    last = len(plans) - 1
    return [i for i in range(last) if plans[i + 1].downsamples] + [last]


def stage_infos(plans: Sequence[BlockPlan], patch_stride: Grid) -> tuple[StageInfo, ...]:
    """Width and strides of the map at the end of each stage."""
    infos, ends = [], stage_ends(plans)
    t, h, w = patch_stride
    for i, plan in enumerate(plans):
        if plan.q_stride is not None:
            t, h, w = t * plan.q_stride[0], h * plan.q_stride[1], w * plan.q_stride[2]
        if i in ends:
            infos.append(StageInfo(plan.dim_out, (t, h, w)))
    return tuple(infos)


def pool_kernel_for(stride: Grid | None, kernel: Grid | None) -> Grid | None:
    """The kernel of a pooling.

    Args:
        stride: (t, h, w); None for no pooling, which has no kernel.
        kernel: that of all poolings; None for stride + 1 in the dimensions that stride, so that
            neighbouring windows just overlap.
    """
    if stride is None or kernel is not None:
        return None if stride is None else kernel
    t, h, w = (s + 1 if s > 1 else 1 for s in stride)
    return t, h, w


def max_pooled_shortcut(x: Tensor, grid: Grid, stride: Grid, num_prefix_tokens: int) -> Tensor:
    """Pool the cells by their maximum; prefix tokens stay as they are.

    Args:
        x: (B, num_prefix_tokens + T*H*W, C).
        grid: (T, H, W).
        stride: of the pooling; its kernel is that of :func:`pool_kernel_for`.
        num_prefix_tokens: tokens before the cells.

    Returns:
        (B, num_prefix_tokens + T'*H'*W', C).
    """
    kernel = pool_kernel_for(stride, None) or stride
    first, patches = x.split((num_prefix_tokens, volume(grid)), dim=1)
    pooled, _ = max_pool(patches, grid, kernel, stride)
    return torch.cat((first, pooled), dim=1) if num_prefix_tokens else pooled


class AttentionOptions(TypedDict):
    """What the attentions of all blocks are given alike, see ``PoolingAttention``."""

    qkv_bias: bool
    pool_mode: str
    pool_first: bool
    separate_qkv: bool
    rel_pos_spatial: bool
    rel_pos_temporal: bool
    rel_pos_zero_init: bool
    residual_pooling: bool
    residual_with_cls_token: bool
    cls_token: bool
    cls_key_log_frames: bool
    padded_keys: bool
    norm_eps: float
    dropout: float


class MultiscaleTransformer(VideoModel, AbsolutePositions):
    """Base of MViT and of the reversible MViT: all but the blocks and what joins them.

    Args:
        num_frames, crop_size (pixels; an int or (height, width)), in_channels: of the clips that
            positions are made for. Other sizes run too: positions interpolate.
        depth, embed_dim, num_heads, mlp_ratio, qkv_bias: of the transformer.
        patch_kernel, patch_stride, patch_padding: of the stem, (t, h, w).
        dim_mul, head_mul: block index -> factor on the width and on the number of heads.
        pool_q_stride: block index -> (t, h, w); blocks left out do not pool their queries.
        pool_kv_stride: likewise for keys and values, or ``pool_kv_stride_adaptive``: the stride
            of the first block, divided by the query strides that follow.
        pool_kernel: of all poolings; None for stride + 1 in the dimensions that stride.
        pool_mode, pool_first, separate_qkv, residual_pooling, residual_with_cls_token, rel_pos_*:
            see :class:`videonet.ops.pooling_attention.PoolingAttention`.
        cls_token: a class token that the head reads, else the mean of all tokens;
            cls_key_log_frames: see PoolingAttention.
        use_abs_pos, sep_pos_embed: absolute positions, joint or separate in space and time;
            position_size: the frames that they are made for, None for crop_size;
            position_resize: how they are resized to others, "trilinear", or "bicubic" in space
            and linear in time; antialias_positions: "bicubic" with antialiasing.
        dim_mul_in_att: the width grows in the attention (MViTv2) or in the MLP (MViTv1).
        norm_stem: layer norm after the positions; norm_eps: of all norms. mean_pooling: head
            reads the mean of the patch tokens, normed after the mean, although there is a class
            token.
        padded_keys: of windows, see PoolingAttention.
        dropout: in the transformer; head_dropout: before the classifier; drop_path_rate: of the
            last block, rising linearly from 0; head_init_scale: on the classifier's weights.
        centre_clips: the mean colour of a clip is taken away first, see VideoModel.as_clip.

    Raises:
        ConfigError: both strides of keys and values are given, or heads do not divide a width.
    """

    undecayed = ("cls_token", "pos_embed", "rel_pos_")

    def __init__(
        self,
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
        use_abs_pos: bool = False,
        sep_pos_embed: bool = False,
        position_size: int | tuple[int, int] | None = None,
        position_resize: str = "trilinear",
        antialias_positions: bool = False,
        rel_pos_spatial: bool = True,
        rel_pos_temporal: bool = True,
        rel_pos_zero_init: bool = False,
        residual_pooling: bool = True,
        residual_with_cls_token: bool = False,
        dim_mul_in_att: bool = True,
        norm_stem: bool = False,
        norm_eps: float = NORM_EPS,
        padded_keys: bool = False,
        mean_pooling: bool = False,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        centre_clips: bool = False,
        head_init_scale: float = 1.0,
    ):
        super().__init__(centre_clips)
        if pool_kv_stride is not None and pool_kv_stride_adaptive is not None:
            raise ConfigError("give pool_kv_stride or pool_kv_stride_adaptive, not both")
        if position_resize not in POSITION_RESIZES:
            raise ConfigError(
                f"position_resize is {position_resize!r}, expected {' or '.join(POSITION_RESIZES)}"
            )
        self.position_resize, self.antialias_positions = position_resize, antialias_positions
        self.plans = plan_blocks(
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
        self.mlp_ratio, self.pool_kernel = mlp_ratio, pool_kernel
        self.dim_mul_in_att, self.drop_path_rate = dim_mul_in_att, drop_path_rate
        self.attention_options: AttentionOptions = {
            "qkv_bias": qkv_bias,
            "pool_mode": pool_mode,
            "pool_first": pool_first,
            "separate_qkv": separate_qkv,
            "rel_pos_spatial": rel_pos_spatial,
            "rel_pos_temporal": rel_pos_temporal,
            "rel_pos_zero_init": rel_pos_zero_init,
            "residual_pooling": residual_pooling,
            "residual_with_cls_token": residual_with_cls_token,
            "cls_token": cls_token,
            "cls_key_log_frames": cls_key_log_frames,
            "padded_keys": padded_keys,
            "norm_eps": norm_eps,
            "dropout": dropout,
        }
        self.still_clips_are_exact = cls_key_log_frames
        self.mean_pooling = mean_pooling
        self.head_dropout, self.head_init_scale = head_dropout, head_init_scale

        self.patch_stride = patch_stride
        self.patch_embed = PatchEmbed(
            in_channels, embed_dim, patch_kernel, patch_stride, patch_padding
        )
        self.first_grid = self._stem_grid(num_frames, crop_size)
        self.cls_token = learned_tokens(1, embed_dim) if cls_token else None
        self.add_positions(
            self._stem_grid(num_frames, crop_size if position_size is None else position_size),
            embed_dim,
            int(cls_token),
            use=use_abs_pos,
            separate=sep_pos_embed,
        )
        self.dropout = nn.Dropout(dropout)
        self.norm_stem = nn.LayerNorm(embed_dim, eps=norm_eps) if norm_stem else None

    def _stem_grid(self, num_frames: int, size: int | tuple[int, int]) -> Grid:
        """The cells of the stem for clips of this size; official tables round it down."""
        height, width = (size, size) if isinstance(size, int) else size
        frames = max(num_frames, self.patch_stride[0])
        return strided((frames, height, width), self.patch_stride)

    def add_head(
        self, num_classes: int, num_features: int, output_norms: bool | Sequence[int] = False
    ) -> None:
        """Add the last norms and the classifier, and initialise all layers; call it last.

        Args:
            num_classes: 0 for no classifier.
            num_features: width of the tokens that the norm gets.
            output_norms: norms of the stages' maps instead, see ``VideoModel.add_norms``.
        """
        self.num_features = num_features
        self.add_norms(output_norms, partial(nn.LayerNorm, eps=self.attention_options["norm_eps"]))
        self.apply(init_linear)
        self.reset_classifier(0 if self.output_norms else num_classes)

    def embed(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """Stem and positions: a clip -> tokens (B, [1+]T*H*W, C) and their grid."""
        x, grid = self.patch_embed(self.as_clip(clip, self.patch_stride[1:]))
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        positions = self.absolute_positions(grid)
        if positions is not None:
            x = x + positions
        x = self.dropout(x)
        return (x if self.norm_stem is None else self.norm_stem(x)), grid

    def pool_features(self, features: Tensor) -> Tensor:
        """Tokens (B, [1+]N, C) -> one normed vector per clip (B, C)."""
        if self.mean_pooling:
            return self.norm_last(features[:, int(self.cls_token is not None) :].mean(dim=1))
        return features[:, 0] if self.cls_token is not None else features.mean(dim=1)
