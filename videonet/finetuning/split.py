"""Which videos are held out of the training, so that the accuracy is one of unseen videos."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

SHARE = 0.2  # of the videos of each class that is held out
MOST = 200  # videos of a class that are held out


def hold_out(
    labels: Sequence[int],
    groups: Sequence[str] = (),
    copies: Sequence[int] = (),
    *,
    share: float = SHARE,
    seed: int = 0,
    most: int = MOST,
) -> set[int]:
    """Places of the videos that are held out, near `share` of each class.

    A group is held out as a whole, and so are copies. Every class keeps a video for training; a
    class of one video has none held out.

    Args:
        labels: of the videos.
        groups: name of the group of each video; empty for none.
        copies: for every video the one that it is a copy of; empty for none.
        share: 0 to 1.
        seed: of the order in which groups are tried.
        most: videos of a class that are held out.
    """
    units = _units(len(labels), groups, copies)
    totals = Counter(labels)
    wanted = {
        label: 0 if count < 2 else min(max(1, round(share * count)), most)
        for label, count in totals.items()
    }
    contents = [Counter(labels[k] for k in unit) for unit in units]
    order = np.random.default_rng(seed).permutation(len(units)).tolist()
    held: Counter[int] = Counter()
    chosen: set[int] = set()
    for exactly in (True, False):  # first without holding out more of a class than is wanted
        if not exactly:
            order.sort(key=lambda unit: -_worth(contents[unit], held, wanted, totals))
        for unit in order:
            content = contents[unit]
            over = any(held[label] + n > wanted[label] for label, n in content.items())
            worth = _worth(content, held, wanted, totals)
            if unit not in chosen and worth > 0 and not (over and exactly):
                chosen.add(unit)
                held.update(content)
    return {video for unit in chosen for video in units[unit]}


def together(count: int, groups: Sequence[str] = (), copies: Sequence[int] = ()) -> list[str]:
    """A name for each of so many videos, the same for those that stay on one side of a split.

    Args:
        count: the number of videos.
        groups, copies: see :func:`hold_out`.
    """
    names = [""] * count
    for number, unit in enumerate(_units(count, groups, copies)):
        name = (groups[unit[0]] if groups else "") or f"unit {number}"
        for video in unit:
            names[video] = name
    return names


def _units(count: int, groups: Sequence[str], copies: Sequence[int]) -> list[list[int]]:
    """Videos that stay together: groups, joined where a copy of a video is in another one."""
    of = list(range(count))

    def root(k: int) -> int:
        while of[k] != k:
            k = of[k]
        return k

    first: dict[str, int] = {}
    for k in range(count):
        if groups:
            of[root(k)] = root(first.setdefault(groups[k], k))
        if copies:
            of[root(k)] = root(copies[k])
    units: dict[int, list[int]] = defaultdict(list)
    for k in range(count):
        units[root(k)].append(k)
    return list(units.values())


def _worth(
    content: Counter[int], held: Counter[int], wanted: dict[int, int], totals: Counter[int]
) -> float:
    """How much nearer to what is wanted a unit brings; nothing where a class would lose its last.

    What goes beyond the wanted counts against it, so that small groups come before large ones.
    """
    worth = 0.0
    for label, count in content.items():
        if totals[label] - held[label] - count < 1:
            return 0.0
        missing = max(0, wanted[label] - held[label])
        useful = min(count, missing)
        worth += (useful - 0.5 * (count - useful)) / max(wanted[label], 1)
    return worth


def subset(
    labels: Sequence[int], share: float, groups: Sequence[str] = (), seed: int = 0
) -> set[int]:
    """Places of about `share` of the videos, some of each class and whole groups where there are.

    Args:
        labels: of the videos.
        share: 0 to 1.
        groups: name of the group of each video; empty for none.
        seed: of the order.
    """
    rest = hold_out(labels, groups, share=1 - share, seed=seed, most=len(labels))
    return set(range(len(labels))) - rest
