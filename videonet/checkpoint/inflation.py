"""How each operator's parameters come from a model of fewer frames or of another grid.

The static-clip law: after centre-frame inflation, a clip that repeats one image gives the logits
that the image model gives for this image. Each function here does its part: convolutions put the
flat kernel into the centre frame, new temporal tables are zero, everything else is copied.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from videonet.checkpoint.bias_tables import BIAS_TABLE, fit_bias_table
from videonet.checkpoint.filters import GLOBAL_FILTER, fit_filter
from videonet.checkpoint.fit import Fit, misfit
from videonet.checkpoint.position_tables import POSITION_NAMES, fit_positions
from videonet.checkpoint.report import INFLATED, INTERPOLATED, LOADED, REINITIALISED
from videonet.checkpoint.target import Target
from videonet.errors import ConfigError
from videonet.ops.grid import Grid, resize_rows

METHODS = ("centre", "average")
# Modules of the clip model alone: what comes out of a `temporal_proj` is added to the image's
# branches, so that zero weights leave the image's function as it was.
TEMPORAL_PART = re.compile(r"(?:.*\.)?temporal_\w+(?:\..+)?")
TEMPORAL_OUTPUT = re.compile(r"(?:.*\.)?temporal_proj(?:\..+)?")
RELATIVE_TABLE = re.compile(r"(?:.*\.)?rel_pos_([thw])")


def fit_kernel(target: Tensor, source: Tensor, method: str) -> Fit:
    """A convolution kernel (O, I, t, h, w) for as many or more frames.

    "centre" puts the old taps in the middle, old ``t // 2`` on new ``t // 2``, and zeros around
    them (MViTv2, Sec. 4.3); "average" spreads their sum evenly over all taps (I3D,
    arXiv 1705.07750).
    """
    old, new = source.shape[2], target.shape[2]
    flat = (0, 1, 3, 4)
    if [source.shape[i] for i in flat] != [target.shape[i] for i in flat] or old > new:
        return misfit(target, source)
    if old == new:
        return Fit(source, LOADED)
    if method == "average":
        value = source.sum(dim=2, keepdim=True).expand(-1, -1, new, -1, -1) / new
        return Fit(value, INFLATED, f"temporal kernel {old} -> {new}, averaged")
    value = source.new_zeros(target.shape)
    start = new // 2 - old // 2
    value[:, :, start : start + old] = source
    return Fit(value, INFLATED, f"temporal kernel {old} -> {new}, centre")


def fit_relative_table(target: Tensor, source: Tensor) -> Fit:
    """A table of relative positions (R, D), linearly interpolated to another number of rows."""
    if source.dim() != 2 or source.shape[1] != target.shape[1]:
        return misfit(target, source)
    old, new = source.shape[0], target.shape[0]
    if old == new:
        return Fit(source, LOADED)
    return Fit(resize_rows(source.float(), new), INTERPOLATED, f"{old} -> {new} rows")


def fit_tensor(name: str, target: Tensor, source: Tensor, method: str) -> Fit:
    """One parameter that needs no other one to be understood."""
    if RELATIVE_TABLE.fullmatch(name):
        return fit_relative_table(target, source)
    if GLOBAL_FILTER.fullmatch(name):
        return fit_filter(target, source)
    if target.dim() == source.dim() == 5:
        return fit_kernel(target, source, method)
    return Fit(source, LOADED) if target.shape == source.shape else misfit(target, source)


def new_temporal_table(name: str, target: Tensor, source: Mapping[str, Tensor]) -> Fit | None:
    """Zeros for a temporal table that the checkpoint lacks while it has the spatial ones."""
    match = RELATIVE_TABLE.fullmatch(name)
    if match is None or match[1] != "t" or f"{name[:-1]}h" not in source:
        return None
    return Fit(torch.zeros_like(target), INFLATED, "zero: no temporal table in the checkpoint")


def new_relative_table(name: str, target: Target, source: Mapping[str, Tensor]) -> Fit | None:
    """Zeros where the checkpoint has no relative positions, in attentions that start with zeros."""
    module = target.modules[name.rpartition(".")[0]]
    if not RELATIVE_TABLE.fullmatch(name) or not getattr(module, "tables_start_at_zero", False):
        return None
    if any(RELATIVE_TABLE.fullmatch(other) for other in source):
        return None
    zeros = torch.zeros_like(target.state[name])
    return Fit(zeros, REINITIALISED, "zero: no relative positions in the checkpoint")


def new_temporal_part(name: str, target: Tensor) -> Fit | None:
    """What a parameter of a temporal branch gets where the checkpoint has no such branch."""
    if TEMPORAL_OUTPUT.fullmatch(name):
        return Fit(torch.zeros_like(target), INFLATED, "zero: no temporal branch in the checkpoint")
    if TEMPORAL_PART.fullmatch(name):
        return Fit(None, INFLATED, "as initialised, behind a zero projection")
    return None


def batches_from_zero(name: str, target: Tensor, source: Mapping[str, Tensor]) -> Fit | None:
    """The counter of a batch norm whose statistics come without one, as PyTorch loads it."""
    norm, _, leaf = name.rpartition(".")
    if leaf != "num_batches_tracked" or f"{norm}.running_mean" not in source:
        return None
    return Fit(torch.zeros_like(target), LOADED, "counts from 0: no counter in the checkpoint")


def fit_model(
    target: Target,
    source: Mapping[str, Tensor],
    method: str,
    antialias: bool | None = None,
    position_grid: Grid | None = None,
) -> dict[str, Fit]:
    """What every parameter and buffer of a model gets from tensors under own names.

    Names that are left out of the result have nothing in the checkpoint to come from.

    Args:
        target: the model.
        source: own name -> tensor of the checkpoint.
        method: one of ``METHODS``, for kernels of more frames.
        antialias, position_grid: see :func:`videonet.checkpoint.load.load_checkpoint`.

    Raises:
        ConfigError: unknown `method`.
    """
    if method not in METHODS:
        raise ConfigError(f"inflation is {method!r}, expected {' or '.join(METHODS)}")
    state = target.state
    image = all(kernel.shape[2] == 1 for kernel in source.values() if kernel.dim() == 5)
    fits: dict[str, Fit] = {}
    for name, own in state.items():
        prefix, _, leaf = name.rpartition(".")
        if leaf in POSITION_NAMES:
            if name not in fits:  # the tables of one module are fitted together
                fits |= fit_positions(
                    target.modules[prefix], prefix, state, source, antialias, position_grid
                )
        elif name in source and BIAS_TABLE.fullmatch(name):
            fits[name] = fit_bias_table(target.modules[prefix], own, source[name], image)
        elif name in source:
            fits[name] = fit_tensor(name, own, source[name], method)
        elif (
            (fit := new_temporal_table(name, own, source))
            or (fit := new_relative_table(name, target, source))
            or (fit := new_temporal_part(name, own))
            or (fit := batches_from_zero(name, own, source))
        ):
            fits[name] = fit
        elif leaf == "cls_token":
            fits[name] = Fit(None, REINITIALISED, "no class token in the checkpoint")
    return fits
