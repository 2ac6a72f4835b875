"""DilateFormer: multi-scale dilated attention, then global attention (arXiv 2302.01791).

Reads top to bottom: the tokenizer, the two kinds of attention in one block, the stage, the network
and the published variants. Parameter names are those of the official implementation, whose
kernels are flat. Where the paper speaks of windows in a frame, these reach over frames too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.models.base import VideoModel, refuse_class_token
from videonet.models.initial import stage_drop_path_rates
from videonet.models.stages import (
    ModuleListOf,
    RunBlock,
    Stage,
    StageInfo,
    StageOutput,
    run_stages_in_turn,
)
from videonet.models.variants import published
from videonet.ops.conv import FastConv3d, depthwise
from videonet.ops.dilated_attention import MultiScaleDilatedAttention
from videonet.ops.grid import Grid, as_grid, same_padding
from videonet.ops.linear import init_linear
from videonet.ops.mlp import Mlp
from videonet.ops.self_attention import FullAttention
from videonet.ops.stochastic_depth import StochasticDepth
from videonet.ops.tracing import is_traced

NORM_EPS = 1e-6
TOKENIZER_WIDTH = 16  # of the tokenizer's first convolution
# Kernel and stride in space of the tokenizer's four convolutions; each gives 1/4 of the frame.
TOKENIZERS = {
    "overlapping": ((3, 1), (3, 2), (3, 1), (3, 2)),
    "pointwise": ((3, 2), (1, 1), (3, 2), (1, 1)),
}
MERGING_KERNELS = {"conv3_2": 3, "conv2_2": 2}


class Tokenizer(nn.Module):
    """The stem: four convolutions, or with "patches" one that cuts patches without overlap.

    The first convolution is the one that sees several frames and strides in time.
    """

    proj: FastConv3d | nn.Sequential

    def __init__(
        self,
        in_channels: int,
        dim: int,
        kind: str,
        patch_size: int,
        temporal_kernel: int,
        temporal_stride: int,
    ):
        super().__init__()
        if kind != "patches" and kind not in TOKENIZERS:
            kinds = ", ".join(TOKENIZERS)
            raise ConfigError(f"tokenizer is {kind!r}, expected {kinds} or patches")
        if kind == "patches":
            kernel, stride = (
                (temporal_kernel, patch_size, patch_size),
                (temporal_stride, patch_size, patch_size),
            )
            self.proj = FastConv3d(in_channels, dim, kernel, stride, (temporal_kernel // 2, 0, 0))
            return
        widths = [in_channels, *(TOKENIZER_WIDTH * 2**i for i in range(3)), dim]
        layers: list[nn.Module] = []
        for i, (size, step) in enumerate(TOKENIZERS[kind]):
            frames, every = (temporal_kernel, temporal_stride) if i == 0 else (1, 1)
            kernel, stride = (frames, size, size), (every, step, step)
            padding = same_padding(kernel)
            if i:
                layers += [nn.BatchNorm3d(widths[i]), nn.GELU()]
            layers.append(FastConv3d(widths[i], widths[i + 1], kernel, stride, padding, bias=False))
        self.proj = nn.Sequential(*layers)

    def forward(self, clip: Tensor) -> Tensor:
        """(B, in_channels, T, H, W) -> (B, T', H', W', dim)."""
        if clip.is_cpu and not is_traced():  # convolutions and norms are faster that way
            clip = clip.contiguous(memory_format=torch.channels_last_3d)
        return self.proj(clip).permute(0, 2, 3, 4, 1).contiguous()


class GlobalAttention(FullAttention):
    """Attention of every token of the clip to every other."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, dim) -> the same."""
        return self.attend(x.flatten(1, 3), as_grid(x.shape[1:4])).reshape(x.shape)


class DilateBlock(nn.Module):
    """Conditional positions, attention of either kind, MLP; each added to what came in."""

    def __init__(
        self,
        dim: int,
        attn: nn.Module,
        *,
        temporal_kernel: int,
        mlp_ratio: float,
        positions: bool,
        dropout: float,
        drop_path: float,
    ):
        super().__init__()
        self.pos_embed = depthwise(dim, temporal_kernel, 3) if positions else None
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim, dropout)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, dim) -> the same."""
        if self.pos_embed is not None:
            x = x + self.pos_embed(x)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ConvMerging(nn.Module):
    """A convolution and batch norm that halve the frame and double the width."""

    def __init__(self, dim: int, way: str, positions: bool, temporal_kernel: int):
        super().__init__()
        if way not in MERGING_KERNELS:
            ways = " or ".join(MERGING_KERNELS)
            raise ConfigError(f"merging_way is {way!r}, expected {ways}")
        size = MERGING_KERNELS[way]
        padding = (size - 1) // 2
        self.proj = nn.Sequential(
            FastConv3d(dim, 2 * dim, (1, size, size), (1, 2, 2), (0, padding, padding)),
            nn.BatchNorm3d(2 * dim),
        )
        self.pos_embed = depthwise(2 * dim, temporal_kernel, 3) if positions else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, dim) -> (B, T, H', W', 2*dim)."""
        x = self.proj(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1).contiguous()
        return x if self.pos_embed is None else x + self.pos_embed(x)


class DilateFormer(VideoModel):
    """DilateFormer for clips and, with one frame, for images; frames of any size.

    Args:
        num_classes, in_channels: of the task and of the clip.
        num_frames: 1 builds the image model, which has temporal kernels and strides of 1.
        crop_size: every architecture takes it; nothing here depends on it.
        embed_dim, depths, num_heads: width of the first stage, which doubles with each stage;
            blocks and heads of each stage.
        kernel_size, temporal_kernel: taps of the windows in space and in time. The latter is
            also that of the positions and of the tokenizer.
        dilation: distance of the taps in space, one per group of heads.
        temporal_dilation: distance of the taps in time, one for all groups or one per group.
        dilate_attention: per stage, whether attention is windowed or global.
        temporal_stride: of the tokenizer.
        tokenizer: "overlapping", "pointwise" or "patches" (of patch_size pixels).
        merging_way: "conv3_2" (overlapping) or "conv2_2".
        positions_per_block, positions_per_stage: where conditional positions are added.
        mlp_ratio, qkv_bias, qk_scale: of the blocks.
        cls_token: there is none, so True is an error.
        dropout: in the MLPs; head_dropout: before the classifier; drop_path_rate: of the last
            block, rising linearly from 0.
        centre_clips: the mean colour of a clip is taken away first, see VideoModel.as_clip.

    Raises:
        ConfigError: arguments that contradict each other.
    """

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 16,
        crop_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        kernel_size: int = 3,
        temporal_kernel: int = 3,
        dilation: Sequence[int] = (1, 2, 3),
        temporal_dilation: int | Sequence[int] = 1,
        dilate_attention: Sequence[bool] = (True, True, False, False),
        temporal_stride: int = 2,
        tokenizer: str = "overlapping",
        patch_size: int = 4,
        merging_way: str = "conv3_2",
        positions_per_block: bool = True,
        positions_per_stage: bool = False,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        cls_token: bool | None = None,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        centre_clips: bool = False,
    ):
        super().__init__(centre_clips)
        refuse_class_token(self, cls_token)
        if num_frames == 1:
            temporal_kernel, temporal_stride = 1, 1
        if not len(depths) == len(num_heads) == len(dilate_attention):
            raise ConfigError(
                f"depths ({len(depths)}), num_heads ({len(num_heads)}) and dilate_attention "
                f"({len(dilate_attention)}) need one entry per stage"
            )
        dilations = _dilations(dilation, temporal_dilation)
        self.patch_embed = Tokenizer(
            in_channels, embed_dim, tokenizer, patch_size, temporal_kernel, temporal_stride
        )
        self.patch_size = patch_size if tokenizer == "patches" else 4

        def attention(stage: int, dim: int) -> nn.Module:
            heads = num_heads[stage]
            if not dilate_attention[stage]:
                return GlobalAttention(dim, heads, qkv_bias=qkv_bias, qk_scale=qk_scale)
            kernel = (temporal_kernel, kernel_size, kernel_size)
            return MultiScaleDilatedAttention(dim, heads, kernel, dilations, qkv_bias, qk_scale)

        self.stages: ModuleListOf[Stage] = ModuleListOf()
        for i, rates in enumerate(stage_drop_path_rates(drop_path_rate, depths)):
            dim, last = embed_dim * 2**i, i == len(depths) - 1
            blocks = [
                DilateBlock(
                    dim,
                    attention(i, dim),
                    temporal_kernel=temporal_kernel,
                    mlp_ratio=mlp_ratio,
                    positions=positions_per_block,
                    dropout=dropout,
                    drop_path=rate,
                )
                for rate in rates
            ]
            merging = (
                None
                if last
                else ConvMerging(dim, merging_way, positions_per_stage, temporal_kernel)
            )
            self.stages.append(Stage(blocks, merging))
        self.num_features = dim
        self.feature_info = tuple(
            StageInfo(embed_dim * 2**i, (temporal_stride, *[self.patch_size * 2**i] * 2))
            for i in range(len(depths))
        )
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.head_dropout = head_dropout
        self.apply(init_linear)
        self.reset_classifier(num_classes)

    def run_stages(self, clip: Tensor, run: RunBlock) -> Iterator[StageOutput]:
        """The tokens (B, T', H', W', C) at the end of each stage."""
        x = self.patch_embed(self.as_clip(clip, (self.patch_size, self.patch_size)))
        return run_stages_in_turn(self.stages, x, run)

    def pool_features(self, features: Tensor) -> Tensor:
        """Normed tokens (B, T, H, W, C) -> their mean (B, C)."""
        return features.mean(dim=(1, 2, 3))


def _dilations(space: Sequence[int], time: int | Sequence[int]) -> list[Grid]:
    """(t, h, w) of each group of heads."""
    time = [time] * len(space) if isinstance(time, int) else list(time)
    if len(time) != len(space):
        raise ConfigError(
            f"temporal_dilation has {len(time)} entries and dilation {len(space)}: they need one "
            "each per group of heads"
        )
    return [(t, s, s) for t, s in zip(time, space, strict=True)]


VARIANTS: dict[str, dict[str, Any]] = {  # arXiv 2302.01791, Tab. II
    "dilateformer_xs": {  # videonet's own, for CPUs
        "embed_dim": 48,
        "depths": (1, 2),
        "num_heads": (3, 6),
        "dilate_attention": (True, False),
        "num_frames": 8,
        "crop_size": 48,
        "image": {"crop_size": 224},
    },
    "dilateformer_t": {"embed_dim": 72, "depths": (2, 2, 6, 2)},
    "dilateformer_s": {"embed_dim": 72, "depths": (3, 5, 8, 3)},
    "dilateformer_b": {"embed_dim": 96, "depths": (4, 8, 10, 3)},
}
MODELS = published(DilateFormer, VARIANTS)
