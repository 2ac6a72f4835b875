"""Sliding windows against a plain reading of their definition."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from videonet.errors import ConfigError
from videonet.ops import dilated_attention
from videonet.ops.dilated_attention import MultiScaleDilatedAttention
from videonet.ops.sliding_window import (
    grouped_windows,
    sliding_window_attention,
    window_taps,
)
from videonet.ops.window_rows import windows_in_rows


def by_definition(q, k, v, kernel, dilation, scale):
    """Cell by cell: zeros beyond the frame take part, frames outside the clip do not."""
    out = torch.zeros_like(q)
    grid = q.shape[1:4]
    for cell in itertools.product(*map(range, grid)):
        here = (slice(None), *cell)
        keys, values = [], []
        for tap in itertools.product(*(range(n) for n in kernel)):
            place = [
                c + d * (i - n // 2) for c, i, n, d in zip(cell, tap, kernel, dilation, strict=True)
            ]
            if not 0 <= place[0] < grid[0]:
                continue
            inside = all(0 <= p < n for p, n in zip(place[1:], grid[1:], strict=True))
            there = (slice(None), *place)
            keys.append(k[there] if inside else torch.zeros_like(q[here]))  # (B, heads, D)
            values.append(v[there] if inside else torch.zeros_like(q[here]))
        logits = scale * torch.stack([(q[here] * key).sum(-1) for key in keys], dim=-1)
        weights = logits.softmax(dim=-1)
        out[here] = torch.einsum("bhk,kbhd->bhd", weights, torch.stack(values))
    return out


@pytest.mark.parametrize("grid", [(1, 4, 5), (2, 3, 4), (5, 4, 3)])
@pytest.mark.parametrize(
    "kernel, dilation",
    [
        ((1, 3, 3), (1, 1, 1)),
        ((1, 3, 3), (1, 3, 3)),
        ((3, 3, 3), (1, 2, 2)),
        ((3, 3, 5), (2, 1, 1)),
        ((5, 1, 3), (1, 1, 2)),
    ],
)
def test_windows_are_what_their_definition_says(grid, kernel, dilation):
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, *grid, 2, 6, generator=generator, dtype=torch.float64)
    found = sliding_window_attention(q, k, v, kernel=kernel, dilation=dilation, scale=0.7)
    expected = by_definition(q, k, v, kernel, dilation, 0.7)
    torch.testing.assert_close(found, expected)


def test_one_frame_is_unfolding_the_image():
    """The formula of the paper's code: unfolded keys, zeros around the image."""
    b, h, w, heads, d, dilation = 2, 6, 7, 3, 4, 2
    q, k, v = torch.randn(3, b, 1, h, w, heads, d, generator=torch.Generator().manual_seed(1))

    def unfold(x):
        flat = x.squeeze(1).flatten(3).movedim(-1, 1)  # (B, heads*D, H, W)
        columns = F.unfold(flat, 3, dilation, padding=dilation)
        return columns.reshape(b, heads, d, 9, h * w).permute(0, 4, 1, 2, 3)

    logits = (q.flatten(1, 3).unsqueeze(-1) * unfold(k)).sum(-2) * d**-0.5
    expected = (unfold(v) * logits.softmax(-1).unsqueeze(-2)).sum(-1)
    found = sliding_window_attention(
        q, k, v, kernel=(1, 3, 3), dilation=(1, dilation, dilation), scale=d**-0.5
    )
    torch.testing.assert_close(found.flatten(1, 3), expected)


def test_gradients_are_those_of_the_definition():
    q, k, v = torch.randn(3, 1, 2, 3, 3, 1, 2, dtype=torch.float64).requires_grad_().unbind()

    def windows(q, k, v):
        return sliding_window_attention(q, k, v, kernel=(3, 3, 3), dilation=(1, 2, 2), scale=1.0)

    assert torch.autograd.gradcheck(windows, (q, k, v))


def test_taps_are_symmetric():
    assert window_taps(3, 2) == [-2, 0, 2]
    assert window_taps(1, 5) == [0]
    assert window_taps(2, 2) == [-1, 1]
    with pytest.raises(ConfigError, match="no centre"):
        window_taps(2, 3)


def test_each_group_of_heads_has_its_own_reach():
    """A change in one cell reaches the cells at its group's dilation, in space and in time."""
    dilations = [(1, 1, 1), (2, 3, 3)]
    attn = MultiScaleDilatedAttention(8, 2, (3, 3, 3), dilations)
    attn.proj = torch.nn.Identity()
    x = torch.randn(1, 5, 7, 7, 8)
    changed = x.clone()
    changed[0, 2, 3, 3] += 1
    with torch.no_grad():
        differs = (attn(changed) - attn(x)).abs().unflatten(-1, (2, 4)).amax(-1)[0] > 1e-6
    for head, (dt, ds, _) in enumerate(dilations):
        cells = {tuple(c) for c in differs[..., head].nonzero().tolist()}
        reach = itertools.product((2 - dt, 2, 2 + dt), *[(3 - ds, 3, 3 + ds)] * 2)
        assert cells == set(reach)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("grid", [(1, 4, 5), (2, 3, 4), (5, 6, 3), (3, 1, 1)])
@pytest.mark.parametrize(
    "kernel, dilations",
    [
        ((3, 3, 3), [(1, 1, 1), (1, 2, 2)]),
        ((1, 3, 3), [(1, 3, 3)]),
        ((3, 3, 5), [(2, 1, 1), (1, 1, 3)]),
        ((5, 1, 2), [(1, 1, 2), (2, 1, 4)]),
    ],
)
def test_gradients_in_rows_are_the_plain_ones(small_pieces, batch, grid, kernel, dilations):
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(batch, *grid, 3, 4, 5, generator=generator)
    weights = torch.randn(batch, *grid, 4, 5, generator=generator).transpose(1, 2)
    weights = weights.contiguous().transpose(1, 2)
    results = []
    for windows, dtype in ((windows_in_rows, torch.float32), (grouped_windows, torch.float64)):
        leaf = qkv.to(dtype).requires_grad_()
        out = windows(leaf, kernel, dilations, 0.7)
        (first,) = torch.autograd.grad(out, leaf, weights.to(dtype))
        results.append((out.float(), first.float()))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_attention_takes_the_gradients_in_rows(small_pieces, monkeypatch, dtype, tolerance):
    """With the same results, first and second derivatives as by torch's operators alone."""
    attn = MultiScaleDilatedAttention(12, 3, (3, 3, 3), [(1, 1, 1), (1, 2, 2), (1, 3, 3)])
    x = torch.randn(2, 3, 4, 5, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    results = []
    for by_rows in (True, False):
        if not by_rows:
            monkeypatch.setattr(dilated_attention, "windows_in_rows", grouped_windows)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            out = attn(x)
        assert by_rows == ("_WindowsInRows" in str(_ancestors(out)))
        leaves = [x, *attn.parameters()]
        first = torch.autograd.grad(out.float().square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), leaves)
        if dtype is torch.bfloat16:
            second = ()
        results.append((out, *first, *second))
    for found, expected in zip(*results, strict=True):
        error = (found - expected).abs().max()
        assert error <= tolerance * expected.abs().max().clamp_min(1)


def test_windows_without_clips():
    attn = MultiScaleDilatedAttention(6, 3, (3, 3, 3), [(1, 1, 1), (1, 2, 2), (1, 3, 3)])
    x = torch.randn(0, 2, 3, 3, 6, requires_grad=True)
    attn(x).sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape


def _ancestors(x):
    found, todo = [], [x.grad_fn]
    while todo:
        node = todo.pop()
        found.append(node)
        todo += [before for before, _ in node.next_functions if before is not None]
    return found
