"""Convolutional vision transformer: CvT (arXiv 2103.15808) for images and clips.

For clips the convolutions of token embeddings and projections get taps in time. Reads top to
bottom: the block, one stage, the network, the published sizes. Parameter names are those of the
official implementation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.models.base import VideoModel
from videonet.models.initial import drop_path_rates
from videonet.models.positions import learned_tokens
from videonet.models.stages import RunBlock, StageInfo, StageOutput
from videonet.models.variants import published
from videonet.ops.conv_attention import ConvAttention
from videonet.ops.grid import Grid
from videonet.ops.linear import init_linear
from videonet.ops.mlp import Mlp
from videonet.ops.patch_embed import PatchEmbed
from videonet.ops.stochastic_depth import StochasticDepth


class Block(nn.Module):
    """Attention with convolutional projections, then the MLP, both pre-norm."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float,
        activation: str,
        norm_eps: float,
        dropout: float,
        drop_path: float,
        **attention,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = ConvAttention(dim, num_heads, dropout=dropout, **attention)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim, dropout, activation=activation)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, [1+]T*H*W, dim) -> the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x), grid))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Stage(nn.Module):
    """A convolutional token embedding (CvT, Sec. 3.1) and its blocks.

    The class token, if any, lives in this stage alone.

    Args:
        patch_kernel, patch_stride, patch_padding, qkv_kernel, kv_stride, kv_padding: in height
            and width; kv_padding None for ``kernel // 2``.
        temporal_kernel: of all convolutions, padded to keep the frames; temporal_stride: of the
            embedding.
        drop_paths: one rate per block.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int,
        *,
        patch_kernel: int,
        patch_stride: int,
        patch_padding: int,
        qkv_kernel: int,
        kv_stride: int,
        kv_padding: int | None,
        temporal_kernel: int,
        temporal_stride: int,
        drop_paths: Sequence[float],
        cls_token: bool,
        norm_eps: float,
        dropout: float,
        **block,
    ):
        super().__init__()
        same = temporal_kernel // 2
        self.patch_embed = PatchEmbed(
            in_channels,
            dim,
            (temporal_kernel, patch_kernel, patch_kernel),
            (temporal_stride, patch_stride, patch_stride),
            (same, patch_padding, patch_padding),
            nn.LayerNorm(dim, eps=norm_eps),
        )
        self.cls_token = learned_tokens(1, dim) if cls_token else None
        self.dropout = nn.Dropout(dropout)
        kv_padding = qkv_kernel // 2 if kv_padding is None else kv_padding
        self.blocks = nn.ModuleList(
            Block(
                dim,
                kernel=(temporal_kernel, qkv_kernel, qkv_kernel),
                kv_stride=(1, kv_stride, kv_stride),
                kv_padding=(same, kv_padding, kv_padding),
                num_prefix_tokens=int(cls_token),
                norm_eps=norm_eps,
                dropout=dropout,
                drop_path=rate,
                **block,
            )
            for rate in drop_paths
        )

    def forward(self, volume: Tensor, run: RunBlock) -> tuple[Tensor, Grid]:
        """(B, in_channels, T, H, W) -> tokens (B, [1+]T'*H'*W', dim) and their grid."""
        x, grid = self.embed(volume)
        for block in self.blocks:
            x = run(block, x, grid)
        return x, grid

    def embed(self, volume: Tensor) -> tuple[Tensor, Grid]:
        """The tokens before the blocks, and their grid."""
        x, grid = self.patch_embed(volume)
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        return self.dropout(x), grid


def per_stage(count: int, **values) -> list[dict]:
    """One dictionary per stage; a value that is no sequence holds for all stages.

    Raises:
        ConfigError: a sequence has not one entry per stage.
    """
    for name, value in values.items():
        if not isinstance(value, Sequence) or isinstance(value, str):
            values[name] = (value,) * count
        elif len(value) != count:
            raise ConfigError(f"{name} is {value!r}, but there are {count} stages")
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


class CvT(VideoModel):
    """Convolutional vision transformer for clips and, with one frame, for images.

    There are no positions, so every size of clip runs. An argument with one entry per stage may
    also be one value for all of them.

    Args:
        num_classes, num_frames, crop_size (pixels; an int or (height, width)), in_channels: of
            the clips that the model is for.
        depths, embed_dims, num_heads, mlp_ratio, qkv_bias: per stage.
        patch_kernel, patch_stride, patch_padding: of the token embeddings in height and width,
            per stage; temporal_stride: in time.
        qkv_kernel, kv_stride, kv_padding: of the projections in height and width, per stage;
            kv_padding None for ``kernel // 2``.
        projection: "dw_bn" or "avg", see ConvAttention, per stage.
        temporal_kernel: taps in time of all convolutions; None for 1 in images and 3 in clips.
        cls_token: a class token in the last stage, which the head reads, else the mean of all
            tokens; or one truth value per stage. None for True. cls_key_log_frames: see
            SelfAttention.
        activation: "quick_gelu" (official), or "gelu" (of transformers, whatever the weights).
        norm_eps: of the layer norms.
        dropout: in the transformer; head_dropout: before the classifier; drop_path_rate: of the
            last block, rising linearly from 0 within the last stage, as in the official configs.
        centre_clips: the mean colour of a clip is taken away first, see VideoModel.as_clip.
    """

    norm: nn.LayerNorm
    block_names = re.compile(r"stage\d+\.blocks\.\d+(?=\.)")

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 16,
        crop_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        depths: Sequence[int] = (1, 2, 10),
        embed_dims: Sequence[int] = (64, 192, 384),
        num_heads: Sequence[int] = (1, 3, 6),
        mlp_ratio: float | Sequence[float] = 4.0,
        qkv_bias: bool | Sequence[bool] = True,
        patch_kernel: int | Sequence[int] = (7, 3, 3),
        patch_stride: int | Sequence[int] = (4, 2, 2),
        patch_padding: int | Sequence[int] = (2, 1, 1),
        temporal_stride: int | Sequence[int] = 1,
        qkv_kernel: int | Sequence[int] = 3,
        kv_stride: int | Sequence[int] = 2,
        kv_padding: int | Sequence[int] | None = None,
        projection: str | Sequence[str] = "dw_bn",
        temporal_kernel: int | None = None,
        cls_token: bool | Sequence[bool] | None = None,
        cls_key_log_frames: bool = False,
        activation: str = "quick_gelu",
        norm_eps: float = 1e-5,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        centre_clips: bool = False,
    ):
        super().__init__(centre_clips)
        count = len(depths)
        if cls_token is None or isinstance(cls_token, bool):
            cls_token = (False,) * (count - 1) + (cls_token is not False,)
        if temporal_kernel is None:
            temporal_kernel = 1 if num_frames == 1 else 3
        self.crop_size, self.still_clips_are_exact = crop_size, cls_key_log_frames
        rates = drop_path_rates(drop_path_rate, depths[-1])
        plans = per_stage(
            count,
            dim=embed_dims,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            patch_kernel=patch_kernel,
            patch_stride=patch_stride,
            patch_padding=patch_padding,
            temporal_stride=temporal_stride,
            qkv_kernel=qkv_kernel,
            kv_stride=kv_stride,
            kv_padding=kv_padding,
            projection=projection,
            cls_token=cls_token,
            drop_paths=[*([0.0] * depth for depth in depths[:-1]), rates],
        )
        for i, plan in enumerate(plans):
            stage = Stage(
                in_channels,
                temporal_kernel=temporal_kernel,
                activation=activation,
                norm_eps=norm_eps,
                dropout=dropout,
                cls_key_log_frames=cls_key_log_frames,
                **plan,
            )
            self.add_module(f"stage{i}", stage)
            in_channels = plan["dim"]
        self.smallest = plans[0]["patch_kernel"] - 2 * plans[0]["patch_padding"]
        self.num_features = in_channels
        self.feature_info = _stage_infos(plans)
        self.norm = nn.LayerNorm(in_channels, eps=norm_eps)
        self.head_dropout = head_dropout
        self.apply(init_linear)
        self.reset_classifier(num_classes)

    @property
    def stages(self) -> list[Stage]:
        """The stages from input to output."""
        return [getattr(self, f"stage{i}") for i in range(len(self.feature_info))]

    def run_stages(self, clip: Tensor, run: RunBlock) -> Iterator[StageOutput]:
        """The tokens (B, [1+]T'*H'*W', C) at the end of each stage."""
        volume = self.as_clip(clip, (self.smallest, self.smallest))
        for stage in self.stages:
            output = StageOutput(*stage(volume, run))
            yield output
            (volume,) = output.maps()

    def finish(self, last: StageOutput) -> Tensor:
        """The tokens (B, [1+]N, C), normed where the head reads their mean."""
        x = last.tensor()
        return x if self.stages[-1].cls_token is not None else self.norm(x)

    def pool_features(self, features: Tensor) -> Tensor:
        """Tokens (B, [1+]N, C) -> one normed vector per clip (B, C)."""
        if self.stages[-1].cls_token is not None:
            return self.norm(features[:, 0])
        return features.mean(dim=1)


def _stage_infos(plans: Sequence[dict]) -> tuple[StageInfo, ...]:
    infos, time, space = [], 1, 1
    for plan in plans:
        time, space = time * plan["temporal_stride"], space * plan["patch_stride"]
        infos.append(StageInfo(plan["dim"], (time, space, space)))
    return tuple(infos)


VARIANTS: dict[str, dict[str, Any]] = {  # arXiv 2103.15808, Tab. 2; xs is videonet's own
    "cvt_xs": {
        "cls_token": False,
        "depths": (1, 2),
        "embed_dims": (48, 96),
        "num_heads": (1, 2),
        "patch_kernel": (7, 3),
        "patch_stride": (4, 2),
        "patch_padding": (2, 1),
        "num_frames": 8,
        "crop_size": 48,
    },
    "cvt_13": {},
    "cvt_21": {"depths": (1, 4, 16)},
    "cvt_w24": {
        "depths": (2, 2, 20),
        "embed_dims": (192, 768, 1024),
        "num_heads": (3, 12, 16),
        "crop_size": 384,
    },
}
MODELS = published(CvT, VARIANTS)
