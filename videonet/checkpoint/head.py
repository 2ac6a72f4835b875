"""The classifier of a checkpoint: its rows for classes of the same name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from videonet.checkpoint.class_table import comparison, read_class_table, rows_by_name
from videonet.checkpoint.contents import class_names_of
from videonet.checkpoint.fit import Fit
from videonet.checkpoint.report import LOADED, PARTIAL, REINITIALISED
from videonet.errors import CheckpointError

HEAD = "head."
CLASSIFIER = "head.projection."  # whose rows are classes


@dataclass(frozen=True)
class Classes:
    """What a model and a checkpoint say of their classes.

    Attributes:
        here: names of the model's classes in the order of its logits, None where unknown.
        there: those of the checkpoint.
        asked: somebody wants to know whether they are the same.
        table: of other names, ``there -> here``.
    """

    here: Sequence[str] | None = None
    there: Sequence[str] | None = None
    asked: bool = False
    table: Mapping[str, str] | None = None

    @classmethod
    def of(
        cls,
        content: Mapping,
        here: Sequence[str] | None,
        origin: str,
        there: Sequence[str] | None = None,
        table: Mapping[str, str] | str | Path | None = None,
    ) -> Classes:
        """From a checkpoint's content; numbers that stand for names count as unknown.

        Args:
            content: of the checkpoint.
            here: names of the model's classes.
            origin: what messages call the checkpoint.
            there: names of the checkpoint's classes; None for its ``class_names``.
            table: of other names, or its file.

        Raises:
            CheckpointError: the checkpoint's ``class_names`` are no names, or there is a table and
                the model's classes have no names.
            DataError: the table cannot be read.
        """
        there = class_names_of(content, origin) if there is None else there
        asked = here is not None
        if table is not None and not asked:
            raise CheckpointError(
                "a table of classes needs the names of the model's classes (class_names)"
            )
        if isinstance(table, str | Path):
            table = read_class_table(table)
        # With a table, numbers are names.
        return cls(_names(here) if table is None else here, _names(there), asked, table)

    @property
    def differ(self) -> bool:
        """Both sides have names, and they are not the same ones."""
        if self.here is None or self.there is None:
            return False
        plain = comparison(self.here, self.there)
        return sorted(map(plain, self.here)) != sorted(map(plain, self.there))

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
        if self.here is None or self.there is None or self.differ:
            return None
        if len(set(self.here)) < len(self.here):
            return None
        order = [rows[0] for rows in rows_by_name(self.here, self.there)]
        return None if order == sorted(order) else order

    def rows(self, count: int) -> list[list[int]] | None:
        """Of a checkpoint with `count` classes, those that each class here begins with.

        None where there is nothing to go by.
        """
        if self.table is None and (self.here is None or self.there is None):
            return None
        there = self.there or [str(index) for index in range(count)]
        return rows_by_name(self.here or [], there, self.table)

    def difference(self) -> str:
        """A few of the names that only one side has; empty where one side has no names."""
        if self.here is None or self.there is None:
            return ""
        plain = comparison(self.here, self.there)
        ours, theirs = ({plain(name) for name in names} for names in (self.here, self.there))
        more = [name for name in self.there if plain(name) not in ours][:3]
        less = [name for name in self.here if plain(name) not in theirs][:3]
        return (
            f"the checkpoint has {', '.join(map(repr, more)) or 'none'} that this model lacks, and "
            f"lacks {', '.join(map(repr, less)) or 'none'}"
        )


def _names(names: Sequence[str] | None) -> Sequence[str] | None:
    """Names; None where there are none, or they are the numbers of classes without names."""
    if not names or list(names) == [str(index) for index in range(len(names))]:
        return None
    return names


def fit_head(
    fits: dict[str, Fit],
    classes: Classes,
    origin: str,
    source: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    *,
    new_head: bool = False,
) -> dict[str, Fit]:
    """The rows of the head that the model's classes have in the checkpoint.

    Without names on both sides it is loaded as a whole or not at all.

    Args:
        fits: of all parameters.
        classes: of both sides.
        origin: what messages call the checkpoint.
        source: tensors of the checkpoint under own names.
        target: parameters of the model.
        new_head: leave the model's own, whatever the checkpoint has.

    Raises:
        CheckpointError: the names of the checkpoint's classes are not as many as its head has.
    """
    head = [name for name in fits if name.startswith(HEAD)]
    rows = None if new_head else _rows(classes, head, source, origin)
    misfits = [name for name in head if fits[name].misfit]
    if new_head:
        reason = "a new head was asked for"
    elif rows is not None and any(rows) and not _body_misfits(misfits, source, target, rows):
        return fits | _by_rows(fits, head, rows, source, target)
    elif rows is not None and not any(rows):
        said = ("other classes, the model's own head stays", classes.difference())
        reason = ": ".join(filter(None, said))
    elif misfits:
        reason = f"other classes, the model's own head stays: {fits[misfits[0]].reason}"
    else:
        return fits
    return fits | {name: Fit(None, REINITIALISED, reason) for name in head}


def _rows(
    classes: Classes, head: Sequence[str], source: Mapping[str, Tensor], origin: str
) -> list[list[int]] | None:
    """The rows of the checkpoint's classifier of each class here, see :meth:`Classes.rows`."""
    for name in head:
        if name.startswith(CLASSIFIER) and name in source:
            count = len(source[name])
            if classes.there is not None and count != len(classes.there):
                raise CheckpointError(
                    f"{origin} names {len(classes.there)} classes, but its {name} has {count}"
                )
            return classes.rows(count)
    return None


def _body_misfits(
    misfits: Sequence[str],
    source: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    rows: Sequence[Sequence[int]],
) -> bool:
    """Whether a part of the head would not fit the model if it had the model's classes."""
    return any(
        not name.startswith(CLASSIFIER)
        or name not in source
        or source[name].shape[1:] != target[name].shape[1:]
        or len(target[name]) != len(rows)
        for name in misfits
    )


def _by_rows(
    fits: Mapping[str, Fit],
    head: Sequence[str],
    rows: Sequence[Sequence[int]],
    source: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
) -> dict[str, Fit]:
    """The classifier with the checkpoint's rows; several rows of one class become their mean."""
    count = next(len(source[name]) for name in head if name in source)
    kept = sum(map(bool, rows))
    if [list(own) for own in rows] == [[index] for index in range(count)]:
        return {}
    if len(rows) == count == kept and all(len(own) == 1 for own in rows):
        status, reason = LOADED, "rows in the order of this model's classes"
    else:
        status = PARTIAL
        reason = f"{kept} of {len(rows)} classes keep their rows of the checkpoint's {count}"
        reason += ", the others are new" if kept < len(rows) else ""
    fitted = {}
    for name in head:
        if not name.startswith(CLASSIFIER) or name not in source:
            continue
        theirs, own = source[name], target[name].detach()
        if theirs.is_meta or not theirs.is_floating_point():
            fitted[name] = Fit(theirs, status, reason)  # is refused with its name
            continue
        own = own.full_tensor() if hasattr(own, "full_tensor") else own
        dtype = torch.promote_types(own.dtype, theirs.dtype)
        value = own.to("cpu", dtype, copy=True)
        for index, found in enumerate(rows):
            if found:
                value[index] = theirs[torch.tensor(found)].to(dtype).mean(dim=0)
        fitted[name] = Fit(value, status, reason)
    return fitted
