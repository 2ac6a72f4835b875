"""The norm behind the last block: before a pooling of the tokens or after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from videonet.checkpoint.dialect import Tensors
from videonet.checkpoint.fit import Fit
from videonet.checkpoint.head import HEAD
from videonet.checkpoint.report import REINITIALISED
from videonet.checkpoint.target import Target

BEFORE, AFTER = "norm", "fc_norm"
LEAVES = ("weight", "bias")


def norm_as_in(tensors: Tensors, target: Target) -> Tensors:
    """Call the last norm as the model does, where the project has it in either place."""
    if not tensors.norm_follows_pooling or not _moves_behind_pooling(tensors, target):
        return tensors
    state, sources = dict(tensors.state), dict(tensors.sources)
    notes = tensors.notes
    if not tensors.of_pretraining:  # a state dict of a model built here may look the same
        note = f"{BEFORE} is taken for the norm behind the pooling, as {tensors.dialect} has it"
        notes = (*notes, note)
    for leaf in LEAVES:
        before, after = f"{BEFORE}.{leaf}", f"{AFTER}.{leaf}"
        state[after] = state.pop(before)
        sources[after] = sources.pop(before)
    return replace(tensors, state=state, sources=sources, notes=notes)


def fit_last_norm(tensors: Tensors, target: Target, fits: Mapping[str, Fit]) -> dict[str, Fit]:
    """A new last norm where the checkpoint has none for this place and the head is new as well.

    Returns:
        Its fits by name; none where it is loaded or its absence is an error.
    """
    if any(name.startswith(HEAD) and fit.value is not None for name, fit in fits.items()):
        return {}
    name = AFTER if _has(target.state, AFTER) else BEFORE
    if _moves_behind_pooling(tensors, target):
        reason = "new: the norm in the checkpoint was before a pooling"
    elif _has(tensors.state, BEFORE) or _has(tensors.state, AFTER):
        return {}
    elif name == AFTER:
        reason = "new, like the head"
    elif tensors.of_pretraining:
        reason = "new: the pre-training had none"
    else:
        return {}
    own = [f"{name}.{leaf}" for leaf in LEAVES if f"{name}.{leaf}" in target.state]
    return {name: Fit(None, REINITIALISED, reason) for name in own}


def _moves_behind_pooling(tensors: Tensors, target: Target) -> bool:
    """Whether only the checkpoint has a norm before, and only the model one after a pooling."""
    return (
        _has(tensors.state, BEFORE)
        and not _has(tensors.state, AFTER)
        and _has(target.state, AFTER)
        and not _has(target.state, BEFORE)
    )


def _has(names: Mapping, norm: str) -> bool:
    return all(f"{norm}.{leaf}" in names for leaf in LEAVES)
