"""The kernels for GPUs on a machine without one: interpreted, compiled, and as operators."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from videonet.ops import attention
from videonet.ops.depthwise import depthwise_conv
from videonet.ops.kernels import gpu
from videonet.ops.pooling_attention import PoolingAttention

pytest.importorskip("triton", reason="Triton has no wheel for this machine")
REPOSITORY = Path(__file__).resolve().parents[2]
GRID = (2, 4, 4)


def run(*command: str, **environment: str) -> str:
    """Run Python in a process of its own: Triton decides once whether it interprets."""
    result = subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


CASES = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/ops/triton_cases.py", "-m")


def test_interpreted_kernels():
    assert "passed" in run(*CASES, "not slow", TRITON_INTERPRET="1")


@pytest.mark.slow
def test_interpreted_kernels_in_all_types():
    assert "passed" in run(*CASES, "slow", TRITON_INTERPRET="1")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_for_gpus(capability, dtype, tmp_path):
    arguments = ("-m", "tests.ops.triton_compile", str(capability), dtype)
    found = run(*arguments, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")
    lines = [line.split() for line in found.splitlines()]
    assert len(lines) == 9
    if capability == 80:  # its code runs on smaller cards too, which have 99 KiB
        assert max(int(line[1]) for line in lines) <= 99 * 1024


@pytest.fixture
def on_the_cpu(monkeypatch):
    """The ways of GPUs on the CPU, where the operators compute with torch's own."""
    monkeypatch.setattr(gpu, "_on_gpu", lambda *tensors: True)
    monkeypatch.setattr(gpu, "attends", gpu.usable)  # in fp32 too
    monkeypatch.setattr(attention, "MIN_LOGITS", float("inf"))
    called = []
    for name in ("DEPTHWISE", "POOL_NORM", "TWO_PART_ATTENTION"):
        kernel = getattr(gpu, name)
        monkeypatch.setattr(kernel, "trusted", {torch.float32: True})
        fast = kernel.fast
        monkeypatch.setattr(
            kernel, "fast", lambda *a, fast=fast, name=name: called.append(name) or fast(*a)
        )
    return called


def pooling_attention_layer(**options) -> PoolingAttention:
    torch.manual_seed(0)
    layer = PoolingAttention(
        12, 24, 2, GRID, q_kernel=(3, 3, 3), kv_kernel=(3, 3, 3),
        **{"q_stride": (1, 2, 2), "kv_stride": (1, 4, 4)} | options,
    )  # fmt: skip
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


def results(layer, x: torch.Tensor) -> list[torch.Tensor]:
    layer.zero_grad()
    x = x.clone().requires_grad_()
    y, _ = layer(x, GRID)
    (y * torch.arange(y.numel()).cos().view_as(y)).sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())]


def check_equal(found, expected) -> None:
    largest = max(t.abs().max() for t in expected[1:])
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-5 * max(b.abs().max(), 0.1 * largest)


@pytest.mark.parametrize("options", [{}, {"cls_token": False}, {"q_stride": (1, 1, 1)}])
def test_pooling_attention_by_the_operators(options, request):
    layer = pooling_attention_layer(**options)
    x = torch.randn(2, layer.num_prefix_tokens + 32, 12)
    expected = results(layer, x)
    called = request.getfixturevalue("on_the_cpu")
    check_equal(results(layer, x), expected)
    assert called == ["POOL_NORM", "TWO_PART_ATTENTION"]


@pytest.mark.parametrize(
    "options", [{"pool_first": True}, {"separate_qkv": True}, {"kv_kernel": (1, 3, 3)}]
)
def test_layers_that_cannot_pool_at_once(options, request):
    layer = pooling_attention_layer(**options) if "kv_kernel" not in options else PoolingAttention(
        12, 24, 2, GRID, q_kernel=(3, 3, 3), q_stride=(1, 1, 1), kv_stride=(1, 2, 2), **options
    )  # fmt: skip
    x = torch.randn(2, 33, 12)
    expected = results(layer, x)
    called = request.getfixturevalue("on_the_cpu")
    check_equal(results(layer, x), expected)
    assert called[:3] == 3 * ["DEPTHWISE"] and "POOL_NORM" not in called


def test_a_layer_with_a_hook_is_called(on_the_cpu):
    layer = pooling_attention_layer()
    seen = []
    layer.norm_k.register_forward_hook(lambda *arguments: seen.append(1))
    layer(torch.randn(2, 33, 12), GRID)
    assert seen == [1] and "POOL_NORM" not in on_the_cpu


@pytest.mark.skipif(
    not hasattr(torch.compiler, "is_exporting"),
    reason="before torch 2.7 compilers see plain operators, as exports do",
)
def test_compiled_as_one_graph(request):
    layer = pooling_attention_layer()
    x = torch.randn(2, 33, 12)
    expected = results(layer, x)
    request.getfixturevalue("on_the_cpu")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    check_equal(results(compiled, x), expected)


def test_an_export_is_free_of_the_operators(on_the_cpu):
    layer = pooling_attention_layer().eval()
    program = torch.export.export(layer, (torch.randn(2, 33, 12), GRID))
    assert "videonet" not in str(program.graph) and not on_the_cpu


def test_transforms_see_the_operators_of_torch(on_the_cpu):
    layer = pooling_attention_layer().eval()
    x = torch.randn(3, 2, 33, 12)
    y = torch.func.vmap(lambda x: layer(x, GRID)[0])(x)
    assert not on_the_cpu
    check_equal([y, y], [torch.stack([layer(clip, GRID)[0] for clip in x])] * 2)
    assert on_the_cpu


@pytest.mark.parametrize("heads", [1, 2])
def test_operators_keep_the_rules_of_torch(heads):
    from videonet.ops.kernels.cuda.attention import two_part_attention
    from videonet.ops.kernels.cuda.depthwise import depthwise_conv as operator
    from videonet.ops.kernels.cuda.pool_norm import pool_norm

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, requires_grad=True)

    volume = torch.randn(2, 2, 3, 4, 2 * heads).permute(0, 4, 1, 2, 3).requires_grad_()
    arguments = (volume, draw(2, 1, 3, 3, 3), draw(2 * heads), (1, 2, 2), (1, 1, 1))
    torch.library.opcheck(operator, arguments)
    arguments = (draw(2, heads, 5, 4), draw(2, heads, 5, 3), draw(2, heads, 6, 7))
    torch.library.opcheck(two_part_attention, (*arguments, draw(2, heads, 6, 4)))
    arguments = (draw(2, 1 + 12, 3, heads, 4), draw(3, 4, 1, 3, 3, 3), draw(3, 4), draw(3, 4))
    steps = ((1, 3, 4), (1, 1, 1), (1, 2, 2), 1e-6, False)
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(pool_norm, (*arguments, *steps), test_utils=tests)


def test_operations_are_counted_as_those_of_torch(on_the_cpu, monkeypatch):
    volume, weight = torch.randn(2, 8, 2, 4, 4), torch.randn(8, 1, 3, 3, 3, requires_grad=True)
    counts = []
    for usable in (True, False):
        monkeypatch.setattr(gpu, "INSTALLED", usable)
        with FlopCounterMode(display=False) as counter:
            depthwise_conv(volume, weight, None, (1, 2, 2), (1, 1, 1))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_nothing_is_loaded_before_it_is_needed():
    code = "import sys, videonet; sys.exit('triton' in sys.modules)"
    run("-c", code)


def test_the_kernels_step_aside_on_the_cpu():
    x = torch.zeros(1)
    assert not gpu.usable(x) and not gpu.attends(x, x, x, x)


def test_a_kernel_that_gives_other_numbers_is_left_out(monkeypatch, caplog):
    kernel = gpu.TritonKernel(
        "wrong gradient",
        lambda x: x.detach() + 0 * x,
        lambda x: x + 0,
        lambda dtype: (torch.ones(3, dtype=dtype, requires_grad=True),),
    )
    x = torch.ones(2, requires_grad=True)
    assert torch.autograd.grad(kernel(x).sum(), x)[0].tolist() == [1, 1]
    assert "wrong gradient" in caplog.text and "other numbers" in caplog.text
