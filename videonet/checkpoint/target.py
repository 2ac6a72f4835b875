"""The model that a checkpoint is loaded into, without its wrappers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from videonet.checkpoint.recognition import WRAPPERS, without_wrappers
from videonet.errors import CheckpointError


@dataclass(frozen=True)
class Target:
    """Parameters, buffers and modules of a model by the names that it gave them itself.

    Compiled models, those in ``DataParallel`` or ``DistributedDataParallel``, single compiled or
    recomputed blocks, and models sharded by ``fully_shard`` have the names of the model inside. So
    has whatever holds one model of ours beside its own parameters (a LightningModule).

    Attributes:
        model: the innermost module that is no wrapper; of a model with a neck and heads on a
            backbone, the backbone.
        whole: the model that holds it, the same where nothing stands on it.
        state: name -> the tensor itself.
        modules: name -> the module inside of its wrappers.
    """

    model: nn.Module
    whole: nn.Module
    state: dict[str, Tensor]
    modules: dict[str, nn.Module]

    @classmethod
    def of(cls, model: nn.Module) -> Target:
        """Look into a model.

        Raises:
            CheckpointError: nothing can be loaded into it as it is.
        """
        _refuse_what_cannot_be_filled(model)
        model = _model_inside(model)
        modules = {}
        for name, module in model.named_modules():
            parts = [part for part in name.split(".") if part not in WRAPPERS]
            modules[".".join(parts)] = module  # the last one is the innermost
        state = {without_wrappers(name): tensor for name, tensor in model.state_dict().items()}
        return cls(modules[""], model, state, modules)

    @torch.no_grad()
    def fill(self, values: Mapping[str, Tensor]) -> None:
        """Copy values into the tensors of these names; of sharded ones every process its part."""
        for name, value in values.items():
            target = self.state[name]
            if hasattr(target, "device_mesh") and hasattr(target, "placements"):  # a DTensor
                from torch.distributed.tensor import distribute_tensor

                value = value.to(target.device, target.dtype)
                value = distribute_tensor(value, target.device_mesh, target.placements)
            target.copy_(value)


def _model_inside(model: nn.Module) -> nn.Module:
    """The model of ours that `model` is or holds; itself where it holds none."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(not outer or name.startswith(f"{outer}.") for outer in found)
        if not inside and _is_ours(module):
            found[name] = module
    if len(found) > 1:
        raise CheckpointError(
            f"this {type(model).__name__} holds {len(found)} models, {' and '.join(found)}: load "
            "into one of them"
        )
    for name, _ in model.named_parameters():
        if "base_layer" in name.split("."):
            raise CheckpointError(
                f"this {type(model).__name__} has adapters of peft around its layers ({name}): "
                "load into the model before get_peft_model, or after merge_and_unload"
            )
    return next(iter(found.values()), model)


def _is_ours(module: nn.Module) -> bool:
    """Whether it is a model of this project, told by its methods: nothing here imports models."""
    names = ("layer_groups", "reset_classifier", "no_weight_decay")
    return all(callable(getattr(type(module), name, None)) for name in names)


def _refuse_what_cannot_be_filled(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise CheckpointError(f"nothing can be loaded into {what}, expected a model")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_meta:
            raise CheckpointError(
                f"nothing can be loaded into this {type(model).__name__}: its {name} has no "
                "memory, as the model was built on the meta device; build it without"
            )
    for name, value in model.state_dict().items():
        # Tensors made of others, but for those of fully_shard, cannot be written to.
        of_others = hasattr(type(value), "__tensor_flatten__") and not hasattr(value, "device_mesh")
        if of_others or (not isinstance(value, Tensor) and not name.endswith("_extra_state")):
            raise CheckpointError(
                f"nothing can be loaded into this {type(model).__name__}: its {name} is a "
                f"{type(value).__name__}, as quantised layers have it; load before quantising"
            )
    for module in model.modules():
        # By name: the class is not imported where nobody uses it.
        if type(module).__name__ == "FullyShardedDataParallel":
            raise CheckpointError(
                "nothing can be loaded into a model inside of FullyShardedDataParallel, which has "
                "flattened its parameters: load before wrapping it, or use fully_shard (FSDP2)"
            )
