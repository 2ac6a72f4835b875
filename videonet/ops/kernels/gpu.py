"""Triton kernels for GPUs, as operators of torch with a plain twin each.

Triton is loaded on first use: `import videonet` takes neither it nor a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from videonet.ops.kernels.probing import TOLERANCES, Kernel, Result, first_difference, tensors_of
from videonet.ops.tracing import is_exported, is_transformed

INSTALLED = find_spec("triton") is not None
TYPES = (torch.float32, torch.bfloat16, torch.float16)
WIDEST = 128  # channels of a query and its rows
MOST_HEADS = 65535  # of all clips together: the largest second axis of a launch
OLDEST = (8, 0)  # compute capability of the first GPUs with bf16


def usable(*tensors: Tensor | None) -> bool:
    """Whether the kernels take these tensors: on a GPU that Triton compiles for, all of one type.

    Never while ``torch.func`` or forward-mode differentiation transforms operators, nor in an
    export, whose program has to run without this package.
    """
    given = [t for t in tensors if t is not None]
    dtype = given[0].dtype
    return (
        INSTALLED
        and dtype in TYPES
        and all(t.dtype is dtype for t in given)
        and _on_gpu(*given)
        and not is_exported()
        and not is_transformed()
    )


def attends(q: Tensor, rows: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether :data:`TWO_PART_ATTENTION` gains from these queries (…, D), rows (…, R) and so on.

    In fp32 its products would be slower than torch's, and wider queries do not fit its blocks.
    """
    return (
        q.dtype is not torch.float32
        and q.shape[0] * q.shape[1] <= MOST_HEADS
        and v.shape[-1] == q.shape[-1]
        and q.shape[-1] + rows.shape[-1] <= WIDEST
        and usable(q, rows, k, v)
    )


def attends_in_windows(bias: Tensor, width: int) -> bool:
    """Whether :data:`WINDOW_ATTENTION` gains from this bias and heads of this width.

    Not in fp32, as above; where it is not to be trusted torch's fused kernels are better than its
    plain twin.
    """
    return (
        bias.dtype is not torch.float32
        and width <= WIDEST
        and usable(bias)
        and (torch.compiler.is_compiling() or WINDOW_ATTENTION.trust(bias.dtype))
    )


def _on_gpu(*tensors: Tensor) -> bool:
    return all(t.is_cuda for t in tensors) and _is_new_enough(tensors[0].device.index or 0)


@cache
def _is_new_enough(device: int) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= OLDEST


def _draw(dtype: torch.dtype, *shape: int) -> Tensor:
    """Numbers between -1 and 1 on the GPU for a trial, always the same."""
    numbers = torch.arange(torch.Size(shape).numel(), device="cuda", dtype=torch.float32)
    return numbers.mul(0.7).sin().reshape(shape).to(dtype).requires_grad_()


class TritonKernel(Kernel[Result]):
    """An operator whose trial compares gradients too. Compilers take it without a trial."""

    def __call__(self, x: Tensor, *arguments) -> Result:
        if torch.compiler.is_compiling():
            return self.fast(x, *arguments)
        return super().__call__(x, *arguments)

    def find_fault(self, key: torch.dtype) -> str | None:
        arguments = self.example(key)
        with torch.enable_grad():
            found, expected = (_with_gradients(f, arguments) for f in (self.fast, self.plain))
        return first_difference(found, expected, TOLERANCES[key])


def _with_gradients(function: Callable, arguments: Sequence) -> list[Tensor]:
    """The results of a function, and the gradients of a weighted sum of them."""
    results = tensors_of(function(*arguments))
    wanted = [a for a in arguments if isinstance(a, Tensor) and a.requires_grad]
    weights = (torch.arange(r.numel(), device=r.device).cos().view(r.shape) for r in results)
    sums = [(r * w).sum() for r, w in zip(results, weights, strict=True)]
    return [*results, *torch.autograd.grad(sums, wanted)]


def _depthwise(*arguments) -> Tensor:
    from videonet.ops.kernels.cuda.depthwise import depthwise_conv

    return depthwise_conv(*arguments)


def _plain_depthwise(*arguments) -> Tensor:
    from videonet.ops.kernels.cuda.depthwise import plain_depthwise_conv

    return plain_depthwise_conv(*arguments)


def _pool_norm(*arguments) -> tuple[Tensor, Tensor, Tensor]:
    from videonet.ops.kernels.cuda.pool_norm import pool_norm

    keep = torch.is_grad_enabled() and any(
        a.requires_grad for a in arguments if isinstance(a, Tensor)
    )
    return pool_norm(*arguments, keep)[:3]


def _plain_pool_norm(*arguments) -> tuple[Tensor, Tensor, Tensor]:
    from videonet.ops.kernels.cuda.pool_norm import plain_pool_norm

    return plain_pool_norm(*arguments)


def _two_part_attention(*arguments) -> Tensor:
    from videonet.ops.kernels.cuda.attention import two_part_attention

    return two_part_attention(*arguments)[0]


def _plain_two_part_attention(*arguments) -> Tensor:
    from videonet.ops.kernels.cuda.attention import plain_two_part_attention

    return plain_two_part_attention(*arguments)


def _window_attention(*arguments) -> Tensor:
    from videonet.ops.kernels.cuda.window import window_attention

    return window_attention(*arguments)[0]


def _plain_window_attention(*arguments) -> Tensor:
    from videonet.ops.kernels.cuda.window import plain_window_attention

    return plain_window_attention(*arguments)


def _dilated_attention(*arguments) -> Tensor:
    from videonet.ops.kernels.cuda.dilated import dilated_attention

    return dilated_attention(*arguments)[0]


def _plain_dilated_attention(*arguments) -> Tensor:
    from videonet.ops.kernels.cuda.dilated import plain_dilated_attention

    return plain_dilated_attention(*arguments)


def _shift(*arguments) -> Tensor:
    from videonet.ops.kernels.cuda.shift import shift

    return shift(*arguments)


def _plain_shift(*arguments) -> Tensor:
    from videonet.ops.kernels.cuda.shift import plain_shift

    return plain_shift(*arguments)


def _clip_norm(*arguments) -> Tensor:
    from videonet.ops.kernels.cuda.clip_norm import clip_norm

    return clip_norm(*arguments)[0]


def _plain_clip_norm(*arguments) -> Tensor:
    from videonet.ops.kernels.cuda.clip_norm import plain_clip_norm

    return plain_clip_norm(*arguments)


DEPTHWISE = TritonKernel(  # (volume, weight, bias, stride, padding)
    "videonet::depthwise_conv",
    _depthwise,
    _plain_depthwise,
    lambda dtype: (
        *(_draw(dtype, 2, 16, 3, 5, 6), _draw(dtype, 8, 1, 3, 3, 3), _draw(dtype, 16)),
        *((1, 2, 2), (1, 1, 1)),
    ),
)
POOL_NORM = TritonKernel(  # (x, weights, gains, offsets, grid, q_stride, k_stride, eps)
    "videonet::pool_norm",
    _pool_norm,
    _plain_pool_norm,
    lambda dtype: (
        *(_draw(dtype, 2, 1 + 24, 3, 2, 16), _draw(dtype, 3, 16, 1, 3, 3, 3)),
        *(_draw(torch.float32, 3, 16), _draw(torch.float32, 3, 16)),
        *((2, 3, 4), (1, 1, 1), (1, 2, 2), 1e-6),
    ),
)
TWO_PART_ATTENTION = TritonKernel(  # (q, rows, k, v)
    "videonet::two_part_attention",
    _two_part_attention,
    _plain_two_part_attention,
    lambda dtype: (
        *(_draw(dtype, 1, 2, 70, 24), _draw(dtype, 1, 2, 70, 9)),
        *(_draw(dtype, 1, 2, 90, 33), _draw(dtype, 1, 2, 90, 24)),
    ),
)
WINDOW_ATTENTION = TritonKernel(  # (qkv, bias, size, shift, frames, scale)
    "videonet::window_attention",
    _window_attention,
    _plain_window_attention,
    lambda dtype: (
        *(_draw(dtype, 1, 4, 6, 6, 3, 2, 24), _draw(dtype, 2, 72, 72)),
        *((4, 6, 3), (0, 0, 1), 4, 0.2),
    ),
)
DILATED_ATTENTION = TritonKernel(  # (qkv, kernel, dilations of each group of heads, scale)
    "videonet::dilated_attention",
    _dilated_attention,
    _plain_dilated_attention,
    lambda dtype: (_draw(dtype, 1, 3, 6, 5, 3, 2, 24), (3, 3, 3), (1, 1, 1, 1, 2, 2), 0.2),
)
SHIFT = TritonKernel(  # (x, offsets, axis)
    "videonet::shift",
    _shift,
    _plain_shift,
    lambda dtype: (
        *(_draw(dtype, 2, 3, 5, 2, 24), torch.arange(24, device="cuda", dtype=torch.int32) % 5 - 2),
        2,
    ),
)
CLIP_NORM = TritonKernel(  # (x, gain, offset, eps)
    "videonet::clip_norm",
    _clip_norm,
    _plain_clip_norm,
    lambda dtype: (
        *(_draw(dtype, 2, 3, 9, 8, 24), _draw(torch.float32, 24), _draw(torch.float32, 24)),
        1e-5,
    ),
)
