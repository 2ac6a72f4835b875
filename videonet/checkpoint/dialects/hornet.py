"""HorNet in the names of the official repository."""

from __future__ import annotations

from videonet.checkpoint.dialect import Dialect, State
from videonet.checkpoint.names import Row


def give_filters_a_time_axis(state: State) -> str:
    """Filters (C, h, w, 2) of an image -> (C, 1, h, w, 2): one temporal frequency."""
    for name, tensor in state.items():
        if name.endswith(".complex_weight") and tensor.dim() == 4:
            state[name] = tensor.unsqueeze(1)
    return ""


DIALECTS = (
    Dialect(
        "hornet",
        ("stages.{n}.{m}.gnconv.proj_in.weight",),
        (Row("head.{leaf}", "head.projection.{leaf}"),),
        adapt=give_filters_a_time_axis,
    ),
)
