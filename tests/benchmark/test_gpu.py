"""The comparison of all families on one card, at tiny sizes on the CPU."""

import argparse
import json
import time

import pytest

from videonet.benchmark import gpu
from videonet.benchmark.arguments import add_gpu
from videonet.benchmark.candidates import parse_candidate
from videonet.benchmark.gpu import GROUPS, Group, Plan, Row
from videonet.benchmark.steps import Task
from videonet.errors import ConfigError
from videonet.models import registry

TASK = Task(training=False, batch=2, frames=2, size=32, device="cpu", threads=1)
PLAN = Plan(TASK, train_batch=2, dtype="fp32", rounds=2, seconds=0.0)
ABSENT = "hiera:hiera_of_nobody"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def made_up() -> Group:
    """A group whose numbers can be foretold."""
    slow, fast = Row("torchvision:a", multiply_adds=1e9), Row("b", multiply_adds=1e9)
    for row, factor in ((slow, 4.0), (fast, 1.0)):
        row.seconds = {name: [factor * s, factor * 3 * s] for name, s in
                       (("inference", 0.01), ("single", 0.001), ("training", 0.1))}  # fmt: skip
        row.memory = {"inference": factor * 1e9, "training": factor * 2e9}
    fast.seconds["graph"] = [0.0002, 0.0004]
    slow.skipped["graph"] = "RuntimeError: not permitted"
    return Group("torchvision:a,b", [slow, fast], 1e12, {"gpu": "abacus"})


def test_a_table_of_what_was_measured_and_what_was_not():
    groups = [made_up(), Group("c", problem="no time was left")]
    text = gpu.report(groups, PLAN)
    found = {row[0]: row for row in map(cells, text.splitlines()) if len(row) == len(gpu.HEADER)}
    assert found["b"] == ["b", "100.0", "4.00", "1.00", "10 %", "2.00", "0.30", "10.0", "4.00",
                          "2.00"]  # fmt: skip
    assert found["torchvision:a"][2] == found["torchvision:a"][6] == "–"
    assert "- torchvision:a, graph: RuntimeError: not permitted" in text
    assert "- c: no time was left" in text and "gpu abacus" in text


def test_a_group_measures_in_turn_and_says_who_is_missing():
    names = (ABSENT, "vit_xs")
    built = [gpu._build(name, PLAN) for name in names]
    group = gpu.measure_group(",".join(names), built, PLAN)
    absent, present = group.rows
    assert list(absent.skipped) == ["all"] and not absent.seconds
    assert set(present.seconds) == {"inference", "single", "training"}
    assert all(len(turns) == 2 and min(turns) > 0 for turns in present.seconds.values())
    assert present.memory["training"] > 0 and not present.skipped
    text = gpu.report([group], PLAN)
    assert f"- {ABSENT}: ConfigError: {ABSENT}: hiera " in text
    (row,) = (row for row in map(cells, text.splitlines()) if row[0] == "vit_xs")
    assert row[6] == "–", "there is no graph on the CPU"


def test_what_fails_in_one_measure_leaves_the_others():
    row, candidate, model = gpu._build("vit_xs", PLAN)
    model.head = None  # nothing to train, nothing to infer
    group = gpu.measure_group("vit_xs", [(row, candidate, model)], PLAN)
    assert set(group.rows[0].skipped) == {"inference", "single", "training"}
    assert "TypeError" in gpu.report([group], PLAN)


def test_every_family_is_in_it():
    models = [parse_candidate(name) for text in GROUPS for name in text.split(",")]
    ours = [c.model for c in models if c.library == "videonet"]
    for name in ours:
        assert name in registry.list_models(), name
    assert len(models) > len(ours)


def test_a_mistake_is_told_before_anything_is_measured():
    with pytest.raises(ConfigError, match="unknown 'keras'"):
        next(gpu.measure(["vit_xs", "keras:vit"], PLAN, end=0.0))


@pytest.mark.slow
def test_one_command_for_everything(tmp_path):
    parser = argparse.ArgumentParser()
    add_gpu(parser)
    words = "--device cpu --dtype fp32 --frames 2 --size 32 --batch 2 --train-batch 2 --rounds 2"
    words += f" --seconds 0 --threads 1 --groups {ABSENT},vit_xs mvit_v2_xs"
    args = parser.parse_args([*words.split(), "--output", str(tmp_path / "out" / "card")])
    text = gpu.run(args)
    assert (tmp_path / "out" / "card.md").read_text() == text + "\n"
    numbers = json.loads((tmp_path / "out" / "card.json").read_text())
    assert [len(group["rows"]) for group in numbers["groups"]] == [2, 1]
    assert "| vit_xs " in text and "| mvit_v2_xs " in text


@pytest.mark.slow
def test_groups_that_come_too_late_are_left_out():
    groups = list(gpu.measure(["vit_xs", "mvit_v2_xs"], PLAN, end=time.monotonic() - 1))
    assert [group.problem for group in groups] == ["no time was left"] * 2
