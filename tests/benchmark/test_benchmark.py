"""Benchmarks count, parse and measure right; whole comparisons run on a tiny model."""

import argparse
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from videonet.benchmark import model, scaling
from videonet.benchmark.arguments import add_model, add_scaling
from videonet.benchmark.candidates import Candidate, parse_candidate
from videonet.benchmark.flops import multiply_adds
from videonet.benchmark.machine import describe, product_rate
from videonet.benchmark.report import plot_models, plot_scaling, table
from videonet.benchmark.steps import Task
from videonet.benchmark.worker import Worker
from videonet.errors import ConfigError, VideonetError


def test_candidates_are_named_in_one_line():
    assert parse_candidate("mvit_v2_s") == Candidate("mvit_v2_s", "videonet", "mvit_v2_s")
    assert parse_candidate("timm:mvitv2_tiny@bf16+compile") == Candidate(
        "timm:mvitv2_tiny@bf16+compile", "timm", "mvitv2_tiny", "bf16", True
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("torchvision mvit", "is not"),
        ("keras:mvit_v2_s", "unknown 'keras', expected one of videonet, reference"),
        ("mvit_v2_s@int8", "unknown 'int8', expected one of fp32, bf16, fp16"),
    ],
)
def test_what_is_no_candidate_is_explained(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_candidate(text)


@pytest.mark.parametrize(
    "text, message",
    [
        ("torchvision:mvit_v9", "has no model 'mvit_v9'"),
        ("mvit_v9", "unknown model 'mvit_v9'"),
        ("timm:mvitv2_tiny", "takes images"),
        ("transformers:bert", "not known here, only cvt_13"),
        ("transformers:cvt_13", "takes images only"),
    ],
)
def test_models_that_do_not_exist_are_named(text, message):
    library = text.partition(":")[0]
    if library in ("timm", "transformers"):
        pytest.importorskip(library)
    with pytest.raises(ConfigError, match=message):
        parse_candidate(text).build(16, 224)


@pytest.mark.parametrize("name, frames, shape", [("videomae_s", 4, (4,)), ("cvt_13", 1, ())])
def test_models_of_transformers_give_logits(name, frames, shape):
    pytest.importorskip("transformers")
    model = parse_candidate(f"transformers:{name}").build(frames, 32).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 3, *shape, 32, 32))
    assert logits.dim() == 2 and len(logits) == 2


def test_multiply_adds_of_a_step():
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, padding=1, groups=8)
    )
    first, second = 10 * 10 * 4 * 8 * 9, 10 * 10 * 8 * 9
    assert multiply_adds(net, (2, 4, 10, 10)) == 2 * (first + second)
    # The first layer's input needs no gradient.
    expected = 2 * (2 * first + 3 * second)
    assert multiply_adds(net, (2, 4, 10, 10), training=True) == expected


def test_the_machine_is_described_and_multiplies():
    assert describe("cpu")["torch"] == torch.__version__
    assert 1e8 < product_rate("cpu", torch.float32, seconds=0.0) < 1e14


COME_AND_GONE = """
import torch
from videonet.benchmark.machine import PeakMemory

memory = PeakMemory("cpu")
torch.ones(50_000_000)
print(memory.peak())
memory.restart()
print(memory.peak())
"""


def test_peak_memory_sees_what_came_and_went():
    # In a process of its own, where nothing of other tests is freed meanwhile.
    done = subprocess.run(
        [sys.executable, "-c", COME_AND_GONE], capture_output=True, text=True, check=True
    )
    with_tensor, without = map(float, done.stdout.split())
    assert 190e6 < with_tensor < 300e6
    assert without < 100e6


def results():
    """Of a comparison that never ran."""
    rows = [
        {
            "candidate": name,
            "parameters": 10,
            "memory": memory,
            "clips_per_second": speed,
            "times_first": speed / 2,
            "multiply_adds": 3e9,
            "rate": 4e10,
            "share": 3e9 * speed / 4e10,
            "turns": [],
        }
        for name, speed, memory in (("torchvision:a", 2.0, 4e8), ("b@bf16", 6.0, 1e8))
    ]
    task = {"batch": 1, "frames": 8, "size": 64, "device": "cpu"}
    mode = {"task": task, "machine": {"cpu": "abacus"}, "candidates": rows}
    return {"clock": "wall", "modes": {"inference": mode, "training": mode}}


def test_report_and_picture_of_a_comparison(tmp_path):
    text = model.report(results())
    line = next(line for line in text.splitlines() if "b@bf16" in line)
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "b@bf16", "6.00", "3.00", "100", "25", "3.0", "18", "45 %",
    ]  # fmt: skip
    assert "abacus" in text and "bf16 40 Gmadd/s, fp32 40 Gmadd/s" in text
    plot_models(results(), tmp_path / "models.png")
    assert (tmp_path / "models.png").stat().st_size > 10_000


def test_a_table_is_even():
    lines = table(("name", "n"), [("a", "1"), ("long name", "23")]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2] == "| a         |  1 |"


def test_growth_is_the_slope_of_logarithms(tmp_path):
    points = [
        {"frames": n, "size": 64, "multiply_adds": n * 1e9, "seconds": n**2.0, "memory": 5.0 * n}
        for n in (1, 2, 4)
    ]
    points.append({"frames": 8, "size": 64, "error": "too long"})
    assert scaling.exponent(points, "seconds") == pytest.approx(2)
    assert scaling.exponent(points, "memory") == pytest.approx(1)
    result = {"candidates": {"m": {"frames": points, "size": points[:1]}}}
    assert "time grows to the power 2.00, memory to the power 1.00" in scaling.report(result)
    assert "too long" in scaling.report(result)
    plot_scaling(result, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


TINY = ["--frames", "2", "--size", "32", "--threads", "1", "--rounds", "2", "--seconds", "0"]


def run(module, arguments):
    parser = argparse.ArgumentParser()
    {model: add_model, scaling: add_scaling}[module](parser)
    return module.run(parser.parse_args(arguments + TINY))


@pytest.mark.slow
def test_models_take_turns(tmp_path):
    candidates = ["reference:mvit_v2_xs", "mvit_v2_xs", "mvit_v2_xs@bf16"]
    text = run(model, [*candidates, "--output", str(tmp_path / "out" / "xs")])
    written = json.loads((tmp_path / "out" / "xs.json").read_text())
    assert (tmp_path / "out" / "xs.png").exists()
    for mode, batch in (("inference", 1), ("training", 2)):
        result = written["modes"][mode]
        assert result["task"]["batch"] == batch
        assert [row["candidate"] for row in result["candidates"]] == candidates
        for row in result["candidates"]:
            assert len(row["turns"]) == 2
            assert row["memory"] > 4 * row["parameters"] * (mode == "training")
            assert 0 < row["share"] < 1
            assert row["candidate"] in text
        assert result["candidates"][0]["times_first"] == 1
    infer, train = (written["modes"][m]["candidates"][0] for m in ("inference", "training"))
    assert 2.5 < train["multiply_adds"] / infer["multiply_adds"] / 2 < 3.1


@pytest.mark.slow
def test_clips_grow(tmp_path):
    arguments = ["mvit_v2_xs", "--all-frames", "2", "4", "--all-sizes", "32", "64"]
    text = run(scaling, [*arguments, "--output", str(tmp_path / "grow")])
    sweeps = json.loads((tmp_path / "grow.json").read_text())["candidates"]["mvit_v2_xs"]
    assert [(p["frames"], p["size"]) for p in sweeps["frames"]] == [(2, 32), (4, 32)]
    assert [(p["frames"], p["size"]) for p in sweeps["size"]] == [(2, 32), (2, 64)]
    assert all(p["seconds"] > 0 and p["memory"] > 0 for p in sweeps["frames"] + sweeps["size"])
    assert "time grows to the power" in text


@pytest.mark.slow
def test_what_fails_over_there_is_told_here():
    task = Task(False, 1, 2, 32, "cpu", 1)
    with Worker(parse_candidate("mvit_v9"), task) as worker:
        with pytest.raises(VideonetError, match="mvit_v9: ConfigError: unknown model"):
            worker.ready()
        with pytest.raises(VideonetError, match="AttributeError"):
            worker.turn(0)


def test_the_time_of_one_process_needs_one_thread():
    with pytest.raises(ConfigError, match="give --threads 1"):
        run(model, ["mvit_v2_xs", "--clock", "cpu", "--device", "cuda"])
