"""Stochastic depth draws and computes what torchvision's does, bit by bit."""

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth as Reference

from videonet.ops.stochastic_depth import StochasticDepth

CASES = [(p, mode) for p in (0.0, 0.25, 0.9, 1.0) for mode in ("row", "batch")]
SHAPES = [(6,), (6, 5), (6, 7, 4), (3, 2, 4, 5, 6)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p, mode", CASES)
def test_results_and_draws_are_those_of_torchvision(p, mode, dtype):
    ours, theirs = StochasticDepth(p, mode), Reference(p, mode)
    assert str(ours) == str(theirs)
    for shape in SHAPES:
        x, states = torch.randn(shape).to(dtype), []
        for training in (True, False):
            results = []
            for layer in (ours, theirs):
                torch.manual_seed(3)
                given = x.clone().requires_grad_()
                out = layer.train(training)(given)
                (gradient,) = torch.autograd.grad(out.float().sum(), given)
                results.append((out, gradient, torch.get_rng_state()))
            for one, other in zip(*results, strict=True):
                assert one.dtype is other.dtype and torch.equal(one, other)
            states.append(results[0][2])
        assert torch.equal(*states) == (p == 0)  # evaluation draws nothing


def test_rows_are_dropped_whole_and_the_rest_is_scaled():
    torch.manual_seed(0)
    out = StochasticDepth(0.5)(torch.ones(400, 3))
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(out.amin(1), out.amax(1)) and 140 < (out[:, 0] > 0).sum() < 260


def test_autocast_leaves_its_input_alone():
    x = torch.randn(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert StochasticDepth(0.5)(x).dtype is torch.float32
        assert StochasticDepth(0.5)(x.bfloat16()).dtype is torch.bfloat16


def test_compiled_and_exported_it_is_one_graph():
    model = nn.Sequential(nn.Linear(3, 3), StochasticDepth(0.5))
    x = torch.randn(4, 3)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    results = []
    for call in (model, compiled):
        torch.manual_seed(1)
        results.append(call(x))
    assert torch.equal(*results)
    program = torch.export.export(model.eval(), (x,)).module()
    assert torch.equal(program(x), model(x))


@pytest.mark.parametrize("p, mode, said", [(1.5, "row", "1.5"), (-0.1, "row", "-0.1")])
def test_what_is_no_probability_is_refused(p, mode, said):
    with pytest.raises(ValueError, match=f"the drop probability is {said}, expected 0 to 1"):
        StochasticDepth(p, mode)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="the mode is 'column', expected row or batch"):
        StochasticDepth(0.5, "column")
