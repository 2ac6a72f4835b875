"""Weights with low-rank adapters beside them (LoRA) become the weights that compute the same."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from videonet.errors import CheckpointError

SCALE = "adapter_scale"  # in a checkpoint, beside its weights
BASE = "base_layer."
# Names that the library peft gives the two factors of an adapter.
DOWN, UP = "lora_A.default.weight", "lora_B.default.weight"


def merged_adapters(state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The weights of a state dict whose adapters are added to the layers that they stand beside.

    Args:
        state: names as peft's ``inject_adapter_in_model`` leaves them.
        scale: factor on the product of an adapter's matrices.

    Raises:
        CheckpointError: an adapter is incomplete or does not fit its layer.
    """
    merged = {}
    for name, tensor in state.items():
        if name.endswith((DOWN, UP)):
            continue
        layer = name.removesuffix(f"{BASE}weight")
        if layer != name and layer + UP in state:
            tensor = tensor + _product(state, layer, tensor, scale)
        merged[name.replace(f".{BASE}", ".")] = tensor
    return merged


def _product(state: Mapping[str, Tensor], layer: str, weight: Tensor, scale: float) -> Tensor:
    up, down = state[layer + UP], state.get(layer + DOWN)
    if down is None or (up.shape[0], down.shape[1], up.shape[1]) != (*weight.shape, down.shape[0]):
        shapes = tuple(up.shape), None if down is None else tuple(down.shape)
        raise CheckpointError(
            f"the adapter of {layer.rstrip('.')} has matrices of {shapes[0]} and {shapes[1]}, "
            f"which do not fit its weight of {tuple(weight.shape)}"
        )
    return scale * (up.to(weight.dtype) @ down.to(weight.dtype))
