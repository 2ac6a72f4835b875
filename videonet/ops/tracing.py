"""Whether torch's operators are recorded or transformed, rather than only run."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

import torch
from torch import Tensor

from videonet.ops.kernels import private

Result = TypeVar("Result", bound=Tensor | tuple)  # tensors, of one or several


def is_traced() -> bool:
    """Whether torch's operators are traced, counted, recorded or transformed.

    True within compilers, export, fake tensors, FLOP counters, torch-function modes,
    ``torch.func`` and forward-mode differentiation: there the plain operators have to run.
    """
    return (
        torch.compiler.is_compiling()
        or is_transformed()
        or torch.jit.is_tracing()
        or private.in_dispatch_mode()
        or private.in_function_mode()
    )


def is_exported() -> bool:
    """Whether operators become a program that has to run without this package.

    Before torch 2.7, which can tell, also while compiling.
    """
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return exporting() or torch.jit.is_tracing()


def is_transformed() -> bool:
    """Whether ``torch.func`` or forward-mode differentiation transforms the operators.

    Not while compiling: compilers apply the transforms to the operators that they trace.
    """
    if torch.compiler.is_compiling():
        return False
    return private.in_function_transform() or private.in_forward_mode()


def is_capturing() -> bool:
    """Whether a CUDA graph records what this thread's stream is given, without running it."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


class _OnlyRecorded(Exception):
    """There is no result to remember yet."""


def once_per_shape(function: Callable[..., Result]) -> Callable[..., Result]:
    """Remember the last 64 results of a function of sizes, types and devices.

    The result is shared by all callers: never write into it. While :func:`is_traced` holds, it is
    computed anew, so that no graph refers to a remembered tensor and no fake tensor is remembered.
    Nor is what a CUDA graph only records and does not compute.
    """

    @lru_cache(maxsize=64)
    def remembered(*arguments) -> Result:
        if is_capturing():
            raise _OnlyRecorded
        return function(*arguments)

    @wraps(function)
    def call(*arguments) -> Result:
        if is_traced():
            return function(*arguments)
        with torch.inference_mode(False):  # a training step may use it later
            try:
                return remembered(*arguments)
            except _OnlyRecorded:
                return function(*arguments)

    return call
