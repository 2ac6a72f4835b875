"""The fused attention is the written-out one, in values and gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

from videonet.ops import attention as attention_module
from videonet.ops.attention import attention, attention_reference
from videonet.ops.grid import one_hot_positions, volume
from videonet.ops.relative_position import axis_embeddings, position_rows

GRIDS = [((2, 4, 6), (2, 2, 3)), ((3, 4, 4), (3, 4, 4)), ((1, 3, 5), (1, 6, 5))]


def random_case(q_grid, k_grid, num_prefix_tokens, axes="thw", heads=2, dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    q = draw(2, heads, volume(q_grid) + num_prefix_tokens, dim)
    k = draw(2, heads, volume(k_grid) + num_prefix_tokens, dim)
    v = draw(2, heads, volume(k_grid) + num_prefix_tokens, dim)
    tables = tuple(
        draw(2 * max(a, b) - 1, dim) if axis in axes else None
        for axis, a, b in zip("thw", q_grid, k_grid, strict=True)
    )
    options = {
        "q_grid": q_grid,
        "k_grid": k_grid,
        "tables": tables,
        "num_prefix_tokens": num_prefix_tokens,
    }
    return (q, k, v), options


@pytest.mark.parametrize("q_grid, k_grid", GRIDS)
@pytest.mark.parametrize("num_prefix_tokens", [0, 1])
@pytest.mark.parametrize("axes", ["thw", "hw", ""])
def test_fused_equals_reference_in_values_and_gradients(q_grid, k_grid, num_prefix_tokens, axes):
    qkv, options = random_case(q_grid, k_grid, num_prefix_tokens, axes)
    leaves = [*qkv, *(t for t in options["tables"] if t is not None)]
    results = []
    for function in (attention, attention_reference):
        out = function(*qkv, **options)
        gradients = torch.autograd.grad(out.sin().sum(), leaves)
        results.append((out, *gradients))
    for fused, reference in zip(*results, strict=True):
        torch.testing.assert_close(fused, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("axes", ["thw", "hw", ""])
def test_a_biased_class_key_counts_as_often_as_its_bias_says(axes):
    """A bias of log 3 on the class key is the class key three times."""
    (q, k, v), options = random_case((2, 4, 6), (2, 2, 3), 1, axes)
    options["prefix_key_bias"] = math.log(3)
    found, reference = attention(q, k, v, **options), attention_reference(q, k, v, **options)
    torch.testing.assert_close(found, reference, rtol=1e-9, atol=1e-9)

    tables = options["tables"]
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if axes:
        rows = position_rows(q[:, :, 1:], (2, 4, 6), (2, 2, 3), tables)
        places = one_hot_positions((2, 2, 3), rows.dtype, rows.device)
        logits = logits + F.pad(rows @ places.T, (1, 0, 1, 0))
    logits = torch.cat((logits[..., :1].repeat(1, 1, 1, 2), logits), dim=-1)
    values = torch.cat((v[:, :, :1].repeat(1, 1, 2, 1), v), dim=2)
    torch.testing.assert_close(found, logits.softmax(-1) @ values, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("axes", ["thw", ""])
@pytest.mark.parametrize("num_prefix_tokens", [0, 1])
def test_a_bias_per_key_takes_keys_away(axes, num_prefix_tokens):
    """A key of minus infinity, or nearly, is a key that is not there."""
    (q, k, v), options = random_case((2, 4, 6), (2, 2, 3), num_prefix_tokens, axes)
    bias = torch.randn(2, k.shape[2], dtype=torch.float64)
    bias[0, -4:] = -1e4
    found = attention(q, k, v, key_bias=bias, **options)
    reference = attention_reference(q, k, v, key_bias=bias, **options)
    torch.testing.assert_close(found, reference, rtol=1e-9, atol=1e-9)
    v = v.detach().clone()
    v[0, :, -4:] += 1.0
    torch.testing.assert_close(attention(q, k, v, key_bias=bias, **options), found)


@pytest.mark.parametrize("axes, bias", [("", 0.0), ("", 1.0), ("thw", 0.0), ("thw", 1.0)])
def test_another_scale_is_another_length_of_the_queries(axes, bias):
    """But for the relative positions, which take the queries as they are."""
    (q, k, v), options = random_case((2, 4, 6), (2, 2, 3), 1, axes)
    options |= {"prefix_key_bias": bias, "scale": 0.1}
    found = attention(q, k, v, **options)
    reference = attention_reference(q, k, v, **options)
    torch.testing.assert_close(found, reference, rtol=1e-9, atol=1e-9)
    if not axes:
        plain = attention(q * 0.1 * q.shape[-1] ** 0.5, k, v, **(options | {"scale": None}))
        torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)


WORKING = [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)]


def outputs_and_gradients(function, qkv, options, dtype):
    """In fp32, of inputs that `dtype` can hold, computed in `dtype`."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in qkv]
    tables = [
        None if t is None else t.detach().to(dtype).requires_grad_() for t in options["tables"]
    ]
    out = function(*leaves, **(options | {"tables": tuple(tables)}))
    leaves += [t for t in tables if t is not None]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5)).to(dtype)
    return [x.float() for x in (out, *torch.autograd.grad(out, leaves, weights))]


def assert_as_exact_as_it_can_be(qkv, options, dtype, tolerance):
    found = outputs_and_gradients(attention, qkv, options, dtype)
    inputs = tuple(x.detach().to(dtype).float() for x in qkv)
    tables = tuple(None if t is None else t.detach().to(dtype).float() for t in options["tables"])
    exact = outputs_and_gradients(
        attention_reference, inputs, options | {"tables": tables}, torch.float32
    )
    # One scale for all: some gradients cancel to nothing but their rounding.
    scale = max(x.abs().max() for x in exact)
    for ours, theirs in zip(found, exact, strict=True):
        assert (ours - theirs).abs().max() <= tolerance * scale


@pytest.mark.parametrize("dtype, tolerance", WORKING)
@pytest.mark.parametrize("q_grid, k_grid", GRIDS)
@pytest.mark.parametrize("num_prefix_tokens", [0, 1])
@pytest.mark.parametrize("heads", [1, 3])
def test_fused_equals_reference_in_working_precision(
    q_grid, k_grid, num_prefix_tokens, heads, dtype, tolerance
):
    qkv, options = random_case(q_grid, k_grid, num_prefix_tokens, heads=heads)
    assert_as_exact_as_it_can_be(qkv, options, dtype, tolerance)


@pytest.mark.parametrize("dtype, tolerance", WORKING[:2])
@pytest.mark.parametrize("num_prefix_tokens", [0, 1])
@pytest.mark.parametrize("axes", ["thw", ""])
@pytest.mark.parametrize("biased", [False, True])
def test_attention_in_pieces(
    small_pieces, monkeypatch, axes, num_prefix_tokens, biased, dtype, tolerance
):
    used = []
    chunked = attention_module.chunked_attention
    monkeypatch.setattr(
        attention_module, "chunked_attention", lambda *a: used.append(a) or chunked(*a)
    )
    qkv, options = random_case((2, 4, 6), (2, 2, 3), num_prefix_tokens, axes)
    if biased:
        options["prefix_key_bias"] = 0.7 * num_prefix_tokens
        options["key_bias"] = torch.linspace(-2, 2, 2 * qkv[1].shape[2]).reshape(2, -1)
    assert_as_exact_as_it_can_be(qkv, options, dtype, tolerance)
    assert used


def test_autocast_attends_in_its_type(small_pieces):
    qkv, options = random_case((2, 4, 6), (2, 2, 3), 1)
    q, k, v = (x.detach().float() for x in qkv)
    options["tables"] = tuple(t.detach().float() for t in options["tables"])
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(q, k, v, **options)
    assert out.dtype == torch.bfloat16
    exact = attention_reference(q, k, v, **options)
    assert (out - exact).abs().max() <= 3e-2 * exact.abs().max()


def test_bias_is_the_inner_product_with_the_three_tables():
    q_grid = k_grid = (2, 3, 4)
    (q, _, _), options = random_case(q_grid, k_grid, 0)
    rows = position_rows(q, q_grid, k_grid, options["tables"])
    t, h, w = options["tables"]
    query, key = (1, 0, 3), (0, 2, 1)
    row = q[1, 0, (query[0] * 3 + query[1]) * 4 + query[2]]
    expected = row @ (
        t[query[0] - key[0] + 1] + h[query[1] - key[1] + 2] + w[query[2] - key[2] + 3]
    )
    columns = rows[1, 0, (query[0] * 3 + query[1]) * 4 + query[2]]
    found = columns[key[0]] + columns[2 + key[1]] + columns[2 + 3 + key[2]]
    torch.testing.assert_close(found, expected)


def test_coarse_keys_use_every_other_distance():
    table = torch.arange(7.0).unsqueeze(1)  # distances -3 … 3
    found = axis_embeddings(table, queries=4, keys=2).squeeze(-1)
    # Distance of query i and key j on the fine scale is i - 2j, counted from the key's last place.
    expected = torch.tensor([[i - 2 * j + 2 for j in range(2)] for i in range(4)]).float()
    torch.testing.assert_close(found, expected)


def test_table_of_another_length_is_interpolated_linearly():
    table = torch.linspace(0, 1, 5).unsqueeze(1)
    found = axis_embeddings(table, queries=5, keys=5)  # needs 9 rows
    assert found.shape == (5, 5, 1)
    diagonal = found.squeeze(-1).diagonal()
    torch.testing.assert_close(diagonal, torch.full((5,), 0.5))
