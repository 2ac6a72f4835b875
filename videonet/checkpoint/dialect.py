"""A dialect: the names that one project gives to the parameters of one architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from videonet.checkpoint.names import Row, has_names

State = dict[str, Tensor]


@dataclass(frozen=True)
class Tensors:
    """The tensors of a checkpoint under own names.

    Attributes:
        state: own name -> tensor; convolution kernels are (O, I, t, h, w).
        sources: own name -> the names that the tensor had in the checkpoint.
        dialect: whose names those were.
        sizes: name in the checkpoint -> number of values.
        notes: sentences on what had to be changed.
        constants: names in the checkpoint of what our models compute themselves.
    """

    state: State
    sources: dict[str, tuple[str, ...]]
    sizes: dict[str, int]
    dialect: str
    notes: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dialect:
    """Names of one project for one architecture.

    Args:
        marks: templates of names that, all together, no other dialect has.
        rows: from its names to ours.
        kernel_dims: recognised only with stem kernels of so many dimensions; None for any.
        prepare: its names -> its names in a form that `rows` can express (old -> new).
        adapt: changes the tensors, under own names, where that is needed, and returns a sentence
            for the report (or "").
        constants: templates of its names for what our models compute themselves, such as masks
            and index tables.
        unsupported: constructor options of our models, kept as attributes of that name, with
            which the tensors of this dialect would compute something else.
    """

    name: str
    marks: tuple[str, ...]
    rows: tuple[Row, ...] = ()
    kernel_dims: int | None = None
    prepare: Callable[[list[str]], dict[str, str]] | None = None
    adapt: Callable[[State], str] | None = None
    constants: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()

    def matches(self, state: Mapping[str, Tensor]) -> bool:
        if self.kernel_dims is not None:
            stem = state.get("patch_embed.proj.weight")
            if stem is None or stem.dim() != self.kernel_dims:
                return False
        return has_names(state, self.marks)
