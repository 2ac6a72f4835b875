"""HorNet: interactions of high order by recursive gated convolution (arXiv 2207.14284).

Reads top to bottom: the block, the network, and the published variants, each with depth-wise
convolutions of 7×7 or with global-local filters in the last two stages. Parameter names are those
of the official implementation, whose kernels and filters are flat.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.models.base import VideoModel, refuse_class_token
from videonet.models.initial import stage_drop_path_rates
from videonet.models.stages import BlockList, RunBlock, StageInfo, StageOutput
from videonet.models.variants import published
from videonet.ops.conv import TokenConv
from videonet.ops.gated_conv import RecursiveGatedConv
from videonet.ops.global_filter import filter_size
from videonet.ops.grid import Grid
from videonet.ops.linear import init_linear
from videonet.ops.stochastic_depth import StochasticDepth

NORM_EPS = 1e-6
PATCH = 4
MLP_RATIO = 4


class Block(nn.Module):
    """Gated convolution and MLP, each scaled per channel and added to what came in."""

    def __init__(self, dim: int, gnconv: nn.Module, layer_scale_init: float, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.gnconv = gnconv
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.pwconv1 = nn.Linear(dim, MLP_RATIO * dim)
        self.pwconv2 = nn.Linear(MLP_RATIO * dim, dim)
        for name in ("gamma1", "gamma2"):
            scale = torch.full((dim,), layer_scale_init) if layer_scale_init > 0 else None
            self.register_parameter(name, None if scale is None else nn.Parameter(scale))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, dim) -> the same."""
        mixed = self.gnconv(self.norm1(x))
        x = x + self.drop_path(mixed if self.gamma1 is None else self.gamma1 * mixed)
        mixed = self.pwconv2(F.gelu(self.pwconv1(self.norm2(x))))
        return x + self.drop_path(mixed if self.gamma2 is None else self.gamma2 * mixed)


class HorNet(VideoModel):
    """HorNet for clips and, with one frame, for images; frames of any size.

    Args:
        num_classes, in_channels: of the task and of the clip.
        num_frames: 1 builds the image model, which has temporal kernels and strides of 1.
        crop_size: pixels, an int or (height, width). Together with num_frames it gives the
            frequencies that global filters have weights for; other clips interpolate them.
        base_dim, depths: width of the first stage, which doubles with each stage; blocks of each.
        orders: of the gated convolutions, one per stage.
        scale: of their depth-wise operators, one for all stages or one per stage.
        global_filter: per stage, whether a global-local filter takes the place of the depth-wise
            7×7 convolution.
        filter_sizes: per stage, frequencies (h, w) of a frame that the filter has weights for;
            None for those of the stage's grid.
        temporal_kernel: of the stem and of the depth-wise convolutions; temporal_stride: of the
            stem.
        layer_scale_init: of the scales of both branches; 0 for no scales.
        output_norms: a norm per stage and no classifier, see
            :meth:`videonet.models.base.VideoModel.add_norms`.
        cls_token: there is none, so True is an error.
        head_dropout: before the classifier; drop_path_rate: of the last block, rising linearly
            from 0; head_init_scale: on the classifier's weights.
        centre_clips: the mean colour of a clip is taken away first, see VideoModel.as_clip.

    Raises:
        ConfigError: arguments that contradict each other.
    """

    block_names = re.compile(r"stages\.\d+\.\d+(?=\.)")
    groupings = ("blocks", "layers", "stages")

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 16,
        crop_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        base_dim: int = 96,
        depths: Sequence[int] = (3, 3, 9, 3),
        orders: Sequence[int] = (2, 3, 4, 5),
        scale: float | Sequence[float] = 1 / 3,
        global_filter: Sequence[bool] = (False, False, False, False),
        filter_sizes: Sequence[tuple[int, int] | None] | None = None,
        temporal_kernel: int = 3,
        temporal_stride: int = 2,
        layer_scale_init: float = 1e-6,
        output_norms: bool | Sequence[int] = False,
        cls_token: bool | None = None,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        centre_clips: bool = False,
        head_init_scale: float = 1.0,
    ):
        super().__init__(centre_clips)
        refuse_class_token(self, cls_token)
        if num_frames == 1:
            temporal_kernel, temporal_stride = 1, 1
        count = len(depths)
        scales = [scale] * count if isinstance(scale, int | float) else list(scale)
        filter_sizes = [None] * count if filter_sizes is None else list(filter_sizes)
        settings = (orders, scales, global_filter, filter_sizes)
        if any(len(setting) != count for setting in settings):
            raise ConfigError(
                "depths, orders, scale, global_filter and filter_sizes need one entry per stage, "
                f"but have {count}, {', '.join(str(len(setting)) for setting in settings)}"
            )
        self.depths = tuple(depths)
        dims = [base_dim * 2**i for i in range(count)]
        self.downsample_layers = nn.ModuleList(
            [_stem(in_channels, base_dim, temporal_kernel, temporal_stride)]
        )
        self.downsample_layers.extend(
            nn.Sequential(
                nn.LayerNorm(dim, eps=NORM_EPS), TokenConv(dim, 2 * dim, (1, 2, 2), (1, 2, 2))
            )
            for dim in dims[:-1]
        )
        all_rates = stage_drop_path_rates(drop_path_rate, depths)
        self.stages = nn.ModuleList()
        for i, (dim, rates) in enumerate(zip(dims, all_rates, strict=True)):
            t, h, w = filter_size(_grid(num_frames, crop_size, temporal_stride, i))
            size = (t, *(filter_sizes[i] or (h, w))) if global_filter[i] else None
            self.stages.append(
                BlockList(
                    Block(
                        dim,
                        RecursiveGatedConv(
                            dim, orders[i], scales[i], temporal_kernel, size, dim_out=dim
                        ),
                        layer_scale_init,
                        rate,
                    )
                    for rate in rates
                )
            )
        self.num_features = dims[-1]
        self.feature_info = tuple(
            StageInfo(dim, (temporal_stride, *[PATCH * 2**i] * 2)) for i, dim in enumerate(dims)
        )
        self.add_norms(output_norms, partial(nn.LayerNorm, eps=NORM_EPS))
        self.head_dropout, self.head_init_scale = head_dropout, head_init_scale
        self.apply(init_linear)
        self.reset_classifier(0 if self.output_norms else num_classes)

    def run_stages(self, clip: Tensor, run: RunBlock) -> Iterator[StageOutput]:
        """The tokens (B, T', H', W', C) at the end of each stage."""
        least = PATCH * 2 ** (len(self.stages) - 1)
        x = self.as_clip(clip, (least, least)).permute(0, 2, 3, 4, 1)
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x), run)
            yield StageOutput(x)

    def finish(self, last: StageOutput) -> Tensor:
        """The tokens (B, T, H, W, C) as they are: the norm follows their mean."""
        return last.tensor()

    def pool_features(self, features: Tensor) -> Tensor:
        """Tokens (B, T, H, W, C) -> one normed vector per clip (B, C)."""
        return self.norm_last(features.mean(dim=(1, 2, 3)))

    def layer_groups(self, by: str = "blocks") -> list[list[str]]:
        """Parameter names from input to output: stem, each block, norms and head.

        Args:
            by: "blocks": a downsampling goes with the block before it. "layers": 14 groups as in
                the recipes of the detectors, where a downsampling goes with what follows it: the
                stem, stages 1 and 2, the blocks of stage 3 by twos in nine groups, stage 4, the
                rest. "stages": 8 groups as in those of the segmentations: stem and downsamplings,
                the four stages, two empty groups, the rest.

        Raises:
            ConfigError: another grouping, or not four stages.
        """
        if by in ("layers", "stages"):
            return self._published_groups(by)
        (*names,), *groups = super().layer_groups(by)
        stem = [name for name in names if name.startswith("downsample_layers.0.")]
        for name in names[len(stem) :]:
            stage = int(name.split(".")[1])
            groups[sum(self.depths[:stage]) - 1].append(name)
        return [stem, *groups]

    def _published_groups(self, by: str) -> list[list[str]]:
        if len(self.depths) != 4:
            raise ConfigError(
                f"the recipes group the {by} of four stages, but this HorNet has {len(self.depths)}"
            )
        groups: list[list[str]] = [[] for _ in range(14 if by == "layers" else 8)]
        for name, _ in self.named_parameters():
            part, *numbers = name.split(".")[:3]
            if part not in ("downsample_layers", "stages"):
                groups[-1].append(name)
                continue
            stage, block = int(numbers[0]), int(numbers[1]) if part == "stages" else 0
            if by == "stages":
                group = stage + 1 if part == "stages" else 0
            elif part == "downsample_layers" and stage == 0:
                group = 0
            else:
                group = (1, 2, min(3 + block // 2, 11), 12)[stage]
            groups[group].append(name)
        return groups


def _stem(in_channels: int, dim: int, temporal_kernel: int, temporal_stride: int) -> nn.Sequential:
    conv = TokenConv(
        in_channels,
        dim,
        (temporal_kernel, PATCH, PATCH),
        (temporal_stride, PATCH, PATCH),
        (temporal_kernel // 2, 0, 0),
    )
    return nn.Sequential(conv, nn.LayerNorm(dim, eps=NORM_EPS))


def _grid(
    num_frames: int, crop_size: int | tuple[int, int], temporal_stride: int, stage: int
) -> Grid:
    """The grid of stage 0, 1, … for clips of this size."""
    height, width = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
    cell = PATCH * 2**stage
    return -(-num_frames // temporal_stride), height // cell, width // cell


FILTERS = {"global_filter": (False, False, True, True)}  # in the last two stages
SIZES: dict[str, dict[str, Any]] = {  # arXiv 2207.14284, Sec. 3.3
    "t": {"base_dim": 64, "depths": (2, 3, 18, 2)},
    "s": {"base_dim": 96, "depths": (2, 3, 18, 2)},
    "b": {"base_dim": 128, "depths": (2, 3, 18, 2)},
    "l": {"base_dim": 192, "depths": (2, 3, 18, 2)},
}
VARIANTS = {f"hornet_{size}": row for size, row in SIZES.items()}
VARIANTS |= {f"hornet_gf_{size}": row | FILTERS for size, row in SIZES.items()}
VARIANTS["hornet_xs"] = {  # videonet's own, for CPUs
    "base_dim": 48,
    "depths": (2, 2),
    "orders": (2, 3),
    "global_filter": (False, False),
    # The small scales of deep models take long to grow.
    "scale": 1.0,
    "layer_scale_init": 1.0,
    "num_frames": 8,
    "crop_size": 48,
    "image": {"crop_size": 224},
}
MODELS = published(HorNet, VARIANTS)
