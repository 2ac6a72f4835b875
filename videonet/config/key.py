"""What a key of the configuration is, and a group of keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        default: the value where nothing sets the key.
        text: what the key does.
        own: PySlowFast does not have this key.
        optional: type of the other values of a key whose default is None.
    """

    default: Any
    text: str
    own: bool = False
    optional: type | None = None

    @property
    def kind(self) -> type:
        """The type of the values, beside None where the key is optional."""
        return self.optional or type(self.default)


@dataclass(frozen=True)
class Group:
    """Keys, and groups within, that belong together.

    Attributes:
        text: what the keys are about.
        members: the keys and groups by their last name.
    """

    text: str
    members: dict[str, Key | Group] = field(default_factory=dict)


def walk_groups(group: Group, name: str = "") -> Iterator[tuple[str, Group]]:
    """`group` and all groups below it, by dotted name.

    Args:
        group: where to begin.
        name: its dotted name.
    """
    yield name, group
    for last, member in group.members.items():
        if isinstance(member, Group):
            yield from walk_groups(member, dotted(name, last))


def dotted(group: str, name: str) -> str:
    """``A.B`` for a name in a group; the name alone where the group has none."""
    return f"{group}.{name}" if group else name
