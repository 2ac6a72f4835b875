"""CycleMLP (arXiv 2107.10224): linear layers over neighbours that change from channel to channel.

Reads top to bottom: the mixing of tokens, the block, the network, the published variants.
Parameter names are those of the official implementation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.models.base import VideoModel, refuse_class_token
from videonet.models.initial import linear_initializer, stage_drop_path_rates
from videonet.models.stages import BlockList, RunBlock, StageInfo, StageOutput
from videonet.models.variants import published
from videonet.ops.conv import TokenConv
from videonet.ops.mlp import Mlp
from videonet.ops.patch_embed import PatchEmbed
from videonet.ops.shift import HEIGHT, TIME, WIDTH, CycleFC
from videonet.ops.stochastic_depth import StochasticDepth

BLOCK_NORM_EPS = 1e-5
NEIGHBOURS = 3  # of a Cycle-FC along its axis (Sec. 3.2: 1×3 and 3×1)


class CycleMixer(nn.Module):
    """Cycle-FCs along width and height and a linear layer over channels, weighed and summed.

    The weights are split attention: of each channel, a softmax over the three branches that
    depends on the mean of their sum. In a clip a Cycle-FC along time, ``temporal_proj``, is a
    fourth branch: it takes part in that mean and is added unweighed, so that the other three
    are what they are in an image while it is zero.
    """

    def __init__(self, dim: int, qkv_bias: bool, temporal_size: int):
        super().__init__()
        self.mlp_c = nn.Linear(dim, dim, bias=qkv_bias)
        # The official names say which axis stays: sfc_h mixes along the width.
        self.sfc_h = CycleFC(dim, dim, NEIGHBOURS, WIDTH)
        self.sfc_w = CycleFC(dim, dim, NEIGHBOURS, HEIGHT)
        self.temporal_proj = CycleFC(dim, dim, temporal_size, TIME) if temporal_size else None
        self.reweight = Mlp(dim, dim // 4, dim * 3)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, C) -> (B, T, H, W, C)."""
        h, w, c = self.sfc_h(x), self.sfc_w(x), self.mlp_c(x)
        t = 0 if self.temporal_proj is None else self.temporal_proj(x)
        mean = (h + w + c + t).mean(dim=(1, 2, 3))  # (B, C)
        a = self.reweight(mean).unflatten(1, (-1, 3)).softmax(dim=2)  # (B, C, 3)
        a = a[:, None, None, None].unbind(-1)  # 3 × (B, 1, 1, 1, C)
        return self.proj(h * a[0] + w * a[1] + c * a[2] + t)


class CycleBlock(nn.Module):
    """Mixing of tokens, then of channels; both residuals are divided by `skip_lam`."""

    def __init__(
        self,
        dim: int,
        *,
        mlp_ratio: float,
        qkv_bias: bool,
        skip_lam: float,
        temporal_size: int,
        drop_path: float,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.attn = CycleMixer(dim, qkv_bias, temporal_size)
        self.norm2 = nn.LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim)
        self.drop_path = StochasticDepth(drop_path, "row")
        self.skip_lam = skip_lam

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, C) -> (B, T, H, W, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x))) / self.skip_lam
        return x + self.drop_path(self.mlp(self.norm2(x))) / self.skip_lam


class Downsample(nn.Module):
    """A 3×3 convolution that halves height and width."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.proj = TokenConv(dim, dim_out, (1, 3, 3), (1, 2, 2), (0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, dim) -> (B, T, H/2, W/2, dim_out), rounded up."""
        return self.proj(x)


class CycleMLP(VideoModel):
    """CycleMLP for clips and, with one frame, for images; frames of any size.

    Args:
        num_classes, in_channels: of the task and of the clip.
        num_frames: 1 builds the image model, which has nothing along time.
        crop_size: every architecture takes it; nothing here depends on it.
        layers, embed_dims, mlp_ratios: number of blocks, width and MLP ratio of each stage.
        transitions: per stage, whether the one after it has half the height and width; all by
            default.
        patch_kernel, patch_stride, patch_padding: of the stem in height and width, in pixels;
            temporal_kernel, temporal_stride: the same in time, in a clip; patch_norm: a layer norm
            behind it.
        temporal_size: neighbours of the Cycle-FC along time, in a clip; 0 for none.
        qkv_bias: a bias in the branch over channels.
        skip_lam: divisor of the residuals.
        norm_eps: of the norm in front of the head, or of those of the outputs.
        output_norms: a norm per stage and no classifier (``fork_feat`` of the official code), see
            :meth:`videonet.models.base.VideoModel.add_norms`.
        cls_token: refused: there is none.
        drop_path_rate: of the last block, rising linearly from 0; head_dropout: before the
            classifier.
        linear_init: of linear layers: "normal" with deviation 0.02, or "xavier".
        centre_clips: the mean colour of a clip is taken away first, see VideoModel.as_clip.
    """

    block_names = re.compile(r"network\.\d+\.\d+(?=\.)")

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 16,
        crop_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        layers: Sequence[int] = (2, 2, 4, 2),
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        mlp_ratios: Sequence[float] = (4, 4, 4, 4),
        transitions: Sequence[bool] | None = None,
        patch_kernel: int = 7,
        patch_stride: int = 4,
        patch_padding: int = 2,
        temporal_kernel: int = 3,
        temporal_stride: int = 2,
        patch_norm: bool = False,
        temporal_size: int = 3,
        qkv_bias: bool = False,
        skip_lam: float = 1.0,
        norm_eps: float = 1e-5,
        output_norms: bool | Sequence[int] = False,
        cls_token: bool | None = None,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        centre_clips: bool = False,
        linear_init: str = "normal",
    ):
        super().__init__(centre_clips)
        init = linear_initializer(linear_init)
        refuse_class_token(self, cls_token)
        if not len(layers) == len(embed_dims) == len(mlp_ratios):
            raise ConfigError(
                f"layers, embed_dims and mlp_ratios have {len(layers)}, {len(embed_dims)} and "
                f"{len(mlp_ratios)} entries, but each has one per stage"
            )
        if num_frames == 1:
            temporal_kernel, temporal_stride, temporal_size = 1, 1, 0
        self.patch_embed = PatchEmbed(
            in_channels,
            embed_dims[0],
            (temporal_kernel, patch_kernel, patch_kernel),
            (temporal_stride, patch_stride, patch_stride),
            (temporal_kernel // 2, patch_padding, patch_padding),
            nn.LayerNorm(embed_dims[0], eps=norm_eps) if patch_norm else None,
        )
        self.smallest = max(patch_kernel - 2 * patch_padding, patch_stride)
        self._add_stages(
            layers,
            embed_dims,
            mlp_ratios,
            transitions or (True,) * len(layers),
            drop_path_rate,
            qkv_bias=qkv_bias,
            skip_lam=skip_lam,
            temporal_size=temporal_size,
        )
        self.num_features = embed_dims[-1]
        self.feature_info = self._stage_infos(embed_dims, temporal_stride, patch_stride)
        self.head_dropout = head_dropout
        self.add_norms(output_norms, partial(nn.LayerNorm, eps=norm_eps))
        self.apply(init)
        self.reset_classifier(0 if self.output_norms else num_classes)

    def _add_stages(
        self,
        layers: Sequence[int],
        dims: Sequence[int],
        mlp_ratios: Sequence[float],
        transitions: Sequence[bool],
        drop_path_rate: float,
        **options,
    ) -> None:
        """``network``: the stages, with a downsampling between two of them."""
        self.network = nn.ModuleList()
        self.stage_ends: list[int] = []  # their places in `network`
        for i, rates in enumerate(stage_drop_path_rates(drop_path_rate, layers)):
            self.stage_ends.append(len(self.network))
            self.network.append(
                BlockList(
                    CycleBlock(dims[i], mlp_ratio=mlp_ratios[i], drop_path=rate, **options)
                    for rate in rates
                )
            )
            if i == len(layers) - 1:
                break
            if transitions[i]:
                self.network.append(Downsample(dims[i], dims[i + 1]))
            elif dims[i] != dims[i + 1]:
                raise ConfigError(
                    f"stages {i + 1} and {i + 2} are {dims[i]} and {dims[i + 1]} wide, which needs "
                    "a transition between them"
                )

    def _stage_infos(
        self, dims: Sequence[int], temporal_stride: int, stride: int
    ) -> tuple[StageInfo, ...]:
        infos: list[StageInfo] = []
        for part in self.network:
            if isinstance(part, Downsample):
                stride *= 2
            else:
                infos.append(StageInfo(dims[len(infos)], (temporal_stride, stride, stride)))
        return tuple(infos)

    def run_stages(self, clip: Tensor, run: RunBlock) -> Iterator[StageOutput]:
        """The tokens (B, T', H', W', C) at the end of each stage."""
        tokens, grid = self.patch_embed(self.as_clip(clip, (self.smallest, self.smallest)))
        x = tokens.unflatten(1, grid)
        for i, part in enumerate(self.network):
            if i in self.stage_ends:
                x = part(x, run)
                yield StageOutput(x)
            else:
                x = part(x)

    def pool_features(self, features: Tensor) -> Tensor:
        """Normed tokens (B, T, H, W, C) -> their mean (B, C)."""
        return features.mean(dim=(1, 2, 3))


B3_RATIOS = {"mlp_ratios": (8, 8, 4, 4)}
VARIANTS: dict[str, dict[str, Any]] = {  # arXiv 2107.10224, Tab. 2; xs is videonet's own, for CPUs
    "cyclemlp_xs": {
        "layers": (2, 2),
        "embed_dims": (48, 96),
        "mlp_ratios": (4, 4),
        "num_frames": 8,
        "crop_size": 48,
        "linear_init": "xavier",
    },
    "cyclemlp_b1": {"layers": (2, 2, 4, 2)},
    "cyclemlp_b2": {"layers": (2, 3, 10, 3)},
    "cyclemlp_b3": {"layers": (3, 4, 18, 3)} | B3_RATIOS,
    "cyclemlp_b4": {"layers": (3, 8, 27, 3)} | B3_RATIOS,
    "cyclemlp_b5": {"layers": (3, 4, 24, 3), "embed_dims": (96, 192, 384, 768)},
}
MODELS = published(CycleMLP, VARIANTS)
