"""The classifier of a checkpoint: kept for the same classes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from videonet.checkpoint.contents import class_names_of
from videonet.checkpoint.fit import Fit
from videonet.checkpoint.report import REINITIALISED
from videonet.errors import CheckpointError

HEAD = "head."


@dataclass(frozen=True)
class Classes:
    """What a model and a checkpoint say of their classes.

    Attributes:
        here: names of the model's classes in the order of its logits, None where unknown.
        there: those of the checkpoint.
        asked: somebody wants to know whether they are the same.
    """

    here: Sequence[str] | None = None
    there: Sequence[str] | None = None
    asked: bool = False

    @classmethod
    def of(cls, content: Mapping, here: Sequence[str] | None, origin: str) -> Classes:
        """From a checkpoint's content; numbers that stand for names count as unknown.

        Raises:
            CheckpointError: the checkpoint's ``class_names`` are no names.
        """
        there = class_names_of(content, origin)
        return cls(_known(here), _known(there), asked=here is not None)

    @property
    def differ(self) -> bool:
        """Both sides have names, and they are not the same ones."""
        if self.here is None or self.there is None:
            return False
        return sorted(self.here) != sorted(self.there)

    @property
    def note(self) -> str:
        """A sentence where only one side has names."""
        if not self.asked or (self.here is None) == (self.there is None):
            return ""
        side = "the checkpoint" if self.here is None else "this run"
        return f"only {side} names its classes: the others are taken to be in the same order"

    @property
    def order(self) -> list[int] | None:
        """The checkpoint's class of each class here; None where nothing has to change places."""
        if self.here is None or self.there is None:
            return None
        if self.differ or list(self.here) == list(self.there):
            return None
        if len(set(self.here)) < len(self.here):
            return None
        places = {name: index for index, name in enumerate(self.there)}
        return [places[name] for name in self.here]

    def difference(self) -> str:
        """A few of the names that only one side has."""
        here, there = self.here or (), self.there or ()
        more = [name for name in there if name not in set(here)][:3]
        less = [name for name in here if name not in set(there)][:3]
        return (
            f"the checkpoint has {', '.join(map(repr, more)) or 'none'} that this model lacks, and "
            f"lacks {', '.join(map(repr, less)) or 'none'}"
        )


def _known(names: Sequence[str] | None) -> Sequence[str] | None:
    return names if names and not _are_numbers(names) else None


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether the names are those that classes without names have."""
    return list(names) == [str(index) for index in range(len(names))]


def fit_head(
    fits: dict[str, Fit], classes: Classes, origin: str, *, new_head: bool = False
) -> dict[str, Fit]:
    """The head is loaded as a whole or not at all, its rows in the order of the model's classes.

    Args:
        new_head: leave the model's own, whatever the checkpoint has.

    Raises:
        CheckpointError: the names of the checkpoint's classes are not as many as its head has.
    """
    head = [name for name in fits if name.startswith(HEAD)]
    why = next((fits[name].reason for name in head if fits[name].misfit), None)
    if new_head:
        reason = "a new head was asked for"
    elif why is not None:
        reason = f"other classes, the model's own head stays: {why}"
    elif classes.differ:
        reason = f"other classes, the model's own head stays: {classes.difference()}"
    else:
        return _reordered(fits, head, classes, origin)
    return fits | {name: Fit(None, REINITIALISED, reason) for name in head}


def _reordered(
    fits: dict[str, Fit], head: Sequence[str], classes: Classes, origin: str
) -> dict[str, Fit]:
    if classes.there is not None:
        for name in head:
            value = fits[name].value
            if value is not None and len(value) != len(classes.there):
                raise CheckpointError(
                    f"{origin} names {len(classes.there)} classes, but its {name} has {len(value)}"
                )
    order = classes.order
    if order is None:
        return fits
    reason = "rows in the order of this model's classes"
    return fits | {
        name: replace(fits[name], value=_rows(value, order), reason=reason)
        for name in head
        if (value := fits[name].value) is not None
    }


def _rows(value: Tensor, order: Sequence[int]) -> Tensor:
    return value[torch.tensor(order, device=value.device)]
