"""What multiscale vision transformers begin with: patches, a class token, positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from videonet.models.base import VideoModel, as_clip
from videonet.models.positions import AbsolutePositions, learned_tokens
from videonet.ops.grid import Grid
from videonet.ops.patch_embed import PatchEmbed
from videonet.ops.pooling_attention import NORM_EPS


class TokenStem(VideoModel, AbsolutePositions):
    """Base of MViT and of its reversible sibling: a clip -> tokens with positions."""

    undecayed = ("cls_token", "pos_embed", "rel_pos_")

    def add_stem(
        self,
        clip: tuple[int, int | tuple[int, int]],
        in_channels: int,
        dim: int,
        *,
        kernel: Grid,
        stride: Grid,
        padding: Grid,
        cls_token: bool,
        use_abs_pos: bool,
        sep_pos_embed: bool,
        dropout: float,
        norm_stem: bool,
    ) -> None:
        """Add the layers.

        Args:
            clip: frames and pixels (an int or (height, width)) that positions are made for.
            dim: width of the tokens.
            kernel, stride, padding: of the patches, (t, h, w).
        """
        frames, crop = clip
        height, width = (crop, crop) if isinstance(crop, int) else crop
        self.patch_stride = stride
        self.patch_embed = PatchEmbed(in_channels, dim, kernel, stride, padding)
        sizes = (max(frames, stride[0]), height, width)
        grid = tuple(n // s for n, s in zip(sizes, stride, strict=True))
        self.cls_token = learned_tokens(1, dim) if cls_token else None
        self.add_positions(grid, dim, int(cls_token), use=use_abs_pos, separate=sep_pos_embed)
        self.dropout = nn.Dropout(dropout)
        self.norm_stem = nn.LayerNorm(dim, eps=NORM_EPS) if norm_stem else None

    def embed(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """Stem and positions: a clip -> tokens (B, [1+]T*H*W, C) and their grid."""
        x, grid = self.patch_embed(as_clip(clip, self.patch_stride[1:]))
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        positions = self.absolute_positions(grid)
        if positions is not None:
            x = x + positions
        x = self.dropout(x)
        return (x if self.norm_stem is None else self.norm_stem(x)), grid
