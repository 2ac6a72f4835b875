"""Norms of a backbone's outputs, which classification models lack, and the other way round."""

from __future__ import annotations

from collections.abc import Mapping

from videonet.checkpoint.dialect import Tensors
from videonet.checkpoint.fit import Fit
from videonet.checkpoint.last_norm import AFTER, BEFORE
from videonet.checkpoint.report import REINITIALISED
from videonet.checkpoint.target import Target

OUTPUTS = "output_norms."
LAST = (f"{BEFORE}.", f"{AFTER}.")
OFFICIAL_WINDOWS = {"padded_keys": True, "window_rule": "detection"}


def fit_output_norms(tensors: Tensors, target: Target) -> dict[str, Fit]:
    """New norms, where the checkpoint has those of the other kind of model alone.

    Args:
        tensors: of the checkpoint; target: the model.

    Returns:
        Fits by name; none where the norms are loaded or their absence is an error.
    """
    has_outputs, has_last = has_any(tensors.state, (OUTPUTS,)), has_any(tensors.state, LAST)
    new: dict[str, str] = {}
    if not has_outputs:
        new[OUTPUTS] = "new: the checkpoint has no norms of outputs"
    if has_outputs and not has_last:
        new |= dict.fromkeys(LAST, "new: the checkpoint has norms of its outputs instead")
    return {
        name: Fit(None, REINITIALISED, reason)
        for start, reason in new.items()
        for name in target.state
        if name.startswith(start)
    }


def why_without_place(name: str, target: Target) -> str:
    """Why the model has no part for a norm behind the last block or of an output; or ""."""
    if name.startswith(OUTPUTS):
        return "this model has no norm of that output"
    if name.startswith(LAST) and not has_any(target.state, LAST):
        return "this model has no norm behind its last block"
    return ""


def note_on_windows(tensors: Tensors, target: Target) -> tuple[str, ...]:
    """That a model cuts windows otherwise than the official detector whose backbone is loaded."""
    official = tensors.dialect == "detectron2 vit" or (
        has_any(tensors.state, (OUTPUTS,))
        and not any(OUTPUTS in name for names in tensors.sources.values() for name in names)
    )
    for option, value in OFFICIAL_WINDOWS.items() if official else ():
        found = {getattr(m, option) for m in target.modules.values() if hasattr(m, option)}
        if found and value not in found:
            return (
                f"the official detectors attend to the padding of windows: {option}={value!r} "
                "gives the maps that these weights are trained for",
            )
    return ()


def has_any(names: Mapping, starts: tuple[str, ...]) -> bool:
    """Whether one of the names begins so."""
    return any(name.startswith(starts) for name in names)
