"""Parts of a list that are held out: groups as a whole, classes spread evenly."""

from collections import Counter

import numpy as np
import pytest

from videonet.data.folds import divide, groups_of, read_groups
from videonet.errors import DataError


def test_groups_stay_together_and_classes_are_spread():
    rng = np.random.default_rng(0)
    groups = [f"g{k}" for k in rng.integers(60, size=600)]
    labels = rng.integers(5, size=600).tolist()
    folds = divide(labels, groups, 4, seed=1)
    of_group = {group: {f for f, g in zip(folds, groups, strict=True) if g == group}
                for group in groups}  # fmt: skip
    assert all(len(found) == 1 for found in of_group.values())
    for label in range(5):
        shares = Counter(f for f, own in zip(folds, labels, strict=True) if own == label)
        assert min(shares.values()) > 0.7 * max(shares.values())
    assert np.array_equal(folds, divide(labels, groups, 4, seed=1))
    assert not np.array_equal(folds, divide(labels, groups, 4, seed=2))


def test_too_few_groups_are_named():
    with pytest.raises(DataError, match="2 groups, fewer than the 3 parts"):
        divide([0, 1, 0], ["a", "a", "b"], 3, seed=0)


def test_a_table_of_groups(tmp_path):
    table = tmp_path / "meta.csv"
    table.write_text("id,label,source\na,0,s1\nb,1,s1\nc,1,\nd,0,\n")
    groups = read_groups(table, "source")
    paths = ["x/b.mp4", "x/a.mp4", "x/c.mp4", "x/d.mp4"]
    assert groups_of(paths, groups, "t") == ["s1", "s1", "x/c.mp4", "x/d.mp4"]
    with pytest.raises(DataError, match=r"t names no group of x/e.mp4 \(1 of 1"):
        groups_of(["x/e.mp4"], groups, "t")
    with pytest.raises(DataError, match="its columns are id, label, source, expected group"):
        read_groups(table, "group")
