"""The depth-wise convolution's own backward pass against torch's."""

import pytest
import torch
import torch.nn.functional as F

from videonet.ops.depthwise import depthwise_conv

CASES = [  # grid, kernel, stride
    ((4, 6, 5), (3, 3, 3), (1, 1, 1)),
    ((4, 6, 5), (3, 3, 3), (1, 2, 2)),
    ((5, 9, 8), (3, 3, 3), (2, 4, 8)),
    ((1, 6, 5), (1, 3, 3), (1, 2, 2)),
    ((1, 1, 2), (3, 3, 3), (1, 1, 1)),
    ((2, 8, 8), (5, 3, 3), (1, 4, 4)),
]


@pytest.mark.parametrize("grid, kernel, stride", CASES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("batch", [1, 3])
def test_gradients_are_torchs(small_pieces, grid, kernel, stride, dtype, tolerance, batch):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(batch, *grid, 6, generator=generator).to(dtype)
    weight = torch.randn(6, 1, *kernel, generator=generator).to(dtype)
    padding = tuple(k // 2 for k in kernel)
    results = []
    for ours, kind in ((True, dtype), (False, torch.float64)):
        leaves = [x.to(kind).requires_grad_() for x in (tokens, weight)]
        volume = leaves[0].permute(0, 4, 1, 2, 3)
        if ours:
            out = depthwise_conv(volume, leaves[1], None, stride, padding)
            assert "_DepthwiseConv" in out.grad_fn.name()
        else:
            out = F.conv3d(volume, leaves[1], None, stride, padding, groups=6)
        weights = torch.linspace(-1, 1, out.numel()).view(out.shape).to(kind)
        results.append((out, *torch.autograd.grad((out * weights).sum(), leaves)))
    for found, expected in zip(*results, strict=True):
        error = (found.double() - expected).abs().max()
        assert error <= tolerance * expected.abs().max().clamp_min(1)
