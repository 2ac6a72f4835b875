"""Where a model looks: Grad-CAM over space and time, for any architecture.

It works on the grid of the last stage that ``forward_features`` gives and the logits depend on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.data.device import normalize
from videonet.errors import ConfigError
from videonet.ops.grid import Grid, volume
from videonet.predict.predictor import Predictor


@dataclass(frozen=True)
class GridLayer:
    """A tensor that goes into a module or comes out of it and holds the vectors of a grid.

    Attributes:
        of_input: among the module's inputs, else among its outputs.
        place: which of them, as they are given or in lists.
    """

    module: nn.Module
    grid: Grid
    of_input: bool = False
    place: int = 0

    def tensor(self, inputs: object, output: object) -> Tensor:
        """The tensor, of one call of the module."""
        return _tensors(inputs if self.of_input else output)[self.place]

    def cells(self, tensor: Tensor) -> Tensor | None:
        """The vectors of the cells as (B, C, T', H', W'); None where the tensor is something else.

        Class tokens, which come first, are left out.
        """
        if tensor.dim() == 5 and tuple(tensor.shape[2:]) == self.grid:
            return tensor
        if tensor.dim() == 5 and tuple(tensor.shape[1:4]) == self.grid:
            return tensor.permute(0, 4, 1, 2, 3)
        extra = tensor.shape[1] - volume(self.grid) if tensor.dim() == 3 else -1
        if extra in (0, 1):
            return tensor[:, extra:].unflatten(1, self.grid).permute(0, 4, 1, 2, 3)
        return None


def grid_layers(model: nn.Module, clip: Tensor) -> list[GridLayer]:
    """Where the maps of ``forward_features`` pass in ``forward``, the last stage and module first.

    After what a module gives comes what it was given, where that is on the same grid: of a model
    whose head reads a class token the last block's output has no gradient, but its input has.

    Args:
        clip: float (1, 3, T, H, W).
    """
    calls: list[tuple[nn.Module, list[Tensor], list[Tensor]]] = []

    def keep(module: nn.Module, inputs, output) -> None:
        calls.append((module, _tensors(inputs), _tensors(output)))

    with torch.no_grad():
        stages = model.forward_features(clip)
        inner = [module for module in model.modules() if module is not model]
        hooks = [module.register_forward_hook(keep) for module in inner]
        try:
            model(clip)
        finally:
            for hook in hooks:
                hook.remove()
    layers: list[GridLayer] = []
    for stage in reversed(stages):
        for module, inputs, outputs in reversed(calls):
            layers += _places_of(stage, module, inputs, outputs)
    return layers


def _places_of(
    stage: Tensor, module: nn.Module, inputs: list[Tensor], outputs: list[Tensor]
) -> list[GridLayer]:
    """Where a map is among what one call of a module gave and was given."""
    grid = tuple(stage.shape[2:])
    found = []
    for of_input, tensors in ((False, outputs), (True, inputs)):
        for place, tensor in enumerate(tensors):
            layer = GridLayer(module, grid, of_input, place)
            cells = layer.cells(tensor)
            if cells is not None and cells.shape == stage.shape and torch.equal(cells, stage):
                found.append(layer)
    if found and not found[-1].of_input and inputs:
        before = GridLayer(module, grid, of_input=True)
        if before.cells(inputs[0]) is not None:
            found.append(before)
    return found


def _tensors(value: object) -> list[Tensor]:
    """The tensors of a module's inputs or output, those in lists too."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


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
    for layer in grid_layers(model, x[:1]):
        found = _activation_and_gradient(model, x, labels, layer)
        if found is not None:
            activation, gradient = found  # (N, C, T', H', W')
            if weights == "cell":
                factor = gradient.relu()
            else:
                factor = gradient.mean(dim=(2, 3, 4), keepdim=True)
            heat = (factor * activation).sum(dim=1, keepdim=True).relu()
            return as_heat(heat, clips.shape[2:])
    raise ConfigError(
        f"{type(model).__name__} has no module between its feature maps and its logits to explain"
    )


def _activation_and_gradient(
    model: nn.Module, x: Tensor, labels: int | Tensor, layer: GridLayer
) -> tuple[Tensor, Tensor] | None:
    """Values on the layer's grid, and the gradient of the labels' logits; None without one."""
    kept: list[Tensor] = []

    def keep(_, inputs, output) -> None:
        kept[:] = [layer.tensor(inputs, output)]  # of the last call

    hook = layer.module.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(x.detach().requires_grad_())
    finally:
        hook.remove()
    rows = torch.arange(len(logits), device=logits.device)
    chosen = logits[rows, torch.as_tensor(labels, device=logits.device)].sum()
    if not kept or not kept[0].requires_grad:
        return None
    (gradient,) = torch.autograd.grad(chosen, kept, allow_unused=True)
    activation = layer.cells(kept[0].detach())
    gradient = None if gradient is None else layer.cells(gradient)
    if activation is None or gradient is None or not gradient.any():
        return None
    return activation, gradient


def as_heat(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (N, 1, T', H', W') at the size (T, S, S), each over its highest value."""
    heat = F.interpolate(maps.float(), size=tuple(size), mode="trilinear", align_corners=False)
    heat = heat[:, 0]
    return (heat / heat.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)).cpu()
