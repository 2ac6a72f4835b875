"""What became of every tensor when a checkpoint was loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LOADED = "loaded"
INFLATED = "inflated"
INTERPOLATED = "interpolated"
PARTIAL = "partial"  # the head, for the classes that the checkpoint has
REINITIALISED = "re-initialised"
MISSING = "missing"
STATUSES = (LOADED, INFLATED, INTERPOLATED, PARTIAL, REINITIALISED, MISSING)

USED = "used"
DROPPED = "dropped"
UNEXPECTED = "unexpected"


@dataclass(frozen=True)
class Entry:
    """One tensor of the model or of the checkpoint.

    Attributes:
        name: of the tensor, in the model or in the checkpoint.
        status: for the model one of ``STATUSES``; for the checkpoint ``USED``, ``DROPPED`` (this
            model has no part for it, and that is fine) or ``UNEXPECTED``.
        reason: what was done, or why; empty where there is nothing to say.
        numel: number of values.
        fatal: strict loading refuses this.
    """

    name: str
    status: str
    reason: str = ""
    numel: int = 0
    fatal: bool = False


@dataclass(frozen=True)
class LoadReport:
    """Every tensor of a model and of the checkpoint that was loaded into it; print it.

    Attributes:
        origin: file, URL or "state dict"; dialect: whose names it used.
        target: one entry per parameter and buffer of the model.
        source: one entry per tensor of the checkpoint.
        notes: sentences on what holds, or does not hold, after this loading.
    """

    origin: str
    dialect: str
    target: tuple[Entry, ...]
    source: tuple[Entry, ...]
    notes: tuple[str, ...] = ()

    def names(self, status: str) -> list[str]:
        """Names of all tensors with that status."""
        return [entry.name for entry in (*self.target, *self.source) if entry.status == status]

    @property
    def loaded(self) -> list[str]:
        return self.names(LOADED)

    @property
    def inflated(self) -> list[str]:
        return self.names(INFLATED)

    @property
    def interpolated(self) -> list[str]:
        return self.names(INTERPOLATED)

    @property
    def partial(self) -> list[str]:
        return self.names(PARTIAL)

    @property
    def reinitialised(self) -> list[str]:
        return self.names(REINITIALISED)

    @property
    def missing(self) -> list[str]:
        return self.names(MISSING)

    @property
    def used(self) -> list[str]:
        return self.names(USED)

    @property
    def dropped(self) -> list[str]:
        return self.names(DROPPED)

    @property
    def unexpected(self) -> list[str]:
        return self.names(UNEXPECTED)

    @property
    def fatal(self) -> list[Entry]:
        """What strict loading refuses."""
        return [entry for entry in (*self.target, *self.source) if entry.fatal]

    def __str__(self) -> str:
        lines = [f"{self.origin} (names of {self.dialect})"]
        lines.append(f"{'':2}{'':16}{'tensors':>7}  {'values':>11}")
        for status in (*STATUSES, DROPPED, UNEXPECTED):
            entries = [e for e in (*self.target, *self.source) if e.status == status]
            if entries or status in (LOADED, MISSING, UNEXPECTED):
                values = sum(entry.numel for entry in entries)
                lines.append(
                    f"  {status:16}{len(entries):>7}  {values:>11,}  {_reasons(entries)}".rstrip()
                )
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def _reasons(entries: Sequence[Entry], most: int = 2, most_names: int = 8) -> str:
    """The distinct reasons, each with the first tensor it holds for; names of what is left over."""
    if entries and entries[0].status in (MISSING, UNEXPECTED):
        names = [entry.name for entry in entries]
        return ", ".join(names[:most_names]) + (" …" if len(names) > most_names else "")
    firsts: dict[str, str] = {}
    for entry in entries:
        if entry.status not in (LOADED, USED) or entry.reason:
            firsts.setdefault(entry.reason, entry.name)
    shown = [f"{name}: {why}" if why else name for why, name in list(firsts.items())[:most]]
    more = len(entries) - len(shown)
    return "; ".join(shown) + (" …" if shown and more > 0 else "")
