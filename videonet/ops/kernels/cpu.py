"""Matrix products and convolutions of x86 CPUs, in pieces that stay in the cache.

torch hands fp32 matrix products on the CPU to MKL, which keeps to 256-bit kernels on processors
that are not Intel's: less than half the rate of oneDNN, which torch is built with as well. And a
tensor of tens of megabytes that lives for one operator costs more in page faults than in
arithmetic. Linear layers, MLPs and attentions use these functions where :func:`preferred` says
so; elsewhere (GPUs, other types, traced graphs) they call torch's own operators.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.ops.kernels.probing import Kernel
from videonet.ops.tracing import is_traced

PIECE_BYTES = 2**21  # temporary memory per thread: about what a core's own cache holds
MIN_ROWS = 256  # of a piece: with fewer, a product spends its time on packing


def preferred(first: Tensor, *others: Tensor | None) -> bool:
    """Whether all tensors are of one type and on a CPU that gains from the products here.

    Never while traced: compilers, export, FLOP counters and modes that record attention see
    torch's own operators.
    """
    return (
        _usable((first, *others), (torch.float32, torch.bfloat16))
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and PRODUCT.trust(first.dtype)
    )


def differentiates(first: Tensor, *others: Tensor | None) -> bool:
    """Whether gradients are written in operators that are fast on a CPU; never while traced.

    In fp32 on all of them; bf16 is an emulation, and no faster that way, below AVX-512.
    """
    return _usable((first, *others), (torch.float32,)) or preferred(first, *others)


def convolves(*tensors: Tensor | None) -> bool:
    """Whether :data:`CONVOLUTION` may be called; never while traced.

    Only in fp32: torch itself gives every convolution in bf16 to oneDNN where that is faster.
    """
    return _usable(tensors, (torch.float32,)) and not torch.is_autocast_enabled("cpu")


def loses_taps(x: Tensor, temporal_kernel: int) -> bool:
    """Whether torch would leave a convolution's gradient undefined: with fewer frames than taps.

    oneDNN's kernels for bf16 (AVX512_BF16; seen with torch 2.14) do not write the gradient of the
    weights then, which is whatever the memory held.

    Args:
        x: (B, C, T, H, W), what is convolved.
        temporal_kernel: taps over time.
    """
    if not (x.is_cpu and torch.is_grad_enabled() and x.dim() == 5 and x.shape[2] < temporal_kernel):
        return False
    autocast = torch.is_autocast_enabled("cpu")
    return (torch.get_autocast_dtype("cpu") if autocast else x.dtype) is torch.bfloat16


def _usable(tensors: Iterable[Tensor | None], dtypes: tuple[torch.dtype, ...]) -> bool:
    """Whether oneDNN is available and takes these tensors, and no operators are recorded."""
    if is_traced():
        return False
    given = [t for t in tensors if t is not None]
    dtype = given[0].dtype
    return (
        dtype in dtypes
        # Sharded, quantised and traced tensors are subclasses.
        and all(type(t) in (Tensor, nn.Parameter) and t.is_cpu and t.dtype is dtype for t in given)
        and all(t.numel() for t in given)
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)  # a bool, which torch annotates as something else
    )


def draw(dtype: torch.dtype, *shape: int) -> Tensor:
    """Numbers between -1 and 1 for a trial, always the same."""
    return torch.arange(math.prod(shape), device="cpu").mul(0.7).sin().reshape(shape).to(dtype)


PRODUCT = Kernel(
    "torch.ops.mkldnn._linear_pointwise",
    lambda x, weight, bias: torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""),
    F.linear,
    lambda dtype: (draw(dtype, 9, 16), draw(dtype, 8, 16), draw(dtype, 8)),
)
CONVOLUTION = Kernel(  # (volume, weight, bias, padding, stride, dilation, groups)
    "torch.mkldnn_convolution",
    lambda *arguments: torch.mkldnn_convolution(*arguments),
    lambda x, weight, bias, padding, stride, dilation, groups: F.conv3d(
        x, weight, bias, stride, padding, dilation, groups
    ),
    lambda dtype: (
        *(draw(dtype, 1, 4, 3, 6, 6), draw(dtype, 8, 4, 3, 3, 3), draw(dtype, 8)),
        *((1, 1, 1), (1, 2, 2), (1, 1, 1), 1),
    ),
)
SOFTMAX_GRADIENT = Kernel(  # (gradient of the weights, weights), along the last axis
    "torch._softmax_backward_data",
    lambda grad, weights: torch._softmax_backward_data(grad, weights, -1, grad.dtype),
    lambda grad, weights: weights * (grad - (grad * weights).sum(dim=-1, keepdim=True)),
    lambda dtype: (draw(dtype, 3, 8), draw(dtype, 3, 8).softmax(dim=-1)),
)
GELU_GRADIENT = Kernel(  # (gradient, input)
    "torch.ops.aten.gelu_backward",
    lambda grad, x: torch.ops.aten.gelu_backward(grad, x),
    lambda grad, x: (grad.float() * _gelu_slope(x.float())).to(grad.dtype),
    lambda dtype: (draw(dtype, 3, 8), 2 * draw(dtype, 3, 8)),
)


def _gelu_slope(x: Tensor) -> Tensor:
    """Derivative of ``x * Phi(x)``, Phi being the normal distribution's."""
    below = (1 + torch.erf(x * math.sqrt(0.5))) / 2
    return below + x * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(N, K), (M, K), (M,) -> (N, M) as ``F.linear``, without autograd."""
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()  # rows with gaps send oneDNN to its reference loops
    return PRODUCT(x, weight, bias)


def product(a: Tensor, b: Tensor) -> Tensor:
    """(N, K) @ (K, M), any strides, without autograd."""
    return linear(a, b.t())


def transposed_product(a: Tensor, b: Tensor) -> Tensor:
    """``a.T @ b``, (N, K), (N, M) -> (K, M), without autograd.

    oneDNN copies a transposed first operand, so this transposes the narrower one.
    """
    if a.dtype is torch.bfloat16:
        return a.t() @ b  # torch has oneDNN do this one without a copy
    return product(a.t(), b) if a.shape[1] <= b.shape[1] else product(b.t(), a).t()


def pieces(rows: int, row_bytes: int) -> Iterator[slice]:
    """Cut `rows` so that temporaries of `row_bytes` per row stay in the caches of all threads."""
    step = max(MIN_ROWS, PIECE_BYTES * torch.get_num_threads() // row_bytes)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
