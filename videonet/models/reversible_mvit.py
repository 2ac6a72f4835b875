"""Reversible MViT and ViT (Mangalam et al., "Reversible Vision Transformers", CVPR 2022).

Two streams of tokens run through each stage: attention reads one and adds to the other, then the
MLP the other way round, so training keeps no activations but those between stages (see
:mod:`videonet.ops.reversible`). Between two stages a block that is not reversible makes one
stream of the two, pools it and widens it. With patches of 16×16 and no pooling it is a reversible
ViT. Reads top to bottom: how streams are joined, the two blocks, the network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.models.initial import drop_path_rates
from videonet.models.multiscale import (
    BlockPlan,
    MultiscaleTransformer,
    max_pooled_shortcut,
    pool_kernel_for,
    stage_infos,
)
from videonet.models.stages import RunBlock, StageInfo, StageOutput
from videonet.ops.grid import Grid, strided
from videonet.ops.linear import call_linear
from videonet.ops.mlp import Mlp
from videonet.ops.pooling_attention import PoolingAttention
from videonet.ops.reversible import ReversibleBlock, run_reversible
from videonet.ops.stochastic_depth import StochasticDepth

LEARNED_FUSION = re.compile(r"(ln\+)?concat_linear(?:_([\d.]+))?(?:_([\d.]+))?")
SHORTCUTS = ("conv", "max")


class Fusion(nn.Module):
    """One stream of two that lie side by side: (B, N, 2*dim) -> (B, N, `dim_out`).

    Args:
        mode: "add", "avg", "max" or "min" of the two; "concat": both as they are;
            "concat_linear_RATIO_DROPOUT": both, and an MLP of both is added, with a layer norm
            before it as "ln+concat_linear". RATIO (1) is its hidden width over its input's.
        dim: width of one stream.
    """

    def __init__(self, mode: str, dim: int):
        super().__init__()
        learned = LEARNED_FUSION.fullmatch(mode)
        if learned is None and mode not in ("add", "avg", "max", "min", "concat"):
            raise ConfigError(
                f"two streams are joined by {mode!r}, expected add, avg, max, min, concat or "
                "[ln+]concat_linear[_RATIO[_DROPOUT]]"
            )
        self.mode, self.keeps_width = mode, "concat" in mode
        self.dim_out = 2 * dim if self.keeps_width else dim
        self.norm = self.mlp = None
        if learned is not None:
            norm, ratio, dropout = learned.groups()
            self.norm = nn.LayerNorm(2 * dim) if norm else None
            hidden = int(2 * dim * float(ratio or 1))
            self.mlp = Mlp(2 * dim, hidden, 2 * dim, float(dropout or 0))

    def forward(self, x: Tensor) -> Tensor:
        if self.mlp is not None:
            return x + self.mlp(x if self.norm is None else self.norm(x))
        if self.keeps_width:
            return x
        first, second = x.chunk(2, dim=-1)
        if self.mode in ("max", "min"):
            return torch.maximum(first, second) if self.mode == "max" else first.minimum(second)
        return first + second if self.mode == "add" else (first + second) / 2


class StreamBlock(ReversibleBlock):
    """A reversible block (Sec. 3.1): pooling attention reads one stream, the MLP the other."""

    def __init__(self, dim: int, attention: PoolingAttention, mlp_ratio: float, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=attention.norm_eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=attention.norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim)
        self.drop_path = StochasticDepth(drop_path, "row")

    def keep(self, tokens: Tensor) -> Tensor:
        """Draw the drop-path factors (B, 1, 1): a clip loses both branches or none."""
        return self.drop_path(tokens.new_ones(tokens.shape[0], 1, 1))

    def attend(self, tokens: Tensor, grid: Grid) -> Tensor:
        return self.attn(self.norm1(tokens), grid)[0]

    def transform(self, tokens: Tensor) -> Tensor:
        return self.mlp(self.norm2(tokens))


class TransitionBlock(nn.Module):
    """Between two stages: one stream of two, pooled and widened (Sec. 3.3).

    The shortcut is pooled by its maximum, or by the convolution and norm of the queries. As in
    the official code a drop path takes the whole result away, not a branch of it.
    """

    def __init__(
        self,
        plan: BlockPlan,
        attention: PoolingAttention,
        fuse: Fusion,
        *,
        shortcut: str,
        mlp_ratio: float,
        drop_path: float,
    ):
        super().__init__()
        dim = fuse.dim_out
        self.fuse, self.shortcut, self.stride = fuse, shortcut, plan.q_stride or (1, 1, 1)
        self.norm1 = nn.LayerNorm(dim, eps=attention.norm_eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(plan.dim_out, eps=attention.norm_eps)
        self.mlp = Mlp(plan.dim_out, int(plan.dim_out * mlp_ratio), plan.dim_out)
        self.proj = nn.Linear(dim, plan.dim_out) if dim != plan.dim_out else None
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Both streams (B, [1+]T*H*W, 2*dim) -> one (B, [1+]T'*H'*W', dim_out), the new grid."""
        x = self.fuse(x)
        attended, new_grid = self.attn(self.norm1(x), grid)
        x = self._shortcut(x, grid) + attended
        return self.drop_path(x + self.mlp(self.norm2(x))), new_grid

    def _shortcut(self, x: Tensor, grid: Grid) -> Tensor:
        project_last = self.attn.pool_first
        if self.proj is not None and not project_last:
            x = call_linear(self.proj, x)
        if self.shortcut == "conv":
            x, _ = self.attn.pool(x, grid, "q")
        else:
            x = max_pooled_shortcut(x, grid, self.stride, self.attn.num_prefix_tokens)
        return call_linear(self.proj, x) if self.proj is not None and project_last else x


class ReversibleMViT(MultiscaleTransformer):
    """Reversible multiscale vision transformer for clips and, with one frame, for images.

    Args:
        num_classes: 0 for no classifier; num_frames, crop_size, in_channels: of the clips.
        transitions: the blocks that are not reversible; each one that strides or widens must be.
        fusion, transition_fusion: how two streams become one, before the head and in the
            transitions; see :class:`Fusion`.
        shortcut: "conv" or "max", see :class:`TransitionBlock`.
        cls_token, use_abs_pos: other defaults than in the base class.
        **options: see :class:`videonet.models.multiscale.MultiscaleTransformer`; the width always
            grows in the attention (``dim_mul_in_att``).

    Raises:
        ConfigError: a block strides or widens and is no transition, transitions have no
            reversible block before, between or behind them, or options contradict each other.
    """

    top_names = ("fuse", "norm", "head")

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 16,
        crop_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        transitions: Sequence[int] = (),
        fusion: str = "concat",
        transition_fusion: str = "avg",
        shortcut: str = "conv",
        cls_token: bool = False,
        use_abs_pos: bool = True,
        **options: Any,
    ):
        options |= {"cls_token": cls_token, "use_abs_pos": use_abs_pos}
        super().__init__(num_frames, crop_size, in_channels, **options)
        self.transitions = tuple(transitions)
        if not self.dim_mul_in_att:
            raise ConfigError("a reversible MViT widens in the attention: leave out dim_mul_in_att")
        _check_plans(self.plans, self.transitions, shortcut)
        rates = drop_path_rates(self.drop_path_rate, len(self.plans))
        self.blocks = nn.ModuleList()
        grid = self.first_grid
        for i, (plan, rate) in enumerate(zip(self.plans, rates, strict=True)):
            fuse = Fusion(transition_fusion, plan.dim) if i in self.transitions else None
            attention = PoolingAttention(
                plan.dim if fuse is None else fuse.dim_out,
                plan.dim_out,
                plan.num_heads,
                grid,
                q_kernel=pool_kernel_for(plan.q_stride, self.pool_kernel),
                q_stride=plan.q_stride,
                kv_kernel=pool_kernel_for(plan.kv_stride, self.pool_kernel),
                kv_stride=plan.kv_stride,
                **self.attention_options,
            )
            self.blocks.append(
                StreamBlock(plan.dim, attention, self.mlp_ratio, rate)
                if fuse is None
                else TransitionBlock(
                    plan,
                    attention,
                    fuse,
                    shortcut=shortcut,
                    mlp_ratio=self.mlp_ratio,
                    drop_path=rate,
                )
            )
            grid = grid if plan.q_stride is None else strided(grid, plan.q_stride)
        self.fuse = Fusion(fusion, self.plans[-1].dim_out)
        self.feature_info = tuple(
            StageInfo(2 * channels, strides)
            for channels, strides in stage_infos(self.plans, self.patch_stride)
        )
        self.add_head(num_classes, self.fuse.dim_out)

    def run_stages(self, clip: Tensor, run: RunBlock) -> Iterator[StageOutput]:
        """Both streams at the end of each stage, side by side: (B, [1+]T*H*W, 2*C)."""
        x, grid = self.embed(clip)
        begin = 0
        for i in (*self.transitions, len(self.blocks)):
            streams = run_reversible(self.blocks[begin:i], x, x, grid, run)
            x = torch.cat(streams, dim=-1)
            yield StageOutput(x, grid)
            if i < len(self.blocks):
                x, grid = run(self.blocks[i], x, grid)
            begin = i + 1

    def finish(self, last: StageOutput) -> Tensor:
        """One stream of tokens (B, [1+]N, C), normed unless the norm follows the mean."""
        x = self.dropout(last.x)
        if self.mean_pooling:
            return self.fuse(x)
        # A norm before a fusion of the same width, as in the official code, which has no other.
        if self.fuse.keeps_width:
            return self.fuse(self.norm_last(x))
        return self.norm_last(self.fuse(x))


def _check_plans(plans: Sequence[BlockPlan], transitions: Sequence[int], shortcut: str) -> None:
    if shortcut not in SHORTCUTS:
        raise ConfigError(f"shortcut is {shortcut!r}, expected {' or '.join(SHORTCUTS)}")
    for i, plan in enumerate(plans):
        if i not in transitions and (plan.downsamples or plan.dim != plan.dim_out):
            raise ConfigError(
                f"block {i} strides or widens, so it cannot be reversible: name it in transitions "
                f"(MVIT.REV.BUFFER_LAYERS), which are {list(transitions)}"
            )
    ends = (-1, *transitions, len(plans))
    if any(later - earlier < 2 for earlier, later in zip(ends, ends[1:], strict=False)):
        raise ConfigError(
            f"transitions (MVIT.REV.BUFFER_LAYERS) are {list(transitions)}, but must be ascending, "
            f"with a reversible block before, between and behind them, of {len(plans)} blocks"
        )
