"""ViTs of clips in the names of TimeSformer, VideoMAE, ViViT, MAE-ST and transformers."""

from __future__ import annotations

from videonet.checkpoint.dialect import Dialect
from videonet.checkpoint.dialects.vit import (
    LAYER_4,
    LAYER_5,
    MVIT_ONLY,
    PATCHES,
    TIMM,
    layer_rows,
    transformers_rows,
)
from videonet.checkpoint.names import Row

TIMESFORMER = (
    Row("blocks.{n}.temporal_fc.{leaf}", "blocks.{n}.temporal_proj.{leaf}"),
    Row("time_embed", "pos_embed_temporal"),
    *TIMM,
)
TIMESFORMER_LAYER = LAYER_4 | {
    "temporal_layernorm": "temporal_norm1",
    "temporal_attention.attention.qkv": "temporal_attn.qkv",
    "temporal_attention.output.dense": "temporal_attn.proj",
    "temporal_dense": "temporal_proj",
    "attention.attention.qkv": "attn.qkv",
}
TRANSFORMERS_TIMESFORMER = (
    *transformers_rows("timesformer"),
    Row("timesformer.embeddings.time_embeddings", "pos_embed_temporal"),
    *layer_rows("timesformer.encoder.layer.{n}", TIMESFORMER_LAYER),
)

VIDEOMAE = (
    Row("blocks.{n}.gamma_{m}", "blocks.{n}.ls{m}.gamma"),
    Row("blocks.{n}.attn.{p}_bias", "blocks.{n}.attn.{p}_bias"),
    Row("blocks.{n}.attn.scale", "blocks.{n}.attn.scale"),
    *TIMM,
)
VIDEOMAE_ATTENTION = "videomae.encoder.layer.{n}.attention.attention."
TRANSFORMERS_VIDEOMAE = (
    # Files on the hub have the first form; from transformers 5 on models have the others.
    Row(VIDEOMAE_ATTENTION + "{p}_bias", "blocks.{n}.attn.{p}_bias"),
    Row(VIDEOMAE_ATTENTION + "query.bias", "blocks.{n}.attn.q_bias"),
    Row(VIDEOMAE_ATTENTION + "value.bias", "blocks.{n}.attn.v_bias"),
    Row("fc_norm.{leaf}", "fc_norm.{leaf}"),
    *transformers_rows("videomae"),
    *layer_rows("videomae.encoder.layer.{n}", LAYER_4),
)

DIALECTS = (
    Dialect("timesformer", ("time_embed", "blocks.0.attn.qkv.weight"), TIMESFORMER),
    Dialect(
        "transformers timesformer",
        ("timesformer.embeddings.time_embeddings",),
        TRANSFORMERS_TIMESFORMER,
        base="timesformer.",
    ),
    Dialect("videomae", ("blocks.0.attn.q_bias", "blocks.0.attn.qkv.weight"), VIDEOMAE),
    Dialect(
        "transformers videomae",
        (VIDEOMAE_ATTENTION + "query.weight",),
        TRANSFORMERS_VIDEOMAE,
        base="videomae.",
        absent=("videomae.embeddings.cls_token",),
    ),
    *(
        Dialect(
            "transformers vivit",
            (mark,),
            transformers_rows("vivit") + layer_rows(prefix, layer),
            kernel_dims=5,
            stem=f"vivit.{PATCHES}.weight",
            base="vivit.",
            unused=("vivit.pooler.dense.{leaf}",),
        )
        for mark, prefix, layer in (
            (
                "vivit.encoder.layer.{n}.attention.attention.query.weight",
                "vivit.encoder.layer.{n}",
                LAYER_4,
            ),
            ("vivit.layers.{n}.attention.q_proj.weight", "vivit.layers.{n}", LAYER_5),
        )
    ),
    Dialect(
        "mae-st",
        ("blocks.0.attn.q.weight", "blocks.0.norm1.weight", "patch_embed.proj.weight"),
        TIMM,
        absent=(*MVIT_ONLY, "head.projection.weight"),
        norm_follows_pooling=True,
    ),
)
