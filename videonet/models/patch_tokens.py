"""From a clip to the tokens of a vision transformer: patches, prefix tokens and positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.models.base import VideoModel
from videonet.models.positions import AbsolutePositions, learned_tokens
from videonet.ops.grid import Grid, as_grid
from videonet.ops.patch_embed import PatchEmbed
from videonet.ops.tracing import is_traced

POSITION_RESIZES = ("bicubic", "nearest")


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


class PatchTokens(VideoModel, AbsolutePositions):
    """Base of transformers on patches: all that comes before the first block.

    Args:
        num_frames, crop_size (pixels; an int or (height, width)), in_channels: of the clips that
            positions are made for. Other sizes run too: positions interpolate.
        embed_dim: width of the tokens; norm_eps: of the norms; dropout: behind the positions.
        patch_size: height and width of a patch in pixels; tubelet_frames: its frames, None for
            1 in images and 2 in clips. pad_to_patch: pad frames with zeros at the bottom and
            right to whole patches, which are cut off otherwise.
        cls_token: a class token; num_registers: further learned tokens (arXiv 2309.16588), which
            the head does not read.
        use_abs_pos: positions; sep_pos_embed: separate ones for space and time, None for clips
            alone; embed_class: class token and registers have a position too; position_size: the
            frames that they are made for, None for crop_size.
        sine_grid: fixed positions instead of learned ones, which number the cells of this grid
            (T, H, W) and are resized to others (VideoMAE); prefix tokens have none.
        position_resize: how positions are resized to other grids: "bicubic" in space and linear in
            time, or "nearest" (TimeSformer). antialias_positions: "bicubic" with antialiasing, as
            in timm; DINOv2 and transformers do without.
        pre_norm: a layer norm before the first block, and no bias in the patch embedding (CLIP).
        centre_clips: the mean colour of a clip is taken away first, see VideoModel.as_clip.

    Raises:
        ConfigError: there is no such way of resizing.
    """

    undecayed: tuple[str, ...] = ("cls_token", "reg_token", "pos_embed")

    def __init__(
        self,
        num_frames: int = 16,
        crop_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        embed_dim: int = 768,
        norm_eps: float = 1e-6,
        dropout: float = 0.0,
        patch_size: int | tuple[int, int] = 16,
        tubelet_frames: int | None = None,
        pad_to_patch: bool = False,
        cls_token: bool = True,
        num_registers: int = 0,
        use_abs_pos: bool = True,
        sep_pos_embed: bool | None = None,
        embed_class: bool = True,
        position_size: int | tuple[int, int] | None = None,
        sine_grid: Grid | None = None,
        position_resize: str = "bicubic",
        antialias_positions: bool = True,
        pre_norm: bool = False,
        centre_clips: bool = False,
    ):
        super().__init__(centre_clips)
        if position_resize not in POSITION_RESIZES:
            raise ConfigError(
                f"position_resize is {position_resize!r}, expected bicubic or nearest"
            )
        self.position_resize, self.antialias_positions = position_resize, antialias_positions
        self.pad_to_patch = pad_to_patch
        self.num_prefix_tokens = int(cls_token) + num_registers
        if tubelet_frames is None:
            tubelet_frames = 1 if num_frames == 1 else 2
        rows, columns = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
        self.patch = (tubelet_frames, rows, columns)
        self.patch_embed = PatchEmbed(
            in_channels, embed_dim, self.patch, self.patch, (0, 0, 0), bias=not pre_norm
        )
        self.cls_token = learned_tokens(1, embed_dim) if cls_token else None
        self.reg_token = learned_tokens(num_registers, embed_dim) if num_registers else None
        self.first_grid = self._grid_of(num_frames, crop_size)
        self.add_positions(
            self._grid_of(num_frames, crop_size if position_size is None else position_size),
            embed_dim,
            self.num_prefix_tokens,
            use=use_abs_pos,
            separate=num_frames > 1 if sep_pos_embed is None else sep_pos_embed,
            embed_prefix=embed_class,
            sine_grid=sine_grid,
        )
        self.dropout = nn.Dropout(dropout)
        self.norm_pre = nn.LayerNorm(embed_dim, eps=norm_eps) if pre_norm else None

    def _grid_of(self, num_frames: int, size: int | tuple[int, int]) -> Grid:
        """Tubelets along time, height and width of a clip of so many frames and pixels."""
        sizes = (num_frames, size, size) if isinstance(size, int) else (num_frames, *size)
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
                grid, or attention is within frames or knows the grid, which needs all of its cells.
        """
        clip = self.as_clip(clip, (1, 1) if self.pad_to_patch else self.patch[1:])
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
            if not self.works_on_parts:
                raise ConfigError(
                    "attention within frames, windows and relative positions work on whole grids: "
                    "leave out keep"
                )
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
