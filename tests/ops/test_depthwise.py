"""The depth-wise convolution's own backward pass against torch's."""

import pytest
import torch
import torch.nn.functional as F

from videonet.ops.conv import depthwise
from videonet.ops.depthwise import depthwise_conv

CASES = [  # grid, kernel, stride
    ((4, 6, 5), (3, 3, 3), (1, 1, 1)),
    ((4, 6, 5), (3, 3, 3), (1, 2, 2)),
    ((5, 9, 8), (3, 3, 3), (2, 4, 8)),
    ((1, 6, 5), (1, 3, 3), (1, 2, 2)),
    ((1, 1, 2), (3, 3, 3), (1, 1, 1)),
    ((2, 8, 8), (5, 3, 3), (1, 4, 4)),
    ((3, 6, 5), (3, 7, 7), (1, 1, 1)),
    ((2, 9, 4), (1, 5, 7), (1, 1, 1)),
    ((3, 9, 8), (3, 7, 7), (2, 2, 1)),
    ((2, 1, 2), (5, 7, 7), (1, 1, 1)),
]


@pytest.mark.parametrize("grid, kernel, stride", CASES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("batch, channels_last", [(1, True), (3, True), (2, False)])
def test_gradients_are_torchs(
    small_pieces, grid, kernel, stride, dtype, tolerance, batch, channels_last
):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(batch, *grid, 6, generator=generator).to(dtype)
    weight = torch.randn(6, 1, *kernel, generator=generator).to(dtype)
    bias = torch.randn(6, generator=generator).to(dtype)
    padding = tuple(k // 2 for k in kernel)
    results = []
    for ours, kind in ((True, dtype), (False, torch.float64)):
        leaves = [x.to(kind).requires_grad_() for x in (tokens, weight, bias)]
        volume = leaves[0].permute(0, 4, 1, 2, 3)
        volume = volume if channels_last else volume.contiguous()
        if ours:
            out = depthwise_conv(volume, *leaves[1:], stride, padding)
            assert "_DepthwiseConv" in out.grad_fn.name()
        else:
            out = F.conv3d(volume, *leaves[1:], stride, padding, groups=6)
        weights = torch.linspace(-1, 1, out.numel()).view(out.shape).to(kind)
        results.append((out, *torch.autograd.grad((out * weights).sum(), leaves)))
    for found, expected in zip(*results, strict=True):
        error = (found.double() - expected).abs().max()
        assert error <= tolerance * expected.abs().max().clamp_min(1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 7)])
def test_layers_of_tokens_take_it_without_avx512(bias, kernel):
    """Depth-wise layers of every model get it in fp32, and their gradients differentiate again."""
    layer = depthwise(4, *kernel, bias=bias)
    x = torch.randn(2, 2, 3, 4, 4, requires_grad=True)
    plain = torch.nn.Conv3d.forward(layer, x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
    found = layer(x)
    if torch.backends.mkldnn.is_available():
        assert "_DepthwiseConv" in str(found.grad_fn.next_functions)
    leaves = [x, *layer.parameters()]
    results = []
    for out in (found, plain):
        first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
        again = torch.autograd.grad(sum(g.square().sum() for g in first), leaves[:2])
        results.append((out, *first, *again))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_an_empty_batch():
    layer = depthwise(4, 3, 3)
    x = torch.randn(0, 2, 3, 4, 4, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape
