"""HRNet (arXiv 1908.07919): parallel branches of four resolutions that exchange what they see.

Reads top to bottom: convolutions, residual blocks, the module of parallel branches with its
fusion, the classification neck, the network, the published variants. Parameter names are those of
the official implementation. Kernels of 3×3 have `temporal_kernel` taps along time; nothing behind
the stem changes the number of frames.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.models.base import VideoModel, refuse_class_token
from videonet.models.initial import stage_drop_path_rates
from videonet.models.stages import BlockList, ModuleListOf, RunBlock, StageInfo, StageOutput
from videonet.models.variants import published
from videonet.ops.conv import FastConv3d
from videonet.ops.grid import as_grid
from videonet.ops.resize import resize_space
from videonet.ops.stochastic_depth import StochasticDepth
from videonet.ops.tracing import is_transformed

BN_MOMENTUM = 0.1
FEATURES = ("branches", "v1", "v2", "v2p")


class StagePlan(NamedTuple):
    """One stage: how often its module repeats, and blocks and width of every branch."""

    num_modules: int
    block: str  # "basic" or "bottleneck"
    num_blocks: tuple[int, ...]
    num_channels: tuple[int, ...]


def check_plans(plans: Sequence[StagePlan], head_channels: Sequence[int]) -> None:
    """Whether stages and neck agree.

    Raises:
        ConfigError: they do not.
    """
    for i, plan in enumerate(plans, start=1):
        if plan.block not in BLOCKS:
            raise ConfigError(
                f"stage {i} has blocks {plan.block!r}, expected {' or '.join(BLOCKS)}"
            )
        if len(plan.num_blocks) != len(plan.num_channels):
            raise ConfigError(
                f"stage {i} has {len(plan.num_blocks)} entries in num_blocks and "
                f"{len(plan.num_channels)} in num_channels, but both are one per branch"
            )
    if len(plans[0].num_channels) != 1:
        raise ConfigError(f"stage 1 has {len(plans[0].num_channels)} branches instead of one")
    if len(head_channels) != len(plans[-1].num_channels):
        raise ConfigError(
            f"head_channels has {len(head_channels)} entries for the last stage's "
            f"{len(plans[-1].num_channels)} branches"
        )


def norm(dim: int) -> nn.BatchNorm3d:
    """Batch norm with the momentum of the official code."""
    return nn.BatchNorm3d(dim, momentum=BN_MOMENTUM)


def conv1(dim: int, dim_out: int) -> FastConv3d:
    """A convolution of 1 × 1 × 1, which changes the width."""
    return FastConv3d(dim, dim_out, 1, bias=False)


def conv3(
    dim: int,
    dim_out: int,
    taps: int,
    stride: int = 1,
    *,
    temporal_stride: int = 1,
    bias: bool = False,
) -> FastConv3d:
    """`taps` × 3 × 3, strided in space and where asked for in time."""
    return FastConv3d(
        dim,
        dim_out,
        (taps, 3, 3),
        (temporal_stride, stride, stride),
        (taps // 2, 1, 1),
        bias=bias,
    )


def conv_unit(dim: int, dim_out: int, taps: int, stride: int = 1, *, bias: bool = False):
    """3×3 convolution, batch norm and ReLU."""
    return nn.Sequential(conv3(dim, dim_out, taps, stride, bias=bias), norm(dim_out), nn.ReLU())


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, dim: int, planes: int, taps: int, drop_path: float = 0.0):
        super().__init__()
        self.conv1 = conv3(dim, planes, taps)
        self.bn1 = norm(planes)
        self.conv2 = conv3(planes, planes, taps)
        self.bn2 = norm(planes)
        self.downsample = shortcut(dim, planes * self.expansion)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, T, H, W) -> (B, planes, T, H, W)."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.drop_path(self.bn2(self.conv2(out))) + self.downsample(x))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, the last four times as wide, and a shortcut."""

    expansion = 4

    def __init__(self, dim: int, planes: int, taps: int, drop_path: float = 0.0):
        super().__init__()
        self.conv1 = conv1(dim, planes)
        self.bn1 = norm(planes)
        self.conv2 = conv3(planes, planes, taps)
        self.bn2 = norm(planes)
        self.conv3 = conv1(planes, planes * self.expansion)
        self.bn3 = norm(planes * self.expansion)
        self.downsample = shortcut(dim, planes * self.expansion)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, T, H, W) -> (B, 4 * planes, T, H, W)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.drop_path(self.bn3(self.conv3(out))) + self.downsample(x))


BLOCKS: dict[str, type[BasicBlock | Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def shortcut(dim: int, dim_out: int) -> nn.Module:
    """The input as it is, or projected to another width."""
    return nn.Identity() if dim == dim_out else nn.Sequential(conv1(dim, dim_out), norm(dim_out))


def residual_blocks(
    block: str, dim: int, planes: int, depth: int, taps: int, drop_path: float = 0.0
) -> nn.Sequential:
    """`depth` blocks, the first of which changes the width."""
    kind = BLOCKS[block]
    widths = [dim] + [planes * kind.expansion] * (depth - 1)
    return nn.Sequential(*(kind(width, planes, taps, drop_path) for width in widths))


class Upsample(NamedTuple):
    """How a branch gets the size of one of higher resolution, see :func:`resize_space`."""

    mode: str = "nearest"
    align_corners: bool = False

    def __call__(self, x: Tensor, like: Tensor) -> Tensor:
        """`x` in the height and width of `like`, both (B, C, T, H, W)."""
        return resize_space(x, (like.shape[3], like.shape[4]), self.mode, self.align_corners)


class HighResolutionModule(nn.Module):
    """Residual blocks in each branch, then every branch gets the sum of all, resampled (Fig. 3).

    Upwards by a 1×1 convolution and `upsample`, downwards by strided 3×3 convolutions.
    """

    def __init__(
        self, plan: StagePlan, dims: Sequence[int], taps: int, drop_path: float, upsample: Upsample
    ):
        super().__init__()
        self.upsample = upsample
        self.branches = nn.ModuleList(
            residual_blocks(plan.block, dim, planes, depth, taps, drop_path)
            for dim, planes, depth in zip(dims, plan.num_channels, plan.num_blocks, strict=True)
        )
        places = range(len(dims))
        self.fuse_layers: ModuleListOf[nn.ModuleList] = ModuleListOf(
            nn.ModuleList(self._resample(dims, j, i, taps) for j in places) for i in places
        )

    @staticmethod
    def _resample(dims: Sequence[int], source: int, target: int, taps: int) -> nn.Module:
        """What takes branch `source` to the width, and downwards to the size, of `target`."""
        if source == target:
            return nn.Identity()
        if source > target:
            return nn.Sequential(conv1(dims[source], dims[target]), norm(dims[target]))
        steps = [conv_unit(dims[source], dims[source], taps, 2) for _ in range(source + 1, target)]
        last = nn.Sequential(conv3(dims[source], dims[target], taps, 2), norm(dims[target]))
        return nn.Sequential(*steps, last)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """One map per branch, (B, C_i, T, H / 2^i, W / 2^i), to the same."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        if len(maps) == 1:
            return maps
        fused = []
        for i, layers in enumerate(self.fuse_layers):
            terms = [layer(x) for layer, x in zip(layers, maps, strict=True)]
            terms[i + 1 :] = [self.upsample(x, maps[i]) for x in terms[i + 1 :]]
            fused.append(F.relu(reduce(torch.add, terms)))
        return fused


def transition(old: Sequence[int], new: Sequence[int], taps: int) -> nn.ModuleList:
    """Per branch of the next stage what leads to it, from its own branch or from the lowest.

    Args:
        old, new: widths of the branches before and after.
    """
    layers = nn.ModuleList()
    for i, dim in enumerate(new):
        if i >= len(old):
            widths = [old[-1]] * (i + 1 - len(old)) + [dim]
            steps = (conv_unit(a, b, taps, 2) for a, b in pairwise(widths))
            layers.append(nn.Sequential(*steps))
        elif dim != old[i]:
            layers.append(conv_unit(old[i], dim, taps))
        else:
            layers.append(nn.Identity())
    return layers


class HRNet(VideoModel):
    """HRNet for clips and, with one frame, for images; frames of any size.

    Args:
        num_classes, in_channels: of the task and of the clip.
        num_frames: 1 builds the image model, which has nothing along time.
        crop_size: every architecture takes it; nothing here depends on it.
        stages: one plan per stage, the first with one branch.
        stem_width: of the two strided convolutions in front.
        temporal_kernel: taps along time of every 3×3 kernel in a clip: 3, or 1 for 1×3×3.
        temporal_stride: of the stem's first convolution, in a clip.
        head_channels, final_channels: of the classification neck: a quarter of each branch's
            width there, and the width that the classifier reads.
        head_conv_bias: biases of the neck's convolutions.
        features: what :meth:`forward_intermediates` gives, see there.
        fuse_upsample, fuse_align_corners: how branches are upsampled to be added up: "nearest", or
            "bilinear" as in the code for detection and segmentation, whose corners may be aligned.
        mask_channels: channels of the clip behind the `in_channels`, such as a mask that is to be
            refined (BPR, CVPR 2021): a convolution of their own is added to the stem's first.
        cls_token: refused: there is none.
        drop_path_rate: of the residuals in the last module, rising linearly from 0 (the paper
            drops none); head_dropout: before the classifier.
        centre_clips: the mean colour of a clip is taken away first, see VideoModel.as_clip.
    """

    block_names = re.compile(r"(layer1|stage\d+\.\d+)(?=\.)")
    top_names = ("incre_modules", "downsamp_modules", "final_layer", "head")

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 16,
        crop_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        stages: Sequence[StagePlan],
        stem_width: int = 64,
        temporal_kernel: int = 3,
        temporal_stride: int = 2,
        head_channels: Sequence[int] = (32, 64, 128, 256),
        final_channels: int = 2048,
        head_conv_bias: bool = True,
        features: str = "branches",
        fuse_upsample: str = "nearest",
        fuse_align_corners: bool = False,
        mask_channels: int = 0,
        cls_token: bool | None = None,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        centre_clips: bool = False,
    ):
        super().__init__(centre_clips)
        refuse_class_token(self, cls_token)
        if features not in FEATURES:
            raise ConfigError(f"features is {features!r}, expected one of {', '.join(FEATURES)}")
        taps = 1 if num_frames == 1 else temporal_kernel
        step = 1 if num_frames == 1 else temporal_stride
        if fuse_upsample not in ("nearest", "bilinear"):
            raise ConfigError(f"fuse_upsample is {fuse_upsample!r}, expected nearest or bilinear")
        self.features = features
        self.fuse_upsample = Upsample(fuse_upsample, fuse_align_corners)
        self.conv1 = conv3(in_channels, stem_width, taps, 2, temporal_stride=step)
        self.mask_channels = mask_channels
        if mask_channels:
            self.conv_mask = conv3(mask_channels, stem_width, taps, 2, temporal_stride=step)
        self.bn1 = norm(stem_width)
        self.conv2 = conv3(stem_width, stem_width, taps, 2)
        self.bn2 = norm(stem_width)
        plans = [StagePlan(*plan) for plan in stages]
        check_plans(plans, head_channels)
        dims = self._add_stages(plans, stem_width, taps, drop_path_rate)
        self._add_neck(dims, head_channels, final_channels, head_conv_bias, taps)
        self.num_features = self.neck_width = final_channels
        self.feature_info = self._map_infos(dims, step)
        self.head_dropout = head_dropout
        self.apply(_init_weights)
        self.reset_classifier(num_classes)

    def _add_stages(
        self, plans: list[StagePlan], stem_width: int, taps: int, drop_path_rate: float
    ) -> list[int]:
        """``layer1``, then ``transition<i>`` and ``stage<i + 1>``; gives the last widths."""
        first, *rest = plans
        (planes,), (depth,) = first.num_channels, first.num_blocks
        self.layer1 = residual_blocks(first.block, stem_width, planes, depth, taps)
        dims = [planes * BLOCKS[first.block].expansion]
        self.num_stages = len(plans)
        all_rates = stage_drop_path_rates(drop_path_rate, [plan.num_modules for plan in rest])
        for i, (plan, rates) in enumerate(zip(rest, all_rates, strict=True), start=1):
            new = [planes * BLOCKS[plan.block].expansion for planes in plan.num_channels]
            modules = [
                HighResolutionModule(plan, new, taps, rate, self.fuse_upsample) for rate in rates
            ]
            self.add_module(f"transition{i}", transition(dims, new, taps))
            self.add_module(f"stage{i + 1}", BlockList(modules))
            dims = new
        return dims

    def _add_neck(
        self, dims: list[int], planes: Sequence[int], final: int, bias: bool, taps: int
    ) -> None:
        """Widens every branch, adds them up from the highest resolution down, and widens again."""
        widths = [p * Bottleneck.expansion for p in planes]
        self.incre_modules = nn.ModuleList(
            residual_blocks("bottleneck", dim, p, 1, taps)
            for dim, p in zip(dims, planes, strict=True)
        )
        self.downsamp_modules = nn.ModuleList(
            conv_unit(a, b, taps, 2, bias=bias) for a, b in pairwise(widths)
        )
        last = FastConv3d(widths[-1], final, 1, bias=bias)
        self.final_layer = nn.Sequential(last, norm(final), nn.ReLU())

    def run_stages(self, clip: Tensor, run: RunBlock) -> Iterator[StageOutput]:
        """The branches at the end of each stage, (B, C_i, T', H / 2^(i + 2), W / 2^(i + 2))."""
        x = F.relu(self.bn1(self._first_convolution(clip)))
        x = F.relu(self.bn2(self.conv2(x)))
        maps = [run(self.layer1, x)]
        yield StageOutput(maps)
        for i in range(1, self.num_stages):
            changes = getattr(self, f"transition{i}")
            # A branch that is there goes on; a new one starts from the lowest resolution.
            maps = maps + [maps[-1]] * (len(changes) - len(maps))
            maps = [change(x) for change, x in zip(changes, maps, strict=True)]
            maps = getattr(self, f"stage{i + 1}")(maps, run)
            yield StageOutput(maps)

    def _first_convolution(self, clip: Tensor) -> Tensor:
        """That of the stem, and where there are masks behind the colours, theirs added to it."""
        if not self.mask_channels:
            return self.conv1(self._as_input(clip))
        channels = self.conv1.in_channels + self.mask_channels
        if clip.dim() not in (4, 5) or clip.shape[1] != channels:
            raise ConfigError(
                f"a batch of clips with masks has the shape {tuple(clip.shape)}, expected "
                f"(B, {channels}, T, H, W), or images (B, {channels}, H, W)"
            )
        clip = clip.unsqueeze(2) if clip.dim() == 4 else clip
        colours, masks = clip.split((self.conv1.in_channels, self.mask_channels), dim=1)
        return self.conv1(self._as_input(colours)) + self.conv_mask(masks)

    def _as_input(self, clip: Tensor) -> Tensor:
        """A clip in the memory order that convolutions are fastest with."""
        x = self.as_clip(clip, (1, 1))
        if x.is_cpu and not is_transformed():  # oneDNN's layout: saves a reordering per convolution
            x = x.contiguous(memory_format=torch.channels_last_3d)
        return x

    def branches(self, clip: Tensor) -> list[Tensor]:
        """A clip -> the last stage's maps, (B, C_i, T', H / 2^(i + 2), W / 2^(i + 2))."""
        return self.last_stage(clip).maps()

    def finish(self, last: StageOutput) -> Tensor:
        """The neck: branches -> one map (B, neck_width, T', H', W') at the lowest resolution."""
        maps = last.maps()
        x = self.incre_modules[0](maps[0])
        for i, downsample in enumerate(self.downsamp_modules, start=1):
            x = self.incre_modules[i](maps[i]) + downsample(x)
        return self.final_layer(x)

    def pool_features(self, features: Tensor) -> Tensor:
        """The map (B, C, T, H, W) -> its mean (B, C)."""
        return features.mean(dim=(2, 3, 4))

    def tokens_of(self, features: Tensor) -> Tensor:
        """The map (B, C, T, H, W) -> its cells in a row, (B, N, C)."""
        return features.flatten(2).transpose(1, 2)

    @property
    def token_width(self) -> int:
        """Channels of the neck's map."""
        return self.neck_width

    def forward_intermediates(
        self, clip: Tensor, indices: int | Sequence[int] | None = None
    ) -> list[Tensor]:
        """A clip -> maps (B, C, T', H', W') of the last stage, by the constructor's `features`.

        ``branches``: one per resolution. ``v1``: the highest resolution alone. ``v2``: all
        branches brought to the highest resolution and put side by side. ``v2p``: that map at
        every branch's resolution, by averages (Sec. 3.3).
        """
        wanted = self.stage_numbers(indices)
        maps = self.branches(clip)
        if self.features in ("v2", "v2p"):
            size = (maps[0].shape[3], maps[0].shape[4])
            rest = [resize_space(x, size) for x in maps[1:]]
            together = torch.cat([maps[0], *rest], dim=1)
            grids = [as_grid(x.shape[2:]) for x in maps]
            maps = [together]
            if self.features == "v2p":
                maps = [F.adaptive_avg_pool3d(together, grid) for grid in grids]
        return [maps[number] for number in wanted]

    def _map_infos(self, dims: Sequence[int], temporal_stride: int) -> tuple[StageInfo, ...]:
        side_by_side = self.features in ("v2", "v2p")
        infos = [
            StageInfo(sum(dims) if side_by_side else dim, (temporal_stride, *[4 * 2**i] * 2))
            for i, dim in enumerate(dims)
        ]
        return tuple(infos[:1] if self.features in ("v1", "v2") else infos)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, FastConv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def four_stages(width: int) -> dict[str, object]:
    """The four stages that all published sizes share, up to the width of the first branch."""
    widths = tuple(width * 2**i for i in range(4))
    return {
        "stages": (
            StagePlan(1, "bottleneck", (4,), (64,)),
            StagePlan(1, "basic", (4,) * 2, widths[:2]),
            StagePlan(4, "basic", (4,) * 3, widths[:3]),
            StagePlan(3, "basic", (4,) * 4, widths),
        )
    }


VARIANTS: dict[str, dict[str, Any]] = {  # arXiv 1908.07919, Sec. 3.2 and App. A
    "hrnet_xs": {  # videonet's own, for CPUs
        "stages": (
            StagePlan(1, "bottleneck", (1,), (16,)),
            StagePlan(1, "basic", (1, 1), (24, 48)),
        ),
        "stem_width": 32,
        "head_channels": (8, 16),
        "final_channels": 256,
        "num_frames": 8,
        "crop_size": 48,
    },
    "hrnet_w18_small_v2": {  # named so in timm, HRNet-W18-C-Small-v2 in the official repository
        "stages": (
            StagePlan(1, "bottleneck", (2,), (64,)),
            StagePlan(1, "basic", (2, 2), (18, 36)),
            StagePlan(3, "basic", (2, 2, 2), (18, 36, 72)),
            StagePlan(2, "basic", (2, 2, 2, 2), (18, 36, 72, 144)),
        )
    },
    "hrnet_w18": four_stages(18),
    "hrnet_w32": four_stages(32),
    "hrnet_w48": four_stages(48),
}
MODELS = published(HRNet, VARIANTS)
