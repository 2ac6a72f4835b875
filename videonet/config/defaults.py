"""The configuration with every key at its default."""

from __future__ import annotations

import copy
from typing import Any

from fvcore.common.config import CfgNode

from videonet.config.key import Group
from videonet.config.keys import ROOT


def default_config() -> CfgNode:
    """Every key at its default, not frozen."""
    return CfgNode(defaults_of(ROOT))


def defaults_of(group: Group) -> dict[str, Any]:
    """The defaults of a group's keys by name, and of the groups within.

    Args:
        group: any group of keys.
    """
    return {
        name: defaults_of(member) if isinstance(member, Group) else copy.deepcopy(member.default)
        for name, member in group.members.items()
    }
