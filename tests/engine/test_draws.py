"""Random numbers that belong to the clips of a step."""

import pytest
import torch
from torch import nn

from videonet.data.loading.loader import positions
from videonet.engine.draws import DROP_PATHS, ClipDraws, step_seed
from videonet.ops.stochastic_depth import StochasticDepth


class Layers(nn.Module):
    def __init__(self, kind=StochasticDepth):
        super().__init__()
        self.path = kind(0.5, "row")
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        return self.dropout(self.dropout(x) + self.path(x) + self.path(x))


@pytest.mark.parametrize("shape", [(8, 16), (8, 5, 16), (8, 3, 2, 2, 16), (24, 16)])
@pytest.mark.parametrize("processes", [2, 3, 8])
def test_masks_are_the_same_however_a_step_is_divided(shape, processes):
    model, draws, x = Layers(), ClipDraws(8), torch.randn(shape)
    draws.attach(model)
    draws.begin(torch.arange(8), seed=5)
    whole = model(x).unflatten(0, (8, -1))
    for rows in positions(8, processes):
        draws.begin(torch.tensor(rows), seed=5)
        part = model(x.unflatten(0, (8, -1))[rows].flatten(0, 1))
        assert torch.equal(part.unflatten(0, (len(rows), -1)), whole[rows])
    draws.begin(torch.arange(8), seed=6)
    assert not torch.equal(model(x).unflatten(0, (8, -1)), whole)


@pytest.mark.parametrize("kind", DROP_PATHS)
def test_masks_keep_their_share_and_the_mean(kind):
    model, draws, x = Layers(kind), ClipDraws(400), torch.ones(400, 50)
    draws.attach(model)
    draws.begin(torch.arange(400), seed=0)
    dropped, path = model.dropout(x), model.path(x)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert path.unique().tolist() == [0, 2] and path.mean().item() == pytest.approx(1, abs=0.15)
    assert not torch.equal(model.dropout(x), dropped) and not torch.equal(model.path(x), path)
    assert torch.equal(path, path[:, :1].expand(-1, 50))  # a clip as a whole


def test_outside_of_steps_and_in_evaluation_layers_are_torchs():
    model, draws, x = Layers(), ClipDraws(4), torch.randn(4, 6)
    torch.manual_seed(1)
    expected = model(x)
    draws.attach(model)
    torch.manual_seed(1)
    assert torch.equal(model(x), expected)
    draws.begin(torch.arange(4), seed=0)
    draws.end()
    torch.manual_seed(1)
    assert torch.equal(model(x), expected)
    draws.begin(torch.arange(4), seed=0)
    assert torch.equal(model.eval()(x), 3 * x)


def test_the_draws_attached_last_count():
    model, x = Layers(), torch.ones(4, 6)
    first, second = ClipDraws(4), ClipDraws(4)
    first.attach(model)
    first.begin(torch.arange(4), seed=5)
    expected = model(x)
    first.end()
    second.attach(model)
    second.begin(torch.arange(4), seed=5)
    assert torch.equal(model(x), expected)


def test_recomputed_layers_find_the_same_masks():
    model, draws = Layers(), ClipDraws(4)
    draws.attach(model)
    gradients = []
    for recompute in (False, True):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
        draws.begin(torch.tensor([1, 3, 0, 2]), seed=3)
        y = (
            torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)
            if recompute
            else model(x)
        )
        y.square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


def test_seeds_of_steps_differ():
    seeds = {step_seed(run, step) for run in range(4) for step in range(200)}
    assert len(seeds) == 800
