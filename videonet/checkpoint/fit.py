"""The verdict on one parameter: what it gets from a checkpoint, and how that came about."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from videonet.checkpoint.report import REINITIALISED


@dataclass(frozen=True)
class Fit:
    """What a parameter of the model gets.

    Attributes:
        value: in the shape of the parameter; None to leave the parameter as it is.
        status, reason: for the load report.
        misfit: the checkpoint has a tensor, but it cannot be brought into the shape.
    """

    value: Tensor | None
    status: str
    reason: str = ""
    misfit: bool = False


def misfit(target: Tensor, source: Tensor, why: str = "") -> Fit:
    """The verdict for a tensor whose shape nothing can bridge."""
    shapes = f"{tuple(target.shape)} here, {tuple(source.shape)} in the checkpoint"
    return Fit(None, REINITIALISED, f"{shapes}{why and ': '}{why}", misfit=True)
