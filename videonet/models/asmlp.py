"""AS-MLP (arXiv 2107.08391): linear layers over channels that are shifted along the axes.

Reads top to bottom: the axial shift, the block, the stage, the network, the published variants.
Parameter names are those of the official implementation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial

import torch.nn.functional as F
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
from videonet.ops.clip_norm import ClipNorm
from videonet.ops.conv import TokenConv
from videonet.ops.linear import init_linear
from videonet.ops.mlp import Mlp
from videonet.ops.patch_embed import PatchEmbed
from videonet.ops.patch_merging import PatchMerging
from videonet.ops.shift import HEIGHT, TIME, WIDTH, block_plan, shift_channels
from videonet.ops.stochastic_depth import StochasticDepth


class AxialShift(nn.Module):
    """Parallel branches that shift along one axis each and mix the channels (Fig. 3).

    In a clip a branch along time is added to the two of an image. It has the form of the others,
    ``gelu(linear(shift(x)))``, and vanishes while its linear layer ``temporal_proj`` is zero.
    """

    def __init__(self, dim: int, size: int, dilation: int, bias: bool, temporal_size: int):
        super().__init__()
        self.conv1 = TokenConv(dim, dim, 1, bias=bias)
        self.norm1 = ClipNorm(dim)
        self.conv2_1 = TokenConv(dim, dim, 1, bias=bias)
        self.conv2_2 = TokenConv(dim, dim, 1, bias=bias)
        self.temporal_proj = TokenConv(dim, dim, 1, bias=bias) if temporal_size else None
        self.norm2 = ClipNorm(dim)
        self.conv3 = TokenConv(dim, dim, 1, bias=bias)
        self.plan = block_plan(dim, size, dilation)
        self.temporal_plan = block_plan(dim, temporal_size) if temporal_size else ()

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, C) -> (B, T, H, W, C)."""
        x = F.gelu(self.norm1(self.conv1(x)))
        mixed = F.gelu(self.conv2_1(shift_channels(x, self.plan, WIDTH)))
        mixed = mixed + F.gelu(self.conv2_2(shift_channels(x, self.plan, HEIGHT)))
        if self.temporal_proj is not None:
            in_time = shift_channels(x, self.temporal_plan, TIME)
            mixed = mixed + F.gelu(self.temporal_proj(in_time))
        return self.conv3(self.norm2(mixed))


class AxialShiftBlock(nn.Module):
    """Axial shift and MLP, pre-norm, each with a residual."""

    def __init__(
        self,
        dim: int,
        *,
        shift_size: int,
        dilation: int,
        temporal_shift_size: int,
        mlp_ratio: float,
        as_bias: bool,
        dropout: float,
        drop_path: float,
    ):
        super().__init__()
        self.norm1 = ClipNorm(dim)
        self.axial_shift = AxialShift(dim, shift_size, dilation, as_bias, temporal_shift_size)
        self.norm2 = ClipNorm(dim)
        self.mlp = Mlp(
            dim, int(dim * mlp_ratio), dim, dropout, linear=partial(TokenConv, kernel_size=1)
        )
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, C) -> (B, T, H, W, C)."""
        x = x + self.drop_path(self.axial_shift(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ASMLP(VideoModel):
    """AS-MLP for clips and, with one frame, for images; frames of any size.

    Args:
        num_classes, in_channels: of the task and of the clip.
        num_frames: 1 builds the image model, which has nothing along time.
        crop_size: every architecture takes it; nothing here depends on it.
        embed_dim: width of the first stage, doubled by every further one.
        depths: number of blocks of each stage.
        patch_size: height and width of a patch in pixels.
        temporal_kernel, temporal_stride: of the stem, in a clip.
        shift_size, dilation: number of neighbours along height and width that channels are read
            from, odd, and the distance between two of them.
        temporal_shift_size: of neighbours along time, in a clip; 0 for no temporal branch.
        mlp_ratio: of the MLPs; as_bias: biases in the axial shift; patch_norm: a norm in the stem.
        output_norms: a norm per stage and no classifier, see
            :meth:`videonet.models.base.VideoModel.add_norms`.
        cls_token: refused: there is none.
        dropout: in the MLPs and behind the stem; head_dropout: before the classifier;
            drop_path_rate: of the last block, rising linearly from 0.
        centre_clips: the mean colour of a clip is taken away first, see VideoModel.as_clip.
    """

    block_names = re.compile(r"layers\.\d+\.blocks\.\d+(?=\.)")

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 16,
        crop_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        patch_size: int | tuple[int, int] = 4,
        temporal_kernel: int = 3,
        temporal_stride: int = 2,
        shift_size: int = 5,
        dilation: int = 1,
        temporal_shift_size: int = 3,
        mlp_ratio: float = 4.0,
        as_bias: bool = True,
        patch_norm: bool = True,
        output_norms: bool | Sequence[int] = False,
        cls_token: bool | None = None,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        centre_clips: bool = False,
    ):
        super().__init__(centre_clips)
        refuse_class_token(self, cls_token)
        for size in (shift_size, temporal_shift_size or 1):
            if size < 1 or size % 2 == 0:
                raise ConfigError(f"a shift size of {size} is not odd: as many to either side")
        if num_frames == 1:
            temporal_kernel, temporal_stride, temporal_shift_size = 1, 1, 0
        height, width = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
        self.patch_size = patch = (height, width)
        self.patch_embed = PatchEmbed(
            in_channels,
            embed_dim,
            (temporal_kernel, *patch),
            (temporal_stride, *patch),
            (temporal_kernel // 2, 0, 0),
            norm=ClipNorm(embed_dim) if patch_norm else None,
        )
        self.dropout = nn.Dropout(dropout)
        self._add_stages(
            embed_dim,
            depths,
            drop_path_rate,
            shift_size=shift_size,
            dilation=dilation,
            temporal_shift_size=temporal_shift_size,
            mlp_ratio=mlp_ratio,
            as_bias=as_bias,
            dropout=dropout,
        )
        self.num_features = embed_dim * 2 ** (len(depths) - 1)
        self.feature_info = tuple(
            StageInfo(embed_dim * 2**i, (temporal_stride, patch[0] * 2**i, patch[1] * 2**i))
            for i in range(len(depths))
        )
        self.add_norms(output_norms, ClipNorm)
        self.head_dropout = head_dropout
        self.apply(init_linear)
        self.reset_classifier(0 if self.output_norms else num_classes)

    def _add_stages(
        self, dim: int, depths: Sequence[int], drop_path_rate: float, **options
    ) -> None:
        self.layers: ModuleListOf[Stage] = ModuleListOf()
        for i, rates in enumerate(stage_drop_path_rates(drop_path_rate, depths)):
            width = dim * 2**i
            blocks = [AxialShiftBlock(width, drop_path=rate, **options) for rate in rates]
            last = i == len(depths) - 1
            self.layers.append(Stage(blocks, None if last else _merging(width)))

    def embed(self, clip: Tensor) -> Tensor:
        """A clip -> tokens (B, T', H', W', C)."""
        tokens, grid = self.patch_embed(self.as_clip(clip, self.patch_size))
        return self.dropout(tokens.unflatten(1, grid))

    def run_stages(self, clip: Tensor, run: RunBlock) -> Iterator[StageOutput]:
        """The tokens (B, T', H', W', C) at the end of each stage, before they merge."""
        return run_stages_in_turn(self.layers, self.embed(clip), run)

    def pool_features(self, features: Tensor) -> Tensor:
        """Normed tokens (B, T, H, W, C) -> their mean (B, C)."""
        return features.mean(dim=(1, 2, 3))


def _merging(dim: int) -> PatchMerging:
    reduction = TokenConv(4 * dim, 2 * dim, 1, bias=False)
    return PatchMerging(ClipNorm(4 * dim), reduction)


VARIANTS = {  # arXiv 2107.08391, Sec. 3.4; xs is videonet's own, for CPUs
    "asmlp_xs": {"embed_dim": 48, "depths": (2, 2), "num_frames": 8, "crop_size": 48},
    "asmlp_t": {"embed_dim": 96, "depths": (2, 2, 6, 2)},
    "asmlp_s": {"embed_dim": 96, "depths": (2, 2, 18, 2)},
    "asmlp_b": {"embed_dim": 128, "depths": (2, 2, 18, 2)},
}
MODELS = published(ASMLP, VARIANTS)
