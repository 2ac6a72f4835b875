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
from videonet.ops.clip_norm import ClipNorm
from videonet.ops.conv_attention import ConvAttention
from videonet.ops.depthwise import depthwise_conv
from videonet.ops.dilated_attention import MultiScaleDilatedAttention
from videonet.ops.kernels import gpu
from videonet.ops.pooling_attention import PoolingAttention
from videonet.ops.shift import TIME, WIDTH, CycleFC, block_plan, shift_channels
from videonet.ops.window_attention import StageWindows, WindowAttention
from videonet.ops.windows import Windows, relative_rows

pytest.importorskip("triton", reason="Triton has no wheel for this machine")
REPOSITORY = Path(__file__).resolve().parents[2]
GRID = (2, 4, 4)
KERNELS = [name for name, value in vars(gpu).items() if isinstance(value, gpu.TritonKernel)]


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
    assert len(lines) == 22
    assert all(int(line[-2]) <= 16 for line in lines), found  # bytes of the stack
    if capability == 80:  # its code runs on smaller cards too, which have 99 KiB
        assert max(int(line[1]) for line in lines) <= 99 * 1024


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", gpu.TYPES)
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_pass_their_trial_on_a_device(name, dtype, device):
    if device.type != "cuda":
        pytest.skip("Triton's kernels are for CUDA")
    if dtype is torch.float32 and name in ("TWO_PART_ATTENTION", "WINDOW_ATTENTION"):
        pytest.skip("attention in fp32 is torch's")
    assert getattr(gpu, name).find_fault(dtype) is None


@pytest.fixture
def on_the_cpu(monkeypatch):
    """The ways of GPUs on the CPU, where the operators compute with torch's own."""
    monkeypatch.setattr(gpu, "_on_gpu", lambda *tensors: True)
    monkeypatch.setattr(gpu, "attends", gpu.usable)  # in fp32 too
    monkeypatch.setattr(gpu, "attends_in_windows", lambda bias, width: gpu.usable(bias))
    monkeypatch.setattr(attention, "MIN_LOGITS", float("inf"))
    called = []
    for name in KERNELS:
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


class OnGrid(torch.nn.Module):
    """A layer of tokens (B, T, H, W, C) that is called like one of tokens in a row."""

    def __init__(self, layer, call=None):
        super().__init__()
        self.layer, self.call = layer, call or layer
        torch.manual_seed(0)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.3)

    def forward(self, x: torch.Tensor, grid):
        return self.call(x.unflatten(1, grid)).flatten(1, 3), grid


def window_layer(window=(2, 3, 2), shift=(1, 0, 1), mask_time=False) -> OnGrid:
    layer = WindowAttention(12, 2, window)
    windows = Windows(GRID, window, shift)
    rows = relative_rows(window[0] * window[1] * window[2], window, window)
    plan = StageWindows.of(windows, rows, torch.zeros(1), mask_time)
    return OnGrid(layer, lambda x: layer(x, plan))


LAYERS = {
    "WINDOW_ATTENTION": window_layer,
    "DILATED_ATTENTION": lambda: OnGrid(
        MultiScaleDilatedAttention(12, 2, (3, 1, 3), [(1, 1, 1), (1, 1, 2)])
    ),
    "SHIFT": lambda: OnGrid(CycleFC(12, 8, 3, WIDTH)),
    "CLIP_NORM": lambda: OnGrid(ClipNorm(12)),
}


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


@pytest.mark.parametrize("name", LAYERS)
def test_layers_on_the_grid_by_the_operators(name, request):
    layer = LAYERS[name]()
    x = torch.randn(2, 32, 12)
    expected = results(layer, x)
    called = request.getfixturevalue("on_the_cpu")
    check_equal(results(layer, x), expected)
    assert called == [name]


@pytest.mark.parametrize(
    "options",
    [
        {"shift": (0, 0, 0)},
        {"window": (3, 2, 4), "shift": (1, 1, 2), "mask_time": True},  # padding in time
        {"window": (1, 4, 4), "shift": (0, 0, 0)},
    ],
)
def test_windows_of_other_kinds_by_the_operator(options, request):
    layer = window_layer(**options)
    x = torch.randn(2, 32, 12)
    expected = results(layer, x)
    request.getfixturevalue("on_the_cpu")
    check_equal(results(layer, x), expected)


def test_an_axial_shift_by_the_operator(request):
    x, plan = torch.randn(2, 3, 4, 2, 7), block_plan(7, 3)
    expected = shift_channels(x, plan, TIME)
    assert request.getfixturevalue("on_the_cpu") == []
    assert torch.equal(shift_channels(x, plan, TIME), expected)


def test_convolutional_projections_by_the_operator(request):
    cvt = ConvAttention(12, 2, kernel=(3, 3, 3), kv_stride=(1, 2, 2), kv_padding=(1, 1, 1))
    layer = OnGrid(cvt, lambda x: cvt(x.flatten(1, 3), GRID).unflatten(1, GRID))
    x = torch.randn(2, 32, 12)
    expected = results(layer, x)
    called = request.getfixturevalue("on_the_cpu")
    check_equal(results(layer, x), expected)
    assert called == 3 * ["DEPTHWISE"]


def test_attention_with_dropout_has_no_operator(on_the_cpu):
    layer = window_layer()
    layer.layer.attention_dropout = 0.5
    layer(torch.randn(2, 32, 12), GRID)
    assert not on_the_cpu


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
@pytest.mark.parametrize(
    "name",
    [
        name if name == "POOL_NORM" else pytest.param(name, marks=pytest.mark.slow)
        for name in ("POOL_NORM", *LAYERS)
    ],
)
def test_compiled_as_one_graph(name, request):
    layer = LAYERS.get(name, pooling_attention_layer)()
    x = torch.randn(2, 33 if name == "POOL_NORM" else 32, 12)
    expected = results(layer, x)
    request.getfixturevalue("on_the_cpu")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    check_equal(results(compiled, x), expected)


@pytest.mark.parametrize("name", ["POOL_NORM", *LAYERS])
def test_an_export_is_free_of_the_operators(name, on_the_cpu):
    layer = LAYERS.get(name, pooling_attention_layer)().eval()
    x = torch.randn(2, 33 if name == "POOL_NORM" else 32, 12)
    program = torch.export.export(layer, (x, GRID))
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
    from videonet.ops.kernels.cuda.clip_norm import clip_norm
    from videonet.ops.kernels.cuda.depthwise import depthwise_conv as operator
    from videonet.ops.kernels.cuda.dilated import dilated_attention
    from videonet.ops.kernels.cuda.pool_norm import pool_norm
    from videonet.ops.kernels.cuda.shift import shift
    from videonet.ops.kernels.cuda.window import window_attention

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
    qkv = draw(2, 2, 2, 4, 3, heads, 4)
    torch.library.opcheck(
        window_attention, (qkv, draw(heads, 8, 8), (2, 2, 2), (1, 0, 1), 2, 0.5), test_utils=tests
    )
    arguments = (qkv, (3, 3, 3), heads * (1, 1, 2), 0.5)
    torch.library.opcheck(dilated_attention, arguments, test_utils=tests)
    offsets = torch.arange(4, dtype=torch.int32) - 1
    torch.library.opcheck(shift, (draw(2, heads, 3, 2, 4), offsets, 1))
    arguments = (draw(2, heads, 3, 2, 4), draw(4), draw(4), 1e-5)
    torch.library.opcheck(clip_norm, arguments, test_utils=tests)


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
