"""Matrix products of x86 CPUs, in pieces that stay in the cache.

torch hands fp32 matrix products on the CPU to MKL, which keeps to 256-bit kernels on processors
that are not Intel's: less than half the rate of oneDNN, which torch is built with as well. And a
tensor of tens of megabytes that lives for one operator costs more in page faults than in
arithmetic. Linear layers, MLPs and attentions use these functions where :func:`preferred` says
so; elsewhere (GPUs, other types, traced graphs) they call torch's own operators.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from videonet.ops.tracing import watched

PIECE_BYTES = 2**21  # temporary memory per thread: about what a core's own cache holds
MIN_ROWS = 256  # of a piece: with fewer, a product spends its time on packing


def preferred(*tensors: Tensor | None) -> bool:
    """Whether all tensors are of one type and on a CPU that gains from the products here.

    Never while someone watches: compilers, export, FLOP counters and modes that record attention
    see torch's own operators.
    """
    return _usable(tensors, (torch.float32, torch.bfloat16)) and (
        torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    )


def convolves(*tensors: Tensor | None) -> bool:
    """Whether ``torch.mkldnn_convolution`` may be called; never while someone watches.

    Only in fp32: torch itself gives every convolution in bf16 to oneDNN where that is faster.
    """
    return _usable(tensors, (torch.float32,)) and not torch.is_autocast_enabled("cpu")


def _usable(tensors: Iterable[Tensor | None], dtypes: tuple[torch.dtype, ...]) -> bool:
    """Whether oneDNN is there, takes these tensors, and nobody watches."""
    if watched():
        return False
    given = [t for t in tensors if t is not None]
    dtype = given[0].dtype
    return (
        dtype in dtypes
        # Sharded, quantised and traced tensors are subclasses.
        and all(type(t) in (Tensor, nn.Parameter) and t.is_cpu and t.dtype is dtype for t in given)
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(N, K), (M, K), (M,) -> (N, M) as ``F.linear``, without autograd."""
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()  # rows with gaps send oneDNN to its reference loops
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


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
