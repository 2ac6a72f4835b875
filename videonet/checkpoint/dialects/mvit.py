"""MViT in the names of torchvision, timm, pytorchvideo, the image repository and PySlowFast."""

from __future__ import annotations

import math
import re

from videonet.checkpoint.dialect import Dialect, State
from videonet.checkpoint.names import Row

SHARED_BY_ALL_MVITS = (
    Row("blocks.{n}.norm{m}.{leaf}", "blocks.{n}.norm{m}.{leaf}"),
    Row("blocks.{n}.attn.qkv.{leaf}", "blocks.{n}.attn.qkv.{leaf}"),
    Row("blocks.{n}.attn.rel_pos_{axis}", "blocks.{n}.attn.rel_pos_{axis}"),
)

TORCHVISION_MVIT = SHARED_BY_ALL_MVITS + (
    Row("conv_proj.{leaf}", "patch_embed.proj.{leaf}"),
    Row("pos_encoding.class_token", "cls_token", leading_dims=2),
    Row("pos_encoding.spatial_pos", "pos_embed_spatial", leading_dims=1),
    Row("pos_encoding.temporal_pos", "pos_embed_temporal", leading_dims=1),
    Row("pos_encoding.class_pos", "pos_embed_class", leading_dims=2),
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

REVERSIBLE_LAYER = "rev_backbone.layers.{n}."
PYSLOWFAST_REVERSIBLE = (
    Row(REVERSIBLE_LAYER + "F.norm.{leaf}", "blocks.{n}.norm1.{leaf}"),
    Row(REVERSIBLE_LAYER + "F.attn.{any}", "blocks.{n}.attn.{any}"),
    Row(REVERSIBLE_LAYER + "G.norm.{leaf}", "blocks.{n}.norm2.{leaf}"),
    Row(REVERSIBLE_LAYER + "G.mlp.{any}", "blocks.{n}.mlp.{any}"),
    Row(REVERSIBLE_LAYER + "res_proj.{leaf}", "blocks.{n}.proj.{leaf}"),
    *(
        row
        for theirs, ours in (
            (REVERSIBLE_LAYER + "pre_q_fuse.fuse_fn", "blocks.{n}.fuse"),
            ("fuse.fuse_fn", "fuse"),
        )
        for row in (
            Row(theirs + ".0.{leaf}", ours + ".norm.{leaf}"),
            Row(theirs + ".1.{any}", ours + ".mlp.{any}"),
            Row(theirs + ".{any}", ours + ".mlp.{any}"),
        )
    ),
)


OF_POOLING_ATTENTION = (
    "blocks.{n}.attn.pool_{p}.weight",
    "blocks.{n}.attn.norm_{p}.weight",
    "blocks.{n}.attn.rel_pos_{axis}",
)


def number_blocks_through(
    names: list[str], place: str = r"stages\.(\d+)\.blocks\.(\d+)\.(.+)"
) -> dict[str, str]:
    """Blocks that are counted anew in each stage: ``stages.1.blocks.0`` -> ``blocks.<so far>``.

    Args:
        place: a pattern of names of blocks, whose groups are the stage, the block and the rest.
    """
    pattern = re.compile(place)
    found = {name: match for name in names if (match := pattern.fullmatch(name))}
    places = {name: (int(match[1]), int(match[2])) for name, match in found.items()}
    numbers = {place: i for i, place in enumerate(sorted(set(places.values())))}
    return {
        name: f"blocks.{numbers[places[name]]}.{found[name][3]}" if name in found else name
        for name in names
    }


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


def number_scales(names: list[str]) -> dict[str, str]:
    """Norms of the outputs of detectron2, which counts scales from 2, the stride as a power."""
    pattern = re.compile(r"scale(\d+)_norm\.(.+)")
    return {
        name: f"output_norms.{int(match[1]) - 2}.{match[2]}"
        for name in names
        if (match := pattern.fullmatch(name))
    }


def drop_class_row(state: State) -> str:
    """Drop the class token's row of a table of positions on a square, as detectron2 does.

    Its backbones keep the table of their pre-training, but have no class token.
    """
    table = state.get("pos_embed")
    rows = 0 if table is None else table.shape[1]
    if table is None or math.isqrt(rows) ** 2 == rows or math.isqrt(rows - 1) ** 2 != rows - 1:
        return ""
    state["pos_embed"] = table[:, 1:]
    return "the class token's row of the positions is left out: the model has no class token"


DIALECTS = (
    Dialect(  # a detector's backbone
        "detectron2 mvit",
        ("blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "scale{n}_norm.weight"),
        kernel_dims=4,
        prepare=number_scales,
        adapt=drop_class_row,
    ),
    Dialect(
        "torchvision",
        ("conv_proj.weight", "pos_encoding.class_token", "blocks.0.attn.qkv.weight"),
        TORCHVISION_MVIT,
        has_option=True,
    ),
    Dialect(
        "timm",
        ("patch_embed.proj.weight", "stages.0.blocks.0.mlp.fc1.weight"),
        TIMM_MVIT,
        prepare=number_blocks_through,
        residual_with_cls_token=True,
    ),
    Dialect(
        "pytorchvideo",
        ("norm_embed.weight", "blocks.0.attn.q.weight"),
        PYTORCHVIDEO_MVIT,
        adapt=absorb_pool_norm_eps,
        unsupported=("pool_first",),
        residual_with_cls_token=False,
    ),
    Dialect(
        "pyslowfast, reversible",
        (REVERSIBLE_LAYER + "F.norm.weight",),
        PYSLOWFAST_REVERSIBLE,
        residual_with_cls_token=False,
    ),
    Dialect(  # the image repository
        "mvit", ("blocks.0.mlp.fc1.weight",), kernel_dims=4, residual_with_cls_token=False
    ),
    Dialect(
        "pyslowfast",
        ("blocks.{n}.mlp.fc1.weight",),
        residual_with_cls_token=False,
        norm_follows_pooling=True,
    ),
)
