"""Renaming by tables: rows of two name templates, readable in both directions.

A template is a parameter name in which ``{field}`` stands for a part that both names share, for
instance ``blocks.{n}.attn.pool_{p}.weight``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property

FIELDS = {
    "n": r"\d+",
    "m": r"\d+",
    "p": r"[qkv]",
    "axis": r"[thw]",
    "leaf": r"weight|bias",
    "tensor": r"weight|bias|running_mean|running_var|num_batches_tracked",  # of a norm
    "any": r".+",
}


@cache
def compile_template(template: str) -> re.Pattern[str]:
    """A pattern for whole names; every field of the template is a group of that name."""
    parts = re.split(r"\{(\w+)\}", template)
    pattern = ""
    for i, part in enumerate(parts):
        pattern += f"(?P<{part}>{FIELDS[part]})" if i % 2 else re.escape(part)
    return re.compile(pattern)


@dataclass(frozen=True)
class Row:
    """One kind of parameter: its name elsewhere and here.

    Args:
        theirs, ours: templates with the same fields.
        leading_dims: dimensions of size 1 that ours has in front and theirs has not.
    """

    theirs: str
    ours: str
    leading_dims: int = 0

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        return compile_template(self.theirs), compile_template(self.ours)

    def to_ours(self, name: str) -> str | None:
        """The name here of a parameter named as elsewhere, or None where the row is another's."""
        match = self._patterns[0].fullmatch(name)
        return match and self.ours.format(**match.groupdict())

    def to_theirs(self, name: str) -> str | None:
        """The other direction."""
        match = self._patterns[1].fullmatch(name)
        return match and self.theirs.format(**match.groupdict())


def has_names(names: Iterable[str], marks: Iterable[str]) -> bool:
    """Whether every mark (a template) fits one of the names."""
    names = list(names)
    patterns = [compile_template(mark) for mark in marks]
    return all(any(pattern.fullmatch(name) for name in names) for pattern in patterns)
