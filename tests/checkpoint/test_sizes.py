"""Checkpoints that are small as files and very large as what they stand for."""

from __future__ import annotations

import pytest
import torch

from videonet.checkpoint import read_checkpoint
from videonet.errors import CheckpointError


def held_often(levels, inner):
    for _ in range(levels):
        inner = {f"{k}": inner for k in range(100)}
    return inner


def deep(levels):
    inner = []
    for _ in range(levels):
        inner = [inner]
    return inner


def ring():
    inner = {"weights": torch.zeros(2)}
    inner["model"] = inner
    return inner


LARGE = {
    "dictionaries that are held often": (held_often(5, {"a": torch.zeros(1)}), "10,000,000 values"),
    "lists that are held often": ({"class_names": list(held_often(5, [0]).values())}, "values"),
    "lists within lists": ({"class_names": deep(300)}, "more than 50 containers"),
    "a dictionary that holds itself": (ring(), "contains itself"),
    "one number as a matrix": (
        {"model_state": {"head.weight": torch.zeros(1).expand(10**6, 10**6)}},
        "to 3,814,697 MiB.*repeat the same numbers",
    ),
    "one number as many matrices": (
        {"model_state": {f"{k}": torch.zeros(1).expand(1000, 4000) for k in range(20)}},
        "repeat the same numbers",
    ),
    "shapes without numbers": ({"model_state": {"a": torch.empty(3, device="meta")}}, "meta"),
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_bomb_is_refused_in_one_sentence(tmp_path, kind):
    content, message = LARGE[kind]
    path = tmp_path / "a.pyth"
    torch.save(content, path)
    assert path.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_tied_weights_and_views_are_read(tmp_path):
    weight = torch.arange(12.0).reshape(3, 4)
    state = {"a": weight, "b": weight, "c": weight.T, "mask": torch.ones(1, 1).expand(8, 8)}
    torch.save(
        {"model_state": state, "ema_state": state, "history": list(range(1000))}, tmp_path / "a"
    )
    found = read_checkpoint(tmp_path / "a")["model_state"]
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
