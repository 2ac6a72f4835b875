"""Whose names a checkpoint uses, and the way from these names to ours and back.

Own names are those of the official implementations. A dialect is a table of rows
(:class:`videonet.checkpoint.names.Row`), the marks it is recognised by, and, where renaming is
not enough, a function. A new architecture adds its dialects to ``DIALECTS``; nothing else here
depends on the architecture.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from videonet.checkpoint.names import Row, has_names
from videonet.errors import CheckpointError

State = dict[str, Tensor]
WRAPPERS = ("module.", "_orig_mod.", "model.")  # put before every name by DDP, compile, trainers
CONTAINERS = ("model_state", "state_dict", "model_state_dict", "model")


@dataclass(frozen=True)
class Tensors:
    """The tensors of a checkpoint under own names.

    Attributes:
        state: own name -> tensor; convolution kernels are (O, I, t, h, w).
        sources: own name -> the names that the tensor had in the checkpoint.
        dialect: whose names those were.
        sizes: name in the checkpoint -> number of values.
        notes: sentences on what had to be changed.
    """

    state: State
    sources: dict[str, tuple[str, ...]]
    sizes: dict[str, int]
    dialect: str
    notes: tuple[str, ...] = ()


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
        unsupported: constructor options of our models, kept as attributes of that name, with
            which the tensors of this dialect would compute something else.
    """

    name: str
    marks: tuple[str, ...]
    rows: tuple[Row, ...] = ()
    kernel_dims: int | None = None
    prepare: Callable[[list[str]], dict[str, str]] | None = None
    adapt: Callable[[State], str] | None = None
    unsupported: tuple[str, ...] = ()

    def matches(self, state: Mapping[str, Tensor]) -> bool:
        if self.kernel_dims is not None:
            stem = state.get("patch_embed.proj.weight")
            if stem is None or stem.dim() != self.kernel_dims:
                return False
        return has_names(state, self.marks)


# --- MViT ---------------------------------------------------------------------------------------

SHARED_BY_ALL_MVITS = (
    Row("blocks.{n}.norm{m}.{leaf}", "blocks.{n}.norm{m}.{leaf}"),
    Row("blocks.{n}.attn.qkv.{leaf}", "blocks.{n}.attn.qkv.{leaf}"),
    Row("blocks.{n}.attn.rel_pos_{axis}", "blocks.{n}.attn.rel_pos_{axis}"),
)

TORCHVISION_MVIT = SHARED_BY_ALL_MVITS + (
    Row("conv_proj.{leaf}", "patch_embed.proj.{leaf}"),
    Row("pos_encoding.class_token", "cls_token", leading=2),
    Row("pos_encoding.spatial_pos", "pos_embed_spatial", leading=1),
    Row("pos_encoding.temporal_pos", "pos_embed_temporal", leading=1),
    Row("pos_encoding.class_pos", "pos_embed_class", leading=2),
    Row("blocks.{n}.attn.project.0.{leaf}", "blocks.{n}.attn.proj.{leaf}"),
    Row("blocks.{n}.attn.pool_{p}.pool.weight", "blocks.{n}.attn.pool_{p}.weight"),
    Row("blocks.{n}.attn.pool_{p}.norm_act.0.{leaf}", "blocks.{n}.attn.norm_{p}.{leaf}"),
    Row("blocks.{n}.mlp.0.{leaf}", "blocks.{n}.mlp.fc1.{leaf}"),
    Row("blocks.{n}.mlp.3.{leaf}", "blocks.{n}.mlp.fc2.{leaf}"),
    Row("blocks.{n}.project.{leaf}", "blocks.{n}.proj.{leaf}"),
    Row("norm.{leaf}", "norm.{leaf}"),
    Row("head.1.{leaf}", "head.projection.{leaf}"),
)

TIMM_MVIT = (
    Row("blocks.{n}.shortcut_proj_attn.{leaf}", "blocks.{n}.proj.{leaf}"),
    Row("blocks.{n}.shortcut_proj_mlp.{leaf}", "blocks.{n}.proj.{leaf}"),
    Row("head.fc.{leaf}", "head.projection.{leaf}"),
)

PYTORCHVIDEO_MVIT = (
    Row("patch_embed.patch_model.{leaf}", "patch_embed.proj.{leaf}"),
    Row("cls_positional_encoding.{any}", "{any}"),
    Row("norm_patch_embed.{leaf}", "norm_stem.{leaf}"),
    Row("norm_embed.{leaf}", "norm.{leaf}"),
    Row("head.proj.{leaf}", "head.projection.{leaf}"),
)


def number_blocks_through(names: list[str]) -> dict[str, str]:
    """timm counts blocks anew in each stage: ``stages.1.blocks.0`` -> ``blocks.<depth so far>``."""
    pattern = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.(.+)")
    places = {name: (int(m[1]), int(m[2])) for name in names if (m := pattern.fullmatch(name))}
    numbers = {place: i for i, place in enumerate(sorted(set(places.values())))}
    return {
        name: f"blocks.{numbers[places[name]]}.{pattern.fullmatch(name)[3]}"
        if name in places
        else name
        for name in names
    }


def warn_of_class_query(state: State) -> str:
    """timm's residual pooling adds the class token's query too; the official one does not."""
    if "cls_token" not in state:
        return ""
    return (
        "timm adds the class token's query in residual pooling, the official code does not and "
        "neither does this model: its logits are the official ones, not timm's"
    )


def absorb_pool_norm_eps(state: State) -> str:
    """Make pooling norms with eps 1e-5 (pytorchvideo) into norms with eps 1e-6 (ours).

    A layer norm gives the same for ``s * x`` with ``s**2 * eps`` as for ``x`` with ``eps``, and
    what it sees is linear in the projection: scaling query, key and value projections by
    ``sqrt(1e-6 / 1e-5)`` leaves the function as it was.
    """
    scale = 0.1**0.5
    norms = [name for name in state if re.search(r"\.norm_[qkv]\.weight$", name)]
    for name in norms:
        prefix, p = name.removesuffix(".weight").rsplit("norm_", 1)
        for leaf in ("weight", "bias"):
            if f"{prefix}{p}.{leaf}" in state:
                state[f"{prefix}{p}.{leaf}"] = state[f"{prefix}{p}.{leaf}"] * scale
    if not norms:
        return ""
    return (
        "projections before a pooling norm are scaled by 0.1**0.5, which turns pytorchvideo's "
        "eps of 1e-5 into 1e-6 without changing the function"
    )


DIALECTS = (
    Dialect(
        "torchvision",
        ("conv_proj.weight", "pos_encoding.class_token", "blocks.0.attn.qkv.weight"),
        TORCHVISION_MVIT,
    ),
    Dialect(
        "timm",
        ("patch_embed.proj.weight", "stages.0.blocks.0.mlp.fc1.weight"),
        TIMM_MVIT,
        prepare=number_blocks_through,
        adapt=warn_of_class_query,
    ),
    Dialect(
        "pytorchvideo",
        ("norm_embed.weight", "blocks.0.attn.q.weight"),
        PYTORCHVIDEO_MVIT,
        adapt=absorb_pool_norm_eps,
        unsupported=("pool_first",),
    ),
    Dialect("mvit", ("blocks.0.mlp.fc1.weight",), kernel_dims=4),  # the image repository
    Dialect("pyslowfast", ("blocks.{n}.mlp.fc1.weight",)),
)


# --- From a checkpoint to own names, and back ---------------------------------------------------


def find_state(content: Mapping, origin: str) -> State:
    """The state dict in a checkpoint's content: at the top, or under one of ``CONTAINERS``.

    Raises:
        CheckpointError: there is no tensor in either place.
    """
    for key in CONTAINERS:
        if isinstance(content.get(key), Mapping):
            return find_state(content[key], origin)
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        keys = ", ".join(map(str, list(content)[:6])) or "none"
        raise CheckpointError(f"{origin} holds no weights: its keys are {keys}")
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def to_own_names(content: Mapping, origin: str) -> Tensors:
    """Recognise the dialect of a checkpoint by its content and translate it.

    Args:
        content: a state dict, or a dictionary that holds one.
        origin: what to call the checkpoint in messages.

    Raises:
        CheckpointError: `content` holds no weights.
    """
    state = find_state(content, origin)
    own = Dialect("videonet", ())
    written_here = "class_names" in content or content.get("format") == "videonet"
    dialect = own if written_here else next((d for d in DIALECTS if d.matches(state)), own)
    prepared = dialect.prepare(list(state)) if dialect.prepare else {}
    renamed, sources = {}, {}
    for name, tensor in state.items():
        name_here, leading = prepared.get(name, name), 0
        for row in dialect.rows:
            if (match := row.to_ours(name_here)) is not None:
                name_here, leading = match, row.leading
                break
        tensor = tensor.reshape((1,) * leading + tuple(tensor.shape))
        # An image is a one-frame clip: a 2D kernel is a 3D kernel of one frame.
        flat_kernel = tensor.dim() == 4 and name_here.endswith(".weight")
        renamed[name_here] = tensor.unsqueeze(2) if flat_kernel else tensor
        sources[name_here] = (name,)
    note = dialect.adapt(renamed) if dialect.adapt else ""
    sizes = {name: tensor.numel() for name, tensor in state.items()}
    return Tensors(renamed, sources, sizes, dialect.name, (note,) if note else ())


def unsupported_option(dialect: str, model: nn.Module) -> str | None:
    """An option of `model` with which tensors of that dialect would compute something else."""
    options = next((d.unsupported for d in DIALECTS if d.name == dialect), ())
    for option in options:
        if any(getattr(module, option, False) for module in model.modules()):
            return option
    return None


def from_own_names(state: Mapping[str, Tensor], name: str) -> State:
    """Write own tensors in the names and shapes of the dialect `name`.

    Raises:
        CheckpointError: that project's model has no place for one of the tensors, or needs one
            that is not there.
    """
    dialect = next(d for d in DIALECTS if d.name == name)
    written = {}
    for own_name, tensor in state.items():
        # A dialect without rows has our names.
        rows = dialect.rows or (Row(own_name, own_name),)
        found = next(((row, new) for row in rows if (new := row.to_theirs(own_name))), None)
        if found is None:
            raise CheckpointError(f"{name}'s model has no place for {own_name}")
        row, new = found
        written[new] = tensor.reshape(tensor.shape[row.leading :])
    for mark in dialect.marks:
        if not has_names(written, (mark,)):
            raise CheckpointError(f"{name}'s model needs {mark}, which the checkpoint lacks")
    return written


# --- Projections to query, key and value: one layer or three ------------------------------------

PROJECTION = re.compile(r"(.*attn\.)(qkv|q)\.(weight|bias)")


def with_fused_projections(tensors: Tensors) -> Tensors:
    """The same with one ``qkv`` wherever there are ``q``, ``k`` and ``v``."""
    state, sources = dict(tensors.state), dict(tensors.sources)
    for name in tensors.state:
        match = PROJECTION.fullmatch(name)
        if match is None or match[2] != "q":
            continue
        parts = [f"{match[1]}{p}.{match[3]}" for p in "qkv"]
        if all(part in state for part in parts):
            fused = f"{match[1]}qkv.{match[3]}"
            state[fused] = torch.cat([state.pop(part) for part in parts])
            sources[fused] = sum((sources.pop(part) for part in parts), ())
    return replace(tensors, state=state, sources=sources)


def with_separate_projections(tensors: Tensors) -> Tensors:
    """The same with ``q``, ``k`` and ``v`` wherever there is one ``qkv``."""
    state, sources = dict(tensors.state), dict(tensors.sources)
    for name in tensors.state:
        match = PROJECTION.fullmatch(name)
        if match is None or match[2] != "qkv":
            continue
        origin = sources.pop(name)
        for p, part in zip("qkv", state.pop(name).chunk(3), strict=True):
            state[f"{match[1]}{p}.{match[3]}"] = part
            sources[f"{match[1]}{p}.{match[3]}"] = origin
    return replace(tensors, state=state, sources=sources)
