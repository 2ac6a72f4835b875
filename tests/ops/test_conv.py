"""The convolution through oneDNN gives torch's numbers and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from videonet.ops.conv import FastConv3d
from videonet.ops.kernels import cpu

CASES = [  # kernel, stride, padding, dilation, groups
    ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
    ((1, 3, 3), (1, 2, 2), (0, 1, 1), (1, 1, 1), 1),
    ((1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    ((3, 2, 2), (2, 2, 2), (1, 0, 0), (1, 1, 1), 1),
    ((3, 3, 3), (1, 1, 1), (2, 2, 2), (2, 2, 2), 2),
]


@pytest.mark.parametrize("kernel, stride, padding, dilation, groups", CASES)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_gives_torchs_numbers(kernel, stride, padding, dilation, groups, batch, bias):
    torch.manual_seed(0)
    conv = FastConv3d(4, 6, kernel, stride, padding, dilation, groups, bias)
    results = []
    for dtype in (torch.float32, torch.float64):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(batch, 4, 4, 7, 6, generator=generator).to(dtype).requires_grad_()
        weight = conv.weight.detach().to(dtype).requires_grad_()
        offset = None if conv.bias is None else conv.bias.detach().to(dtype)
        if dtype is torch.float32:
            out = conv(x)
            gradients = torch.autograd.grad(out.square().sum(), (x, conv.weight))
        else:
            out = F.conv3d(x, weight, offset, stride, padding, dilation, groups)
            gradients = torch.autograd.grad(out.square().sum(), (x, weight))
        results.append((out, *gradients))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 2])
def test_no_batch_is_too_small_for_onednn(batch):
    conv = FastConv3d(4, 6, 3)
    x = torch.randn(batch, 4, 4, 7, 6)
    if not cpu.convolves(x, conv.weight):
        pytest.skip("this torch has no oneDNN")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        conv(x)
    assert "aten::mkldnn_convolution" in [event.name for event in profile.events()]


def test_other_types_autocast_and_observers_keep_torchs_convolution():
    conv = FastConv3d(4, 6, 3)
    x = torch.randn(1, 4, 4, 7, 6)
    with FlopCounterMode(display=False) as counter:
        conv(x)
    assert counter.get_total_flops() == 2 * (2 * 5 * 4) * 6 * 4 * 27
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x).dtype is torch.bfloat16
    assert conv.double()(x.double()).dtype is torch.float64
    with pytest.raises(RuntimeError, match="channels"):
        FastConv3d(3, 6, 3)(x)
