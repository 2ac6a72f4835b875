"""When a layer's weights may be read without calling the layer."""

from __future__ import annotations

from typing import TypeGuard, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from videonet.ops.kernels.private import has_global_hooks
from videonet.ops.tracing import is_traced

# nn.Module.__call__ runs these beside forward(). An attribute that this version of torch lacks
# counts as set, so that the layer is called.
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
# What a call of a layer runs, and how torch has it: profilers and others put their own there.
RUNS = tuple(
    (owner, name, getattr(owner, name))
    for owner, name in (
        *((nn.Module, "__call__"), (nn.Linear, "__call__"), (nn.Conv3d, "__call__")),
        *((nn.Linear, "forward"), (nn.Conv3d, "forward"), (F, "linear"), (F, "conv3d")),
    )
)

Kind = TypeVar("Kind", bound=nn.Module)


def is_plain(module: nn.Module, kind: type[Kind]) -> TypeGuard[Kind]:
    """Whether calling the module is ``kind.forward`` on its own parameters and nothing else.

    A faster implementation may read the weights of such a module; any other one has to be called.
    False for subclasses and replacements (adapters, quantised layers, parametrisations), for
    layers with hooks (pruning, weight norm, recording) or a replaced ``forward`` (of the layer,
    its class or ``torch.nn.functional``), for weights that are no plain parameters, and while
    operators are traced, where there is nothing to gain.
    """
    if is_traced() or type(module) is not kind:
        return False
    own = vars(module)
    return (
        not any(own.get(name, True) for name in HOOKS)
        and "forward" not in own
        and own.get("_compiled_call_impl") is None
        # Tensors in place of parameters are those of torch.func.functional_call.
        and all(type(p) in (nn.Parameter, Tensor, type(None)) for p in own["_parameters"].values())
        and not any(name in own for name in ("weight", "bias"))
        and "weight" in own["_parameters"]
        and not has_global_hooks()
        and all(getattr(owner, name) is before for owner, name, before in RUNS)
    )
