"""The convolution through oneDNN gives torch's numbers and gradients."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from videonet.ops.conv import FastConv3d, cuts_patches, patch_product
from videonet.ops.kernels import cpu
from videonet.ops.patch_embed import stem_memory

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


@pytest.mark.parametrize(
    "kernel, shape", [((2, 4, 4), (4, 16, 12)), ((1, 4, 4), (1, 9, 15)), ((3, 2, 5), (7, 5, 11))]
)
@pytest.mark.parametrize("bias", [True, False])
def test_patches_as_a_product(kernel, shape, bias):
    """A remainder of the clip belongs to no patch."""
    torch.manual_seed(0)
    conv = nn.Conv3d(3, 8, kernel, kernel, bias=bias).double()
    x = torch.randn(2, 3, *shape, dtype=torch.float64, requires_grad=True)
    assert cuts_patches(conv)
    results = []
    for out in (patch_product(conv, x), conv(x)):
        gradients = torch.autograd.grad(out.square().sum(), (x, *conv.parameters()))
        results.append((out, *gradients))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
    assert results[0][0].flatten(2).transpose(1, 2).is_contiguous()


@pytest.mark.parametrize(
    "kernel, options",
    [
        ((2, 2, 2), {"stride": (1, 2, 2)}),
        ((2, 2, 2), {"stride": 2, "padding": (0, 1, 1)}),
        ((2, 2, 2), {"stride": 2, "dilation": 2}),
        ((2, 2, 2), {"stride": 2, "groups": 2}),
        ((1, 1, 1), {}),
    ],
)
def test_what_is_no_cut_into_patches(kernel, options):
    assert not cuts_patches(nn.Conv3d(4, 4, kernel, **options))


def test_the_memory_of_a_stem():
    clip = torch.randn(2, 3, 4, 8, 8)
    assert stem_memory(clip) is clip
    with torch.autocast("cpu", torch.bfloat16):
        inside = stem_memory(clip)
    for found in (inside, stem_memory(clip.bfloat16())):
        assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(inside, clip)
    image = torch.randn(2, 3, 8, 8, dtype=torch.bfloat16)
    assert stem_memory(image) is image


@pytest.mark.parametrize("frames", [1, 2, 4])
@pytest.mark.parametrize(("kernel", "groups"), [((3, 3, 3), 1), ((5, 1, 1), 2), ((2, 3, 3), 1)])
@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_in_bf16_are_defined_with_fewer_frames_than_taps(
    frames, kernel, groups, autocast
):
    torch.manual_seed(0)
    conv = FastConv3d(8, 16, kernel, padding=tuple(k // 2 for k in kernel), groups=groups)
    x = torch.randn(2, 8, frames, 6, 6)
    exact = copy.deepcopy(conv)
    expected = torch.autograd.grad(exact(x).square().sum(), list(exact.parameters()))
    if not autocast:
        conv, x = conv.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = conv(x)
    assert y.dtype is torch.bfloat16
    found = torch.autograd.grad(y.float().square().sum(), list(conv.parameters()))
    for f, e in zip(found, expected, strict=True):
        assert (f.float() - e).abs().max() < 0.05 * e.abs().max()
