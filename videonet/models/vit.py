"""Vision transformer: ViT (arXiv 2010.11929) for images and clips.

A clip is cut into tubelets (ViViT, arXiv 2103.15691, Sec. 3.2). Attention is joint over space and
time, or divided: over time, then over space (TimeSformer, arXiv 2102.05095). Reads top to bottom:
the blocks, the network, the published sizes. Parameter names are those of timm.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from videonet.errors import ConfigError
from videonet.models.base import (
    RunBlock,
    StageInfo,
    StageOutput,
    VideoModel,
    as_clip,
    drop_path_rates,
    linear_initializer,
)
from videonet.models.positions import AbsolutePositions, learned_tokens
from videonet.models.variants import published
from videonet.ops.grid import Grid, as_grid
from videonet.ops.layer_scale import LayerScale
from videonet.ops.mlp import Mlp
from videonet.ops.patch_embed import PatchEmbed
from videonet.ops.self_attention import SelfAttention
from videonet.ops.tracing import is_traced

POOLINGS = ("token", "avg", "max", "avgmax")


class Block(nn.Module):
    """Pre-norm transformer block: attention of all tokens, then the MLP (ViT, Eq. 2 and 3).

    Args:
        dim, num_heads, mlp_ratio: widths.
        num_prefix_tokens: number of tokens before the cells of the grid (class token, registers).
        layer_scale: initial factor on both branches, None for no layer scale.
        mlp_norm: a layer norm inside the MLP.
        attention: further arguments of SelfAttention.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float,
        num_prefix_tokens: int,
        layer_scale: float | None,
        activation: str,
        proj_bias: bool,
        mlp_norm: bool,
        norm_eps: float,
        dropout: float,
        drop_path: float,
        **attention,
    ):
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        shared = {"proj_bias": proj_bias, "norm_eps": norm_eps, "dropout": dropout}
        self.attention_arguments = attention | shared
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = SelfAttention(
            dim, num_heads, num_prefix_tokens=num_prefix_tokens, **self.attention_arguments
        )
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(
            dim,
            int(dim * mlp_ratio + 1e-6),  # a ratio of two whole numbers gives the first one back
            dim,
            dropout,
            activation=activation,
            bias=proj_bias,
            norm_eps=norm_eps if mlp_norm else None,
        )
        self.ls1, self.ls2 = (
            nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale) for _ in "12"
        )
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, P + T*H*W, dim) -> the same shape."""
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), grid)))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class DividedBlock(Block):
    """Attention over time, then over space, then the MLP (TimeSformer, Sec. 3, Eq. 10 and 11).

    Over time a cell attends to the cells at its place. Over space the cells of one frame attend
    to each other and to the prefix tokens, of which every frame has a copy; the copies are
    averaged. A still clip therefore gives what its image gives, class token or not.
    """

    def __init__(self, dim: int, num_heads: int, *, norm_eps: float, **options):
        super().__init__(dim, num_heads, norm_eps=norm_eps, **options)
        self.temporal_norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.temporal_attn = SelfAttention(dim, num_heads, **self.attention_arguments)
        self.temporal_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, P + T*H*W, dim) -> the same shape."""
        first, cells = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        cells = cells + self._over_time(cells, grid)
        from_space = self._over_space(first, cells, grid)
        x = torch.cat((first, cells), dim=1) + from_space
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))

    def _over_time(self, cells: Tensor, grid: Grid) -> Tensor:
        frames, area = grid[0], grid[1] * grid[2]
        columns = self.temporal_norm1(cells).unflatten(1, (frames, area)).transpose(1, 2)
        columns = self.temporal_attn(columns.flatten(0, 1), (frames, 1, 1))  # (B*H*W, T, dim)
        attended = columns.unflatten(0, (-1, area)).transpose(1, 2).flatten(1, 2)
        return self.temporal_proj(self.drop_path(attended))

    def _over_space(self, first: Tensor, cells: Tensor, grid: Grid) -> Tensor:
        frames, area = grid[0], grid[1] * grid[2]
        copies = first.unsqueeze(1).expand(-1, frames, -1, -1)
        tokens = torch.cat((copies, cells.unflatten(1, (frames, area))), dim=2).flatten(0, 1)
        y = self.ls1(self.attn(self.norm1(tokens), (1, *grid[1:])))  # (B*T, P + H*W, dim)
        y = y.unflatten(0, (-1, frames))
        first, cells = (
            y[:, :, : self.num_prefix_tokens].mean(dim=1),
            y[:, :, self.num_prefix_tokens :].flatten(1, 2),
        )
        return self.drop_path(torch.cat((first, cells), dim=1))


def token_numbers(keep: Tensor, clips: int, cells: int) -> Tensor:
    """The numbers of the cells that are kept, in ascending order where `keep` is boolean.

    Args:
        keep: numbers (B, K), or booleans (B, cells) that are true for cells to keep.
        clips: B.
        cells: number of cells of the grid.

    Returns:
        (B, K), int64.

    Raises:
        ConfigError: rows of booleans keep different numbers of cells, there is no cell of a
            number, or the shape or type fits neither way.
    """
    fits = keep.dim() == 2 and len(keep) == clips
    if fits and keep.dtype == torch.int64:
        if not is_traced() and keep.numel() and not 0 <= keep.min() <= keep.max() < cells:
            raise ConfigError(
                f"keep has the numbers {keep.min()} to {keep.max()}, but the grid has {cells} cells"
            )
        return keep
    if not fits or keep.dtype != torch.bool or keep.shape[1] != cells:
        raise ConfigError(
            f"keep is {keep.dtype} of shape {tuple(keep.shape)}, expected torch.int64 "
            f"({clips}, K) or torch.bool ({clips}, {cells})"
        )
    counts = keep.sum(dim=1)
    if (counts != counts[0]).any():
        raise ConfigError(
            f"keep is true for {counts.min()} to {counts.max()} tokens of a clip, expected as many "
            "in all of them"
        )
    return keep.nonzero()[:, 1].unflatten(0, (clips, -1))


BLOCKS = {"joint": Block, "divided": DividedBlock}


class ViT(VideoModel, AbsolutePositions):
    """Vision transformer for clips and, with one frame, for images.

    Args:
        num_classes, num_frames, crop_size (pixels; an int or (height, width)), in_channels: of
            the clips that positions are made for. Other sizes run too: positions interpolate.
        patch_size: height and width of a patch in pixels; tubelet_frames: its frames, None for
            1 in images and 2 in clips. pad_to_patch: pad frames with zeros at the bottom and
            right to whole patches, which are cut off otherwise.
        depth, embed_dim, num_heads, mlp_ratio, qkv_bias, activation, norm_eps: of the transformer.
        proj_bias: of the linear layers behind attention and in the MLP; qk_norm: layer norm of
            queries and keys; scale_attn_norm, scale_mlp_norm: layer norm before the last linear
            layer of the attention and of the MLP; layer_scale: its initial factor, None for none.
        space_time: "joint" attention or "divided" (TimeSformer).
        cls_token: a class token; cls_key_log_frames: see SelfAttention.
        num_registers: further learned tokens (arXiv 2309.16588), which the head does not read.
        use_abs_pos: learned positions; sep_pos_embed: separate ones for space and time, None for
            clips alone; embed_class: class token and registers have a position too.
        antialias_positions: positions are resized to other grids with antialiasing, as in timm;
            DINOv2 and transformers do without.
        pre_norm: a layer norm before the first block, and no bias in the patch embedding (CLIP).
        final_norm: a layer norm after the last block: of the pooled vector with fc_norm, else of
            all tokens; fc_norm is None for "where cells are pooled".
        pooling: what the head reads: the class "token", or the "avg", "max" or "avgmax" (their
            mean) of the cells; None for "token" where there is one, else "avg".
        pool_include_prefix: prefix tokens are pooled with the cells.
        representation_size: width of a linear layer with tanh before the head, None for none.
        dropout: in the transformer; head_dropout: before the classifier; drop_path_rate: of the
            last block, rising linearly from 0.
        linear_init: of linear layers: "normal" with deviation 0.02, or "xavier".
    """

    norm: nn.LayerNorm | None
    position_resize = "bicubic"
    works_on_parts = True
    undecayed = ("cls_token", "reg_token", "pos_embed")
    top_names = ("norm", "fc_norm", "pre_logits", "head")

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 16,
        crop_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        patch_size: int | tuple[int, int] = 16,
        tubelet_frames: int | None = None,
        pad_to_patch: bool = False,
        depth: int = 12,
        embed_dim: int = 768,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        qk_norm: bool = False,
        scale_attn_norm: bool = False,
        scale_mlp_norm: bool = False,
        layer_scale: float | None = None,
        activation: str = "gelu",
        norm_eps: float = 1e-6,
        space_time: str = "joint",
        cls_token: bool = True,
        cls_key_log_frames: bool = False,
        num_registers: int = 0,
        use_abs_pos: bool = True,
        sep_pos_embed: bool | None = None,
        antialias_positions: bool = True,
        embed_class: bool = True,
        pre_norm: bool = False,
        final_norm: bool = True,
        fc_norm: bool | None = None,
        pooling: str | None = None,
        pool_include_prefix: bool = False,
        representation_size: int | None = None,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        linear_init: str = "normal",
    ):
        super().__init__()
        init = linear_initializer(linear_init)
        pooling = pooling or ("token" if cls_token else "avg")
        if space_time not in BLOCKS:
            raise ConfigError(f"space_time is {space_time!r}, expected joint or divided")
        if pooling not in POOLINGS:
            raise ConfigError(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}")
        if pooling == "token" and not cls_token:
            raise ConfigError("pooling 'token' reads the class token, but cls_token is False")
        self.pooling, self.pool_include_prefix, self.pad_to_patch = (
            pooling,
            pool_include_prefix,
            pad_to_patch,
        )
        self.num_prefix_tokens = int(cls_token) + num_registers
        self.antialias_positions = antialias_positions
        self.still_clips_are_exact = cls_key_log_frames or space_time == "divided"

        height, width = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
        rows, columns = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
        if tubelet_frames is None:
            tubelet_frames = 1 if num_frames == 1 else 2
        self.patch = (tubelet_frames, rows, columns)
        self.patch_embed = PatchEmbed(
            in_channels, embed_dim, self.patch, self.patch, (0, 0, 0), bias=not pre_norm
        )
        self.cls_token = learned_tokens(1, embed_dim) if cls_token else None
        self.reg_token = learned_tokens(num_registers, embed_dim) if num_registers else None
        self.add_positions(
            self._grid_of((num_frames, height, width)),
            embed_dim,
            self.num_prefix_tokens,
            use=use_abs_pos,
            separate=num_frames > 1 if sep_pos_embed is None else sep_pos_embed,
            embed_prefix=embed_class,
        )
        self.dropout = nn.Dropout(dropout)
        self.norm_pre = nn.LayerNorm(embed_dim, eps=norm_eps) if pre_norm else None
        self.blocks = nn.ModuleList(
            BLOCKS[space_time](
                embed_dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                num_prefix_tokens=self.num_prefix_tokens,
                layer_scale=layer_scale,
                activation=activation,
                qkv_bias=qkv_bias,
                proj_bias=proj_bias,
                qk_norm=qk_norm,
                out_norm=scale_attn_norm,
                mlp_norm=scale_mlp_norm,
                norm_eps=norm_eps,
                cls_key_log_frames=cls_key_log_frames,
                dropout=dropout,
                drop_path=rate,
            )
            for rate in drop_path_rates(drop_path_rate, depth)
        )
        # A ViT has no stages: feature maps are taken after every quarter of the blocks.
        self.stage_ends = sorted({(depth * quarter + 3) // 4 - 1 for quarter in (1, 2, 3, 4)})
        self.feature_info = (StageInfo(embed_dim, self.patch),) * len(self.stage_ends)

        fc_norm = pooling != "token" if fc_norm is None else fc_norm
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps) if final_norm and not fc_norm else None
        self.fc_norm = nn.LayerNorm(embed_dim, eps=norm_eps) if final_norm and fc_norm else None
        self.pre_logits = nn.Linear(embed_dim, representation_size) if representation_size else None
        self.num_features = representation_size or embed_dim
        self.head_dropout = head_dropout
        self.apply(init)
        self.reset_classifier(num_classes)

    def _grid_of(self, sizes: Grid) -> Grid:
        """Tubelets along time, height and width of a clip of `sizes` frames and pixels."""
        round_up = (0, *(self.pad_to_patch * (p - 1) for p in self.patch[1:]))
        return as_grid(
            max((n + more) // p, 1) for n, p, more in zip(sizes, self.patch, round_up, strict=True)
        )

    def embed(self, clip: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Grid]:
        """Patches and positions: a clip -> tokens (B, P + T*H*W, C) and the grid.

        Args:
            keep: see :meth:`forward_features`; the tokens are then (B, P + K, C).

        Raises:
            ConfigError: a frame or the clip is smaller than a tubelet, `keep` does not fit the
                grid, or attention is divided, which needs whole columns of cells.
        """
        clip = as_clip(clip, (1, 1) if self.pad_to_patch else self.patch[1:])
        if clip.shape[2] < self.patch[0]:
            raise ConfigError(
                f"clips have {clip.shape[2]} frames, but one tubelet of this model needs "
                f"{self.patch[0]}"
            )
        if self.pad_to_patch:
            _, height, width = self.patch
            clip = F.pad(clip, (0, -clip.shape[4] % width, 0, -clip.shape[3] % height))
        x, grid = self.patch_embed(clip)
        positions = self.absolute_positions(grid)
        if keep is not None:
            if isinstance(self.blocks[0], DividedBlock):
                raise ConfigError("divided attention works on whole grids: leave out keep")
            x, positions = self._keep(x, positions, token_numbers(keep, *x.shape[:2]))
        first = [t for t in (self.cls_token, self.reg_token) if t is not None]
        prefix = [t.expand(x.shape[0], -1, -1) for t in first]
        if positions is not None and self.num_prefix_positions < self.num_prefix_tokens:
            x, positions = x + positions, None  # only the cells have a position
        x = torch.cat((*prefix, x), dim=1) if prefix else x
        x = self.dropout(x if positions is None else x + positions)
        return (x if self.norm_pre is None else self.norm_pre(x)), grid

    def _keep(
        self, x: Tensor, positions: Tensor | None, keep: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Cells (B, N, C) and positions (1, P + N, C) of the numbers (B, K) alone."""
        places = keep.to(x.device).unsqueeze(2).expand(-1, -1, x.shape[2])  # (B, K, C)
        if positions is not None:
            positions = positions.expand(len(x), -1, -1)
            first = positions[:, : self.num_prefix_positions]
            cells = positions[:, self.num_prefix_positions :].gather(1, places)
            positions = torch.cat((first, cells), dim=1)
        return x.gather(1, places), positions

    def run_stages(
        self, clip: Tensor, run: RunBlock, keep: Tensor | None = None
    ) -> Iterator[StageOutput]:
        """The tokens (B, P + N, C) after each quarter of the blocks; N cells with `keep`."""
        x, grid = self.embed(clip, keep)
        for i, block in enumerate(self.blocks):
            x = run(block, x, grid)
            if i in self.stage_ends:
                yield StageOutput(x, grid)

    def pool_features(self, features: Tensor) -> Tensor:
        """Tokens (B, P + N, C) -> what the head reads (B, num_features)."""
        if self.pooling == "token":
            x = features[:, 0]
        else:
            cells = features if self.pool_include_prefix else features[:, self.num_prefix_tokens :]
            pooled = {"avg": cells.mean(dim=1), "max": cells.amax(dim=1)}
            pooled["avgmax"] = (pooled["avg"] + pooled["max"]) / 2
            x = pooled[self.pooling]
        x = x if self.fc_norm is None else self.fc_norm(x)
        return x if self.pre_logits is None else torch.tanh(self.pre_logits(x))


VARIANTS: dict[str, dict[str, Any]] = {  # arXiv 2010.11929, Tab. 1
    "vit_xs": {  # videonet's own, for CPUs
        "embed_dim": 96,
        "depth": 4,
        "num_heads": 3,
        "patch_size": 6,
        "num_frames": 8,
        "crop_size": 48,
    },
    "vit_s": {"embed_dim": 384, "num_heads": 6},  # DeiT, arXiv 2012.12877
    "vit_b": {},
    "vit_l": {"depth": 24, "embed_dim": 1024, "num_heads": 16},
}
MODELS = published(ViT, VARIANTS)
