"""Where a model looks: Grad-CAM over space and time, for any architecture.

The map has the grid of the last stage that the outputs depend on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.data.transforms.batch import normalize
from videonet.errors import ConfigError
from videonet.inference.predictor import Predictor
from videonet.models.base import VideoModel
from videonet.models.stages import StageOutput
from videonet.ops.grid import Grid


@dataclass(frozen=True)
class Cells:
    """The activations of a stage, or of the input of its last block.

    Attributes:
        values: in the model's own layout, in the autograd graph of its outputs.
        stage: whose layout that is.
    """

    values: Tensor
    stage: StageOutput

    @property
    def grid(self) -> Grid | None:
        """(T', H', W') where the values are tokens in one row."""
        return self.stage.grid

    def as_map(self, values: Tensor) -> Tensor:
        """These values, or others of their layout, as (B, C, T', H', W')."""
        x = values if isinstance(self.stage.x, Tensor) else [values]
        return self.stage._replace(x=x).maps()[0]


def grids_of(model: VideoModel, clip: Tensor) -> tuple[Tensor, list[Cells]]:
    """The outputs of a model, and the activations that they are computed from.

    Each stage has two entries, its output and the input of its last block, where both have the same
    grid: in a model whose head reads a class token the outputs do not depend on the other tokens
    that the last block returns, but they depend on those that it is given.

    Args:
        model: the model.
        clip: float (B, 3, T, H, W).

    Returns:
        Outputs (B, K), and the activations, the last stage first.
    """
    found: list[Cells] = []
    given: list[Any] = []

    def run(block: nn.Module, *inputs: Any) -> Any:
        given[:] = inputs
        return model.run_block(block, *inputs)

    for stage in model.run_stages(clip, run):
        if isinstance(stage.x, Tensor):
            if given and given[0].shape[:-1] == stage.x.shape[:-1]:
                found.append(Cells(given[0], stage))
            found.append(Cells(stage.x, stage))
        else:  # parallel branches
            found += [Cells(values, stage) for values in stage.x]
    return model.forward_head(model.finish(stage)), found[::-1]


def grad_cam(
    predictor: Predictor, clips: Tensor, labels: int | Tensor, weights: str = "cell"
) -> Tensor:
    """Gradient-weighted class activation maps over space and time.

    Args:
        predictor: holds the model.
        clips: uint8 (N, 3, T, S, S).
        labels: the number of the output to explain, one for all clips or (N,).
        weights: what an activation is weighted by: "cell", the positive part of its own gradient
            (LayerCAM, Jiang et al. 2021, Eq. 6 and 7), or "grid", the mean of its channel's
            gradient (Grad-CAM, Selvaraju et al. 2017, arXiv 1610.02391, Eq. 1 and 2). The mean
            assumes that the head averages the grid, which a class token does not.

    Returns:
        (N, T, S, S), divided by the highest value of each clip: 0 … 1.

    Raises:
        ConfigError: unknown weights, or the outputs depend on no stage of the model.
    """
    if weights not in ("cell", "grid"):
        raise ConfigError(f"activations are weighted by cell or grid, not by {weights!r}")
    model, cfg = predictor.model, predictor.cfg
    x = normalize(clips.to(predictor.device), cfg.DATA.MEAN, cfg.DATA.STD)
    with torch.enable_grad():
        outputs, grids = grids_of(model, x.detach().requires_grad_())
    rows = torch.arange(len(outputs), device=outputs.device)
    chosen = outputs[rows, torch.as_tensor(labels, device=outputs.device)].sum()
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
        f"the outputs of {type(model).__name__} depend on none of its stages: nothing to explain"
    )


def as_heat(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps resized to a clip and divided by the highest value of each.

    Args:
        maps: (N, 1, T', H', W').
        size: (T, S, S) of the clip.

    Returns:
        (N, T, S, S) in 0 … 1, on the CPU.
    """
    heat = F.interpolate(maps.float(), size=tuple(size), mode="trilinear", align_corners=False)
    heat = heat[:, 0]
    return (heat / heat.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)).cpu()
