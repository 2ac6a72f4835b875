"""What only private functions of torch can tell or do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from videonet.ops.kernels.probing import Question

Ask = Callable[[], bool]


def _within_vmap(ask: Ask) -> bool:
    answers = []

    def function(x: Tensor) -> Tensor:
        answers.append(ask())
        return x

    torch.func.vmap(function)(torch.zeros(1, device="cpu"))
    return answers[0]


def _within_forward_mode(ask: Ask) -> bool:
    if ask():  # levels are of all threads and cannot be nested
        return True
    with forward_ad.dual_level():
        return ask()


def _within_dispatch_mode(ask: Ask) -> bool:
    with TorchDispatchMode():
        return ask()


def _within_function_mode(ask: Ask) -> bool:
    with TorchFunctionMode():
        return ask()


def _with_a_global_hook(ask: Ask) -> bool:
    handle = register_module_forward_hook(lambda module, inputs, output: None)
    try:
        return ask()
    finally:
        handle.remove()


in_function_transform = Question(
    "torch._C._functorch.peek_interpreter_stack",
    lambda: torch._C._functorch.peek_interpreter_stack() is not None,
    _within_vmap,
)
in_forward_mode = Question(
    "torch.autograd.forward_ad._current_level",
    lambda: forward_ad._current_level >= 0,
    _within_forward_mode,
)
in_dispatch_mode = Question(
    "torch._C._len_torch_dispatch_stack",
    lambda: torch._C._len_torch_dispatch_stack() > 0,
    _within_dispatch_mode,
)
in_function_mode = Question(
    "torch._C._len_torch_function_stack",
    lambda: torch._C._len_torch_function_stack() > 0,
    _within_function_mode,
)
has_global_hooks = Question(
    "torch.nn.modules.module._global_forward_hooks and its like",
    lambda: any(
        getattr(nn.modules.module, f"_global_{kind}_hooks")
        for kind in ("forward_pre", "forward", "backward_pre", "backward")
    ),
    _with_a_global_hook,
)


def operator(name: str) -> Any | None:
    """An operator of torch's own library by its name, e.g. to map it in a counter; None if gone."""
    return getattr(torch.ops.aten, name, None)


def inductor_function(name: str) -> Callable[..., Any] | None:
    """``aoti_compile_and_package`` and its like; None in a torch that has no such function."""
    import torch._inductor as inductor  # on use: it is large

    return getattr(inductor, name, None)
