"""Finding the weights in the content of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from videonet.checkpoint.adapters import SCALE, merged_adapters
from videonet.checkpoint.dialect import State
from videonet.errors import CheckpointError

# Keys under which trainers keep the weights, those of the best known ones first.
WEIGHTS = (
    *("model_state", "state_dict", "model_state_dict", "model", "module", "net", "network"),
    *("weights", "params", "state", "student"),
)
AVERAGES = re.compile(
    r"(?:.*[._])?(ema|teacher|averaged?|avg|polyak|swa|shadow|momentum)(?:[._].*|\d*)"
)
# What stands beside weights and holds tensors that are none.
OTHERS = re.compile(
    r".*(optim|sched|scaler|callback|loop|rng|random|amp|hyper|config|cfg|args|criterion|loss"
    r"|metric|param_shapes|buffer_names|_metadata).*",
    re.IGNORECASE,
)
DEEPEST = 6  # dictionaries within dictionaries

# (a part of a name, what such a state dict is and what helps)
SIGNS = (
    (
        re.compile(r"(?:.*\.)?_?flat_param(?:_\d+)?"),
        "parameters flattened by FSDP: save the full state dict (get_model_state_dict with "
        "full_state_dict=True)",
    ),
    (
        re.compile(r".*\.lora_(?:A|B|embedding_[AB])(?:\..*)?"),
        "adapters (LoRA) beside the weights: merge them (merge_and_unload) and save the result",
    ),
    (
        re.compile(r".*\.parametrizations\..+\.original\d?"),
        "weights behind parametrisations: remove them (remove_parametrizations) and save the "
        "result",
    ),
    (
        re.compile(r"(?!(?:.*\.)?last_layer\.).*\.weight_(?:orig|mask|g|v)"),  # not DINO's head
        "weights that pruning or weight norm compute before each call: make them permanent "
        "(prune.remove, remove_weight_norm) and save the result",
    ),
    (
        re.compile(r".*\._packed_params(?:\..*)?"),
        "quantised weights: give the checkpoint that was quantised",
    ),
)


@dataclass(frozen=True)
class Found:
    """The state dict of a checkpoint.

    Attributes:
        state: its tensors by name.
        notes: sentences on what was chosen.
    """

    state: State
    notes: tuple[str, ...] = ()


def find_state(content: Mapping, origin: str) -> Found:
    """The weights in a checkpoint's content, at the top or wherever trainers put them.

    Averages of the weights are taken where there is nothing else.

    Raises:
        CheckpointError: there are no weights, or they are of a kind that cannot be used.
    """
    found = _search(content, origin, 0)
    scale = content.get(SCALE)
    if found is not None and isinstance(scale, float):
        note = "adapters are added to the weights that they stand beside"
        found = Found(merged_adapters(found.state, scale), (*found.notes, note))
    if found is None:
        keys = ", ".join(map(str, list(content)[:6])) or "none"
        raise CheckpointError(f"{origin} holds no weights: its keys are {keys}{_why(content)}")
    _refuse_odd_tensors(found.state, origin)
    return found


def class_names_of(content: Mapping, origin: str) -> list[str] | None:
    """The names of the classes beside the weights, None where there are none.

    Raises:
        CheckpointError: they are no list of names.
    """
    names = content.get("class_names")
    if names is None:
        return None
    is_list = isinstance(names, Sequence) and not isinstance(names, str | bytes)
    if not is_list or not names or not all(isinstance(name, str) and name for name in names):
        raise CheckpointError(
            f"{origin}: its class_names are {_short(names)}, expected a list of names"
        )
    return list(names)


def evaluation_weights(content: Mapping, *, averaged: bool) -> Mapping:
    """A checkpoint's content with the weights to evaluate under ``model_state``.

    Args:
        content: what a checkpoint holds.
        averaged: take the averages of a run with ``SOLVER.EMA_DECAY``, where there are some.
    """
    if averaged and content.get("ema_state"):
        others = {key: value for key, value in content.items() if key != "ema_state"}
        return {**others, "model_state": content["ema_state"]}
    return content


def _short(value: object, most: int = 60) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**most else "a long number"
    return text if len(text) <= most else f"{text[:most]}…"


def _search(content: Mapping, origin: str, depth: int) -> Found | None:
    if depth > DEEPEST:
        return None
    inner = {
        key: value for key, value in ((key, _only_one(value)) for key, value in content.items())
        if isinstance(key, str) and isinstance(value, Mapping) and value
    }  # fmt: skip
    for key in WEIGHTS:
        if key in inner and (found := _search(inner[key], origin, depth + 1)):
            averages = [k for k in inner if AVERAGES.fullmatch(k) and _has_tensors(inner[k])]
            if averages:
                note = f"averages of the weights are in the file too ({averages[0]}), not taken"
                return Found(found.state, (*found.notes, note))
            return found
    if state := _tensors_of(content, origin):
        return Found(state)
    rest = {k: v for k, v in inner.items() if not OTHERS.fullmatch(k) and k not in WEIGHTS}
    parts = {k: found for k, v in rest.items() if (found := _search(v, origin, depth + 1))}
    plain = {k: found for k, found in parts.items() if not AVERAGES.fullmatch(k)}
    if not plain and parts:
        key = next(iter(parts))
        note = f"the averages of the weights ({key}) are taken: there are no others in the file"
        return Found(parts[key].state, (*parts[key].notes, note))
    if len(plain) == 1:
        return next(iter(plain.values()))
    # A state dict per part of the model: backbone, head.
    joined = {f"{k}.{name}": t for k, part in plain.items() for name, t in part.state.items()}
    return Found(joined) if joined else None


def _only_one(value: object) -> object:
    """What a list of one holds: probes that are trained side by side are lists of state dicts."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


def _tensors_of(content: Mapping, origin: str) -> State:
    """The tensors right here, unless they are single numbers beside something else."""
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if odd := [name for name in tensors if not isinstance(name, str)]:
        raise CheckpointError(
            f"{origin}: a tensor is called {_short(odd[0])}, expected text as the name of each"
        )
    return tensors if any("." in name or t.dim() for name, t in tensors.items()) else {}


def _has_tensors(content: Mapping, depth: int = 0) -> bool:
    return depth <= DEEPEST and any(
        isinstance(v, Tensor) or (isinstance(v, Mapping) and _has_tensors(v, depth + 1))
        for v in content.values()
    )


def _is_list_of_states(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) > 1
        and all(isinstance(v, Mapping) and _has_tensors(v) for v in value)
    )


def _lists_of_tensors(content: Mapping, depth: int = 0) -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
            yield str(key)
        elif isinstance(value, Mapping) and depth < DEEPEST:
            yield from _lists_of_tensors(value, depth + 1)


def _values_of_other_types(content: Mapping, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Names of weights (with a dot) whose values are arrays or lists of numbers, and what of."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            if depth < DEEPEST and not OTHERS.fullmatch(str(key)):
                yield from _values_of_other_types(value, depth + 1)
        elif "." in str(key) and not isinstance(value, Tensor | str | int | float | bool | None):
            yield str(key), type(value).__name__


def _why(content: Mapping) -> str:
    """What else the file may be."""
    names = [str(key) for key in content]
    if unnamed := next(_lists_of_tensors(content), None):
        return f" ({unnamed} lists tensors without names, which cannot be told apart)"
    if several := next((k for k, v in content.items() if _is_list_of_states(v)), None):
        return f" ({several} lists {len(content[several])} state dicts: give one of them)"
    if found := next(_values_of_other_types(content), None):
        name, kind = found
        return f" ({name} is a {kind}, expected a tensor: torch.as_tensor makes one)"
    if any("optimizer" in name for name in names) or {"state", "param_groups"} <= set(names):
        return (
            " (the state of an optimiser alone; DeepSpeed keeps the weights in "
            "mp_rank_00_model_states.pt)"
        )
    return ""


def _refuse_odd_tensors(state: State, origin: str) -> None:
    for sign, what in SIGNS:
        if name := next((name for name in state if sign.fullmatch(name)), None):
            raise CheckpointError(f"{origin} holds {what} (found {name})")
    empty = [name for name, tensor in state.items() if not tensor.numel()]
    if empty:
        raise CheckpointError(
            f"{origin}: {len(empty)} of its {len(state)} tensors are empty ({empty[0]}), as in one "
            "rank's share of a model that is divided (DeepSpeed's ZeRO-3): join the shares "
            "(zero_to_fp32.py)"
        )
    for name, tensor in state.items():
        if type(tensor).__name__ in ("DTensor", "ShardedTensor"):
            raise CheckpointError(
                f"{origin}: {name} is one process's shard: take the full state dict "
                "(get_model_state_dict with full_state_dict=True)"
            )
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise CheckpointError(
                f"{origin}: {name} is sparse or quantised, expected plain tensors"
            )
