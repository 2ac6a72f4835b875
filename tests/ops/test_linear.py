"""Linear layers and MLPs through oneDNN give torch's numbers and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from videonet.ops import linear as linear_module
from videonet.ops.kernels import cpu
from videonet.ops.linear import call_linear, fast_linear
from videonet.ops.mlp import Mlp

DTYPES = [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)]


def draw(*shape, dtype=torch.float32, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))
    return x.to(dtype).requires_grad_()


def layouts(x):
    """The same numbers, differently laid out in memory."""
    wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)
    wide[..., : x.shape[-1]] = x
    return {
        "dense": x,
        "transposed": x.transpose(-1, -2).contiguous().transpose(-1, -2),
        "gaps": wide[..., : x.shape[-1]],
    }


def assert_near(found, expected, tolerance):
    assert found.shape == expected.shape
    error = (found.float() - expected.float()).abs().max()
    assert error <= tolerance * expected.abs().max().clamp_min(1)


@pytest.mark.parametrize("a", ["dense", "transposed", "gaps"])
@pytest.mark.parametrize("b", ["dense", "transposed", "gaps"])
@pytest.mark.parametrize("dtype, tolerance", DTYPES)
def test_products_of_any_layout(a, b, dtype, tolerance):
    x, y = draw(9, 5, dtype=dtype).detach(), draw(5, 12, dtype=dtype).detach()
    assert_near(cpu.product(layouts(x)[a], layouts(y)[b]), (x.double() @ y.double()), tolerance)
    y = draw(9, 12, dtype=dtype).detach()
    for left, right in ((layouts(x)[a], layouts(y)[b]), (layouts(y)[b], layouts(x)[a])):
        expected = left.double().t() @ right.double()
        assert_near(cpu.transposed_product(left, right), expected, tolerance)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", ["dense", "transposed", "gaps"])
@pytest.mark.parametrize("dtype, tolerance", DTYPES)
def test_linear_is_torchs(small_pieces, bias, layout, dtype, tolerance):
    x, weight = draw(2, 9, 5, dtype=dtype), draw(7, 5, dtype=dtype)
    leaves = [x, weight] + [draw(7, dtype=dtype)] * bias
    results = []
    for function in (fast_linear, F.linear):
        out = function(layouts(x)[layout], *leaves[1:])
        # A sum's gradient has no memory of its own.
        results.append((out, *torch.autograd.grad(out.sum(), leaves)))
    for found, expected in zip(*results, strict=True):
        assert_near(found, expected, tolerance)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype, tolerance", DTYPES)
def test_mlp_in_pieces_is_the_mlp(small_pieces, bias, dtype, tolerance):
    torch.manual_seed(0)
    mlp, x = Mlp(6, 24, 8, bias=bias).to(dtype), draw(3, 11, 6, dtype=dtype)
    weights = draw(3, 11, 8, dtype=dtype, seed=1).detach()

    def plain():
        return mlp.fc2(F.gelu(mlp.fc1(x)))

    results = []
    for function in (lambda: mlp(x), plain):
        out = function()
        assert ("_Mlp" in out.grad_fn.next_functions[0][0].name()) == (function is not plain)
        leaves = [x, *mlp.parameters()]
        results.append((out, *torch.autograd.grad((out * weights).sum(), leaves)))
    for found, expected in zip(*results, strict=True):
        assert_near(found, expected, tolerance)


def test_dropout_in_training_takes_the_usual_path(small_pieces):
    mlp, x = Mlp(6, 24, 6, dropout=0.5), draw(40, 6)
    assert (mlp(x) == 0).float().mean() > 0.2
    mlp.eval()
    torch.testing.assert_close(mlp(x), mlp.fc2(F.gelu(mlp.fc1(x))), atol=1e-6, rtol=1e-5)


def test_autocast_decides_the_type(small_pieces):
    layer, mlp, x = nn.Linear(6, 9), Mlp(6, 24, 6), draw(5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = call_linear(layer, x), mlp(x)
    assert all(out.dtype == torch.bfloat16 for out in outputs)
    sum(out.float().sum() for out in outputs).backward()
    assert x.grad.dtype == layer.weight.grad.dtype == mlp.fc1.weight.grad.dtype == torch.float32


def test_counters_see_torchs_own_product(small_pieces):
    layer, x = nn.Linear(6, 9), draw(5, 6)
    with FlopCounterMode(display=False) as counter:
        call_linear(layer, x)
    assert counter.get_total_flops() == 2 * 5 * 6 * 9


def test_other_types_and_devices_are_left_to_torch(small_pieces, monkeypatch):
    monkeypatch.delattr(linear_module, "_Linear")  # whoever takes the other path fails
    for dtype in (torch.float64, torch.float16):
        x, weight = draw(4, 3, dtype=dtype), draw(2, 3, dtype=dtype)
        torch.testing.assert_close(fast_linear(x, weight), F.linear(x, weight))
    assert fast_linear(draw(4, 3).to("meta"), draw(2, 3).to("meta")).shape == (4, 2)
