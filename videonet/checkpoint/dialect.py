"""A dialect: the names that one project gives to the parameters of one architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

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
        dropped: names in the checkpoint that have no part in our models -> why that is fine.
        outside: names in the checkpoint that lie beside the model, such as those of a loss.
        of_pretraining: those of them that are the rest of a pre-training: decoders, other heads.
        of_detector: those of them that are the rest of a detector or a segmentation -> its part.
        lacking: templates of own names that such a checkpoint does not have.
        norm_follows_pooling: see :class:`Dialect`.
    """

    state: State
    sources: dict[str, tuple[str, ...]]
    sizes: dict[str, int]
    dialect: str
    notes: tuple[str, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    outside: frozenset[str] = frozenset()
    of_pretraining: frozenset[str] = frozenset()
    of_detector: Mapping[str, str] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()
    norm_follows_pooling: bool = False


@dataclass(frozen=True)
class Dialect:
    """Names of one project for one architecture.

    Args:
        marks: templates of names that, all together, no other dialect has.
        rows: from its names to ours.
        kernel_dims: recognised only with kernels of so many dimensions in `stem`; None for any.
        stem: the project's name of the kernel that cuts patches.
        prepare: its names -> its names in a form that `rows` can express (old -> new).
        adapt: changes the tensors, under own names, where that is needed, and returns a sentence
            for the report (or "").
        constants: templates of its names for what our models compute themselves, such as masks
            and index tables.
        base: what the names of the project's model with a classifier have in front, and those of
            its model without do not.
        unused: templates of its names for what only the model without a classifier has.
        base_lacks: templates of our names that the model without a classifier does not have,
            beside the head.
        lacks: templates of our names that such a checkpoint never has.
        unsupported: constructor options of our models, kept as attributes of that name, with
            which the tensors of this dialect would compute something else.
        absent: templates of names that such a checkpoint never has.
        residual_with_cls_token: whether an MViT of the project adds the query of its class token
            in residual pooling; None where there is no such model, or it is an option there.
        has_option: the project has that option, which names do not show.
        norm_follows_pooling: a model of the project that pools its tokens norms them afterwards,
            by the norm that its other models, and its pre-training, have before.
    """

    name: str
    marks: tuple[str, ...]
    rows: tuple[Row, ...] = ()
    kernel_dims: int | None = None
    stem: str = "patch_embed.proj.weight"
    prepare: Callable[[list[str]], dict[str, str]] | None = None
    adapt: Callable[[State], str] | None = None
    constants: tuple[str, ...] = ()
    base: str = ""
    unused: tuple[str, ...] = ()
    base_lacks: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    residual_with_cls_token: bool | None = None
    has_option: bool = False
    norm_follows_pooling: bool = False

    @property
    def has_own_names(self) -> bool:
        """Whether a state dict of a model built here looks the same."""
        return not self.rows and self.kernel_dims is None

    def matches(self, state: Mapping[str, Tensor]) -> bool:
        """Whether the names, and the kernel of the stem, are those of this dialect."""
        if any(has_names(state, (template,)) for template in self.absent):
            return False
        if self.kernel_dims is not None:
            stem = state.get(self.stem)
            if stem is None or stem.dim() != self.kernel_dims:
                return False
        return has_names(state, self.marks)
