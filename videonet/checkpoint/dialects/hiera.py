"""Hiera in the names of its repository, of timm and of transformers, pre-trained or fine-tuned."""

from __future__ import annotations

from videonet.checkpoint.dialect import Dialect, State
from videonet.checkpoint.dialects.mvit import OF_POOLING_ATTENTION, number_blocks_through
from videonet.checkpoint.names import Row

WIDENING = "blocks.{n}.proj.weight"  # MViT has it too
TIMM = (
    Row("pos_embed_win", "window_embed"),
    Row("head.norm.{leaf}", "norm.{leaf}"),
    Row("head.fc.{leaf}", "head.projection.{leaf}"),
)
TRANSFORMERS = (
    Row("hiera.embeddings.position_embeddings", "pos_embed"),
    Row("hiera.embeddings.patch_embeddings.projection.{leaf}", "patch_embed.proj.{leaf}"),
    Row("blocks.{n}.layernorm_before.{leaf}", "blocks.{n}.norm1.{leaf}"),
    Row("blocks.{n}.layernorm_after.{leaf}", "blocks.{n}.norm2.{leaf}"),
    Row("hiera.pooler.layernorm.{leaf}", "norm.{leaf}"),
    Row("classifier.{leaf}", "head.projection.{leaf}"),
)
TRANSFORMERS_MARKS = (
    "hiera.embeddings.position_embeddings",
    "hiera.encoder.stages.{n}.layers.{m}.layernorm_before.weight",
)
# The norm before the decoder has seen maps of all stages: it is not the one before a classifier.
DECODER = ("encoder_norm.{leaf}", "decoder_{any}", "mask_token", "multi_scale_fusion_heads.{any}")
TRANSFORMERS_DECODER = ("encoder_norm.{leaf}", "decoder.{any}", "multiscale_fusion.{any}")
NORM = ("norm.{leaf}",)


def number_transformers_blocks(names: list[str]) -> dict[str, str]:
    """``hiera.encoder.stages.1.layers.0`` -> ``blocks.<depth so far>``."""
    return number_blocks_through(names, r"hiera\.encoder\.stages\.(\d+)\.layers\.(\d+)\.(.+)")


def lay_positions_in_rows(state: State) -> str:
    """Maps of positions (1, C, h, w), as timm has them beside those of a window, -> (1, h*w, C)."""
    for name in ("pos_embed", "window_embed"):
        if name in state and state[name].dim() == 4:
            state[name] = state[name].flatten(2).transpose(1, 2)
    return ""


DIALECTS = (
    Dialect(
        "hiera, pre-trained",
        (WIDENING, "encoder_norm.weight", "decoder_embed.weight"),
        unused=DECODER,
        lacks=NORM,
    ),
    *(
        Dialect(
            "timm hiera",
            ("head.norm.weight", "blocks.0.attn.qkv.weight", mark),
            TIMM,
            adapt=lay_positions_in_rows,
        )
        for mark in (WIDENING, "pos_embed_win")
    ),
    Dialect(
        "transformers hiera, pre-trained",
        (*TRANSFORMERS_MARKS, "encoder_norm.weight"),
        TRANSFORMERS,
        prepare=number_transformers_blocks,
        unused=TRANSFORMERS_DECODER,
        lacks=NORM,
    ),
    Dialect(
        "transformers hiera",
        TRANSFORMERS_MARKS,
        TRANSFORMERS,
        prepare=number_transformers_blocks,
        base="hiera.",
    ),
    Dialect(
        "hiera",
        (WIDENING, "norm.weight", "blocks.0.attn.qkv.weight", "patch_embed.proj.weight"),
        absent=(*OF_POOLING_ATTENTION, "cls_token"),
    ),
)
