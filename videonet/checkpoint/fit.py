"""The result of fitting one tensor of a checkpoint to one parameter of a model."""

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
        misfit: the checkpoint has a tensor of this name, but its shape does not fit.
    """

    value: Tensor | None
    status: str
    reason: str = ""
    misfit: bool = False


def misfit(target: Tensor, source: Tensor, why: str = "") -> Fit:
    """The result for a tensor that cannot be brought into the shape of the parameter.

    Args:
        target: the parameter.
        source: the tensor in the checkpoint.
        why: added to the reason in the report.
    """
    shapes = f"{tuple(target.shape)} here, {tuple(source.shape)} in the checkpoint"
    return Fit(None, REINITIALISED, f"{shapes}{why and ': '}{why}", misfit=True)
