"""Attention rollout (Abnar and Zuidema 2020, arXiv 2005.00928) for pooled and plain attention."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from videonet.data.transforms.batch import normalize
from videonet.errors import ConfigError
from videonet.inference.explain import as_heat
from videonet.inference.predictor import Predictor
from videonet.ops.attention_maps import RecordAttention
from videonet.ops.grid import Grid, volume


@torch.inference_mode()
def attention_rollout(predictor: Predictor, clips: Tensor) -> Tensor:
    """How much each place of a clip contributes, through all attentions, to what the head reads.

    A block mixes its tokens by ``(A + I) / 2``, where A is the mean of its attention over the
    heads. The product over the blocks is followed back from the class token, or from the mean of
    all tokens, to the grid of the first block. Pooled queries and keys stand for the cells that
    they were pooled from.

    Args:
        predictor: holds the model.
        clips: uint8 (N, 3, T, S, S).

    Returns:
        (N, T, S, S), divided by the highest value of each clip: 0 … 1.

    Raises:
        ConfigError: the model has no attention over its whole grid.
    """
    model, cfg = predictor.model, predictor.cfg
    x = normalize(clips.to(predictor.device), cfg.DATA.MEAN, cfg.DATA.STD)
    with RecordAttention() as record:
        stages = [_grid_of(stage) for stage in model.forward_intermediates(x)]
    name = type(model).__name__
    if not record.weights:
        raise ConfigError(f"{name} has no attention to follow; explain it by gradcam")
    grids = [_query_grid(weights, len(x), stages, name) for weights in record.weights]
    flow = roll_out(record.weights, grids, name)
    return as_heat(flow.unflatten(1, grids[0]).unsqueeze(1), clips.shape[2:])


def roll_out(weights: list[Tensor], grids: list[Grid], name: str = "the model") -> Tensor:
    """Follow attentions back from the last block to the grid of the first one.

    Args:
        weights: of each block, (B, [1+]Nq, [1+]Nk); a class token comes first, rows sum to 1.
        grids: of the queries of each block.
        name: of the model, for messages.

    Returns:
        (B, cells of the first grid); each row sums to 1 less the share of the class token.
    """
    has_class = weights[-1].shape[1] - volume(grids[-1])
    flow = torch.zeros_like(weights[-1][:, :, 0])  # (B, [1+]Nq)
    flow[:, : has_class or None] = 1.0
    flow = flow / flow.sum(dim=1, keepdim=True)
    for block in reversed(range(len(weights))):
        a, grid = weights[block], grids[block]
        before = grids[max(block - 1, 0)]  # of the tokens that the block was given
        has_class = a.shape[1] - volume(grid)
        keys = _key_grid(before, a.shape[2] - has_class, name)
        attended = (flow.unsqueeze(1) @ a).squeeze(1)  # (B, [1+]Nk)
        flow = (_spread(attended, keys, before) + _spread(flow, grid, before)) / 2
        if block and weights[block - 1].shape[1] < flow.shape[1]:  # a class token begins here
            flow = flow[:, 1:] / flow[:, 1:].sum(dim=1, keepdim=True)
    return flow[:, flow.shape[1] - volume(grids[0]) :]


def _grid_of(stage: Tensor) -> Grid:
    """(T', H', W') of a stage's map (B, C, T', H', W')."""
    _, _, frames, height, width = stage.shape
    return frames, height, width


def _query_grid(weights: Tensor, clips: int, stages: list[Grid], name: str) -> Grid:
    for grid, extra in itertools.product(stages, (0, 1)):
        if weights.shape[0] == clips and weights.shape[1] == volume(grid) + extra:
            return grid
    raise ConfigError(f"the attention of {name} is local, not over its grid; explain it by gradcam")


def _key_grid(grid: Grid, keys: int, name: str) -> Grid:
    """The grid of keys that were pooled from `grid` with one stride in time and one in space."""
    strides = itertools.product(range(1, grid[0] + 1), range(1, max(grid[1:]) + 1))
    for time, space in strides:
        pooled = (-(-grid[0] // time), -(-grid[1] // space), -(-grid[2] // space))
        if volume(pooled) == keys:
            return pooled
    raise ConfigError(f"{keys} keys of {name} are no pooling of its grid; explain it by gradcam")


def _spread(flow: Tensor, coarse: Grid, fine: Grid) -> Tensor:
    """Divide each coarse cell's value among its fine cells, (B, [1+]coarse) -> (B, [1+]fine)."""
    if coarse == fine:
        return flow
    places = [
        torch.arange(n, device=flow.device) * c // n for c, n in zip(coarse, fine, strict=True)
    ]
    t, h, w = torch.meshgrid(*places, indexing="ij")
    cell = ((t * coarse[1] + h) * coarse[2] + w).flatten()  # (fine,)
    sizes = torch.bincount(cell, minlength=volume(coarse))
    extra = flow.shape[1] - volume(coarse)
    return torch.cat((flow[:, :extra], (flow[:, extra:] / sizes)[:, cell]), dim=1)
