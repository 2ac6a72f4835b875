"""Where a model looks: Grad-CAM over space and time, for any architecture.

It works on the grid of the last stage that the logits depend on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.data.batch_transforms import normalize
from videonet.errors import ConfigError
from videonet.inference.predictor import Predictor
from videonet.models.base import StageOutput, VideoModel
from videonet.ops.grid import Grid


@dataclass(frozen=True)
class Cells:
    """Values of a forward pass that hold the vectors of a grid.

    Attributes:
        values: as the model has them, in the graph of its logits.
        grid: of tokens in a row, see :class:`StageOutput`.
    """

    values: Tensor
    grid: Grid | None
    channels_first: bool

    def as_map(self, values: Tensor) -> Tensor:
        """These values, or others of their layout, as (B, C, T', H', W')."""
        return StageOutput([values] if self.channels_first else values, self.grid).maps()[0]


def grids_of(model: VideoModel, clip: Tensor) -> tuple[Tensor, list[Cells]]:
    """Logits, and the grids that lead to them, the last stage first.

    After what a stage gives comes what its last block was given, where that is on the same grid:
    of a model whose head reads a class token the last block's cells have no gradient, but those
    before it have.

    Args:
        clip: float (B, 3, T, H, W).
    """
    found: list[Cells] = []
    given: list[object] = []

    def run(block: nn.Module, *inputs: object) -> object:
        given[:] = inputs
        return model.run_block(block, *inputs)

    for stage in model.run_stages(clip, run):
        parallel = not isinstance(stage.x, Tensor)
        if not parallel and given and given[0].shape[:-1] == stage.x.shape[:-1]:
            found.append(Cells(given[0], stage.grid, parallel))
        outputs = stage.x if parallel else [stage.x]
        found += [Cells(values, stage.grid, parallel) for values in outputs]
    return model.forward_head(model.finish(stage)), found[::-1]


def grad_cam(
    predictor: Predictor, clips: Tensor, labels: int | Tensor, weights: str = "cell"
) -> Tensor:
    """Gradient-weighted class activation maps over space and time.

    Args:
        clips: uint8 (N, 3, T, S, S).
        labels: the class to explain, one for all or (N,).
        weights: what an activation is weighted by: "cell", the positive part of its own gradient
            (LayerCAM, Jiang et al. 2021, Eq. 6 and 7), or "grid", the mean of its channel's
            gradient (Grad-CAM, Selvaraju et al. 2017, arXiv 1610.02391, Eq. 1 and 2). The mean
            assumes that the head averages the grid, which a class token does not.

    Returns:
        (N, T, S, S) in 0 … 1: per clip, the share of its highest value.

    Raises:
        ConfigError: unknown weights, or no grid of the model leads to its logits.
    """
    if weights not in ("cell", "grid"):
        raise ConfigError(f"activations are weighted by cell or grid, not by {weights!r}")
    model, cfg = predictor.model, predictor.cfg
    x = normalize(clips.to(predictor.device), cfg.DATA.MEAN, cfg.DATA.STD)
    with torch.enable_grad():
        logits, grids = grids_of(model, x.detach().requires_grad_())
    rows = torch.arange(len(logits), device=logits.device)
    chosen = logits[rows, torch.as_tensor(labels, device=logits.device)].sum()
    for cells in grids:
        (gradient,) = torch.autograd.grad(
            chosen, cells.values, retain_graph=True, allow_unused=True
        )
        if gradient is None or not cells.as_map(gradient).any():
            continue
        activation, gradient = cells.as_map(cells.values.detach()), cells.as_map(gradient)
        factor = gradient.relu() if weights == "cell" else gradient.mean((2, 3, 4), keepdim=True)
        heat = (factor * activation).sum(dim=1, keepdim=True).relu()
        return as_heat(heat, clips.shape[2:])
    raise ConfigError(
        f"the logits of {type(model).__name__} depend on none of its stages: nothing to explain"
    )


def as_heat(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (N, 1, T', H', W') at the size (T, S, S), each over its highest value."""
    heat = F.interpolate(maps.float(), size=tuple(size), mode="trilinear", align_corners=False)
    heat = heat[:, 0]
    return (heat / heat.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)).cpu()
