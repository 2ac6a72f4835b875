"""Swin transformers for images (arXiv 2103.14030) and clips (Video Swin, arXiv 2106.13230).

Reads top to bottom: how a stage's windows follow from its grid, the block, the stage, the network,
and the published variants. Parameter names are those of the official implementations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.models.base import VideoModel, refuse_class_token
from videonet.models.initial import linear_initializer, stage_drop_path_rates
from videonet.models.positions import AbsolutePositions
from videonet.models.stages import (
    ModuleListOf,
    RunBlock,
    StageInfo,
    StageOutput,
    run_stages_in_turn,
)
from videonet.models.variants import published
from videonet.ops.grid import Grid, as_grid, volume
from videonet.ops.mlp import Mlp
from videonet.ops.patch_embed import PatchEmbed
from videonet.ops.patch_merging import PatchMerging
from videonet.ops.stochastic_depth import StochasticDepth
from videonet.ops.window_attention import StageWindows, WindowAttention
from videonet.ops.windows import Windows, relative_rows

NORM_EPS = 1e-5
WINDOW_RULES = ("fit", "swin", "torchvision", "video_swin", "detection")


def built_window(rule: str, window: Grid, grid: Grid) -> tuple[Grid, Grid]:
    """The window of a stage, and the shift of the windows in its odd blocks.

    Args:
        rule: one of ``WINDOW_RULES``.
        window: (t, h, w) cells that were asked for.
        grid: (T, H, W) of the clips that the stage is built for.
    """
    t, h, w = window
    shortest = min(grid[1:])
    if rule == "swin" and shortest <= min(h, w):
        return (t, shortest, shortest), (t // 2, 0, 0)
    if rule == "fit":
        window = (t, min(h, grid[1]), min(w, grid[2]))
    return window, as_grid(n // 2 for n in window)


def windows_on(rule: str, window: Grid, shift: Grid, grid: Grid) -> Windows:
    """The windows on the grid of the current clip.

    A window is cut down to the grid, and not shifted along an axis that it fills. torchvision's
    image models pad a small grid to a whole window instead; detectors also shift it.

    Args:
        rule: one of ``WINDOW_RULES``.
        window: (t, h, w) cells that the stage is built for.
        shift: by which windows move along each axis.
        grid: (T, H, W) of the clip.
    """
    size = as_grid(min(n, w) for n, w in zip(grid, window, strict=True))
    if rule in ("torchvision", "detection"):
        size = (size[0], *window[1:])
    fitting = as_grid(s if n > w else 0 for n, w, s in zip(grid, window, shift, strict=True))
    return Windows(grid, size, (fitting[0], *shift[1:]) if rule == "detection" else fitting)


class SwinBlock(nn.Module):
    """Attention in windows and MLP, each behind a norm and added to its input (Swin, Eq. 3)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: Grid,
        *,
        mlp_ratio: float,
        drop_path: float,
        dropout: float,
        **attention,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = WindowAttention(dim, num_heads, window, dropout=dropout, **attention)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim, dropout)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor, plan: StageWindows) -> Tensor:
        """(B, T, H, W, C) -> the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x), plan))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SwinStage(nn.Module):
    """Blocks of one width, whose windows are shifted in every second one, and the merging."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        rates: Sequence[float],
        grid: Grid,
        window: Grid,
        window_rule: str,
        merges: bool,
        **options,
    ):
        super().__init__()
        self.window_rule = window_rule
        self.window, self.shift = built_window(window_rule, window, grid)
        self.blocks = nn.ModuleList(
            SwinBlock(dim, num_heads, self.window, drop_path=rate, **options) for rate in rates
        )
        self.downsample: nn.Module | None = None
        if merges:
            norm = nn.LayerNorm(4 * dim, eps=NORM_EPS)
            self.downsample = PatchMerging(norm, nn.Linear(4 * dim, 2 * dim, bias=False))

    def plans(self, x: Tensor) -> tuple[StageWindows, StageWindows]:
        """The windows of even and of odd blocks on tokens (B, T, H, W, C)."""
        plain, shifted = (
            windows_on(self.window_rule, self.window, shift, as_grid(x.shape[1:4]))
            for shift in ((0, 0, 0), self.shift)
        )
        # Video Swin numbers the cells of a reduced window as the first ones of the full window,
        # which puts them elsewhere where the height or the width is reduced.
        layout = self.window if self.window_rule == "video_swin" else plain.size
        rows = relative_rows(volume(plain.size), layout, self.window, x.device)
        mask_time = self.window_rule == "detection"
        return (
            StageWindows.of(plain, rows, x, mask_time),
            StageWindows.of(shifted, rows, x, mask_time),
        )

    def forward(self, x: Tensor, run: RunBlock) -> Tensor:
        """The blocks, each called by `run(block, x, plan)`: (B, T, H, W, C) -> the same shape."""
        plans = self.plans(x)
        for i, block in enumerate(self.blocks):
            x = run(block, x, plans[i % 2])
        return x


class Swin(VideoModel, AbsolutePositions):
    """Swin transformer for clips and, with one frame, for images.

    Args:
        num_classes, num_frames, crop_size (pixels; an int or (height, width)), in_channels: of
            the clips that windows and positions are made for. Other sizes run too.
        patch_size: of the stem, (t, h, w). Clips that are no multiple of it are padded with zeros
            at their end.
        embed_dim: width of the first stage; it doubles in each further one.
        depths, num_heads: blocks and heads of each stage.
        window_size: (t, h, w) in tokens.
        window_rule: what happens where a grid is smaller than the window; the first four agree
            everywhere else, and in time.
            "fit": no window is larger than the grid that its stage is built for, and at run time
            a window shrinks along each axis to the grid at hand and then is not shifted.
            "swin": the official image code. Windows are square, as wide as the shorter side of the
            grid that its stage is built for; such a stage does not shift at all.
            "torchvision": its image code. Windows keep their size and small grids are padded;
            pixels beyond the last whole patch are cut off instead of padded.
            "video_swin": the official video code and torchvision's swin3d. As "fit" at run time,
            but the bias table is that of the full window at any crop size, and where the height
            or the width is reduced the first rows of its index are read, which belong to other
            offsets: the static-clip law does not hold there.
            "detection": the official detectors and segmentations. Windows keep their size and
            their shift on every grid; zeros beyond the frame are keys, as they are by all rules.
            Absolute positions are resized bicubically. Beyond the clip's end nothing is a key, and
            frames that miss in the last patch repeat the last frame, so that the static-clip law
            holds for any number of frames.
        mlp_ratio, qkv_bias, qk_scale (None: 1 / sqrt(head width)): of the transformer.
        patch_norm: layer norm behind the stem. use_abs_pos: learned absolute positions.
        output_norms: a norm per stage and no classifier, see
            :meth:`videonet.models.base.VideoModel.add_norms`.
        cls_token: Swin has none; only False or None is accepted.
        dropout: in the transformer; attention_dropout: of its attention weights; head_dropout:
            before the classifier; drop_path_rate: of the last block, rising linearly from 0.
        linear_init: of linear layers: "normal" with deviation 0.02, or "xavier".
        centre_clips: the mean colour of a clip is taken away first, see VideoModel.as_clip.

    Raises:
        ConfigError: an argument is out of its range, or they contradict each other.
    """

    undecayed = ("pos_embed", "relative_position_bias_table")
    cls_token = None

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 32,
        crop_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        patch_size: Grid = (2, 4, 4),
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: Grid = (8, 7, 7),
        window_rule: str = "fit",
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        patch_norm: bool = True,
        use_abs_pos: bool = False,
        output_norms: bool | Sequence[int] = False,
        cls_token: bool | None = None,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        centre_clips: bool = False,
        linear_init: str = "normal",
    ):
        super().__init__(centre_clips)
        refuse_class_token(self, cls_token)
        _check_arguments(window_rule, embed_dim, depths, num_heads)
        init = linear_initializer(linear_init)
        height, width = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
        self.patch_size, self.window_rule = as_grid(patch_size), window_rule
        norm = nn.LayerNorm(embed_dim, eps=NORM_EPS) if patch_norm else None
        self.patch_embed = PatchEmbed(
            in_channels, embed_dim, self.patch_size, self.patch_size, (0, 0, 0), norm
        )
        sizes = (num_frames, height, width)
        self.grid = as_grid(-(-n // p) for n, p in zip(sizes, self.patch_size, strict=True))
        # One table for an image, separate ones of space and time for clips.
        self.add_positions(self.grid, embed_dim, 0, use=use_abs_pos, separate=self.grid[0] > 1)
        if window_rule == "detection":
            self.position_resize, self.antialias_positions = "bicubic", False
        self.dropout = nn.Dropout(dropout)
        self.layers: ModuleListOf[SwinStage] = ModuleListOf()
        rates = stage_drop_path_rates(drop_path_rate, depths)
        dim, (t, h, w) = embed_dim, self.grid
        for stage, (heads, stage_rates) in enumerate(zip(num_heads, rates, strict=True)):
            dim = embed_dim * 2**stage
            self.layers.append(
                SwinStage(
                    dim,
                    heads,
                    stage_rates,
                    (t, h, w),
                    as_grid(window_size),
                    window_rule,
                    merges=stage < len(depths) - 1,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    qk_scale=qk_scale,
                    dropout=dropout,
                    attention_dropout=attention_dropout,
                )
            )
            h, w = (h + 1) // 2, (w + 1) // 2
        self.num_features = dim
        t, h, w = self.patch_size
        self.feature_info = tuple(
            StageInfo(embed_dim * 2**i, (t, h * 2**i, w * 2**i)) for i in range(len(depths))
        )
        self.add_norms(output_norms, partial(nn.LayerNorm, eps=NORM_EPS))
        self.head_dropout = head_dropout
        self.apply(init)
        self.reset_classifier(0 if self.output_norms else num_classes)

    def embed(self, clip: Tensor) -> Tensor:
        """Stem and positions: a clip -> tokens (B, T, H, W, C)."""
        clip = self.as_clip(clip, self.patch_size[1:])
        missing = [-n % p for n, p in zip(clip.shape[2:], self.patch_size, strict=True)]
        if self.window_rule == "detection" and missing[0]:
            clip = torch.cat((clip, clip[:, :, -1:].expand(-1, -1, missing[0], -1, -1)), dim=2)
            missing[0] = 0
        if self.window_rule == "torchvision":
            missing[1:] = 0, 0
        if any(missing):
            clip = F.pad(clip, (0, missing[2], 0, missing[1], 0, missing[0]))
        x, grid = self.patch_embed(clip)
        positions = self.absolute_positions(grid)
        x = self.dropout(x if positions is None else x + positions)
        return x.unflatten(1, grid)

    def run_stages(self, clip: Tensor, run: RunBlock) -> Iterator[StageOutput]:
        """The tokens (B, T, H, W, C) at the end of each stage, before they merge."""
        return run_stages_in_turn(self.layers, self.embed(clip), run)

    def pool_features(self, features: Tensor) -> Tensor:
        """Normed tokens (B, T, H, W, C) -> their mean (B, C)."""
        return features.mean(dim=(1, 2, 3))


def _check_arguments(
    window_rule: str,
    embed_dim: int,
    depths: Sequence[int],
    num_heads: Sequence[int],
) -> None:
    if window_rule not in WINDOW_RULES:
        raise ConfigError(
            f"window_rule is {window_rule!r}, expected one of {', '.join(WINDOW_RULES)}"
        )
    if len(depths) != len(num_heads):
        raise ConfigError(
            f"depths has {len(depths)} stages, but num_heads {len(num_heads)}: {num_heads!r}"
        )
    for stage, heads in enumerate(num_heads):
        if embed_dim * 2**stage % heads:
            raise ConfigError(
                f"the width {embed_dim * 2**stage} of stage {stage} is no multiple of its "
                f"{heads} heads"
            )


VARIANTS: dict[str, dict[str, Any]] = {  # arXiv 2103.14030 and 2106.13230, Sec. 3.3 of both
    "swin_xs": {  # videonet's own, for CPUs
        "embed_dim": 56,
        "depths": (2, 1),
        "num_heads": (2, 4),
        "num_frames": 8,
        "crop_size": 48,
        "window_size": (4, 6, 6),
        "linear_init": "xavier",
        "image": {"window_size": (1, 6, 6)},
    },
    "swin_t": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "swin_s": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "swin_b": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "swin_l": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
}
MODELS = published(Swin, VARIANTS, image={"patch_size": (1, 4, 4), "window_size": (1, 7, 7)})
