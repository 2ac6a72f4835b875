"""ViT in the names of timm, torchvision, transformers and TimeSformer."""

from __future__ import annotations

from videonet.checkpoint.dialect import Dialect
from videonet.checkpoint.dialects.mvit import OF_POOLING_ATTENTION
from videonet.checkpoint.names import Row

TIMM = (Row("head.{leaf}", "head.projection.{leaf}"),)

TORCHVISION = (
    Row("class_token", "cls_token"),
    Row("conv_proj.{leaf}", "patch_embed.proj.{leaf}"),
    Row("encoder.pos_embedding", "pos_embed"),
    Row("encoder.layers.encoder_layer_{n}.ln_{m}.{leaf}", "blocks.{n}.norm{m}.{leaf}"),
    Row(
        "encoder.layers.encoder_layer_{n}.self_attention.in_proj_{leaf}",
        "blocks.{n}.attn.qkv.{leaf}",
    ),
    Row(
        "encoder.layers.encoder_layer_{n}.self_attention.out_proj.{leaf}",
        "blocks.{n}.attn.proj.{leaf}",
    ),
    Row("encoder.layers.encoder_layer_{n}.mlp.0.{leaf}", "blocks.{n}.mlp.fc1.{leaf}"),
    Row("encoder.layers.encoder_layer_{n}.mlp.3.{leaf}", "blocks.{n}.mlp.fc2.{leaf}"),
    # Before torchvision 0.14.
    Row("encoder.layers.encoder_layer_{n}.mlp.linear_1.{leaf}", "blocks.{n}.mlp.fc1.{leaf}"),
    Row("encoder.layers.encoder_layer_{n}.mlp.linear_2.{leaf}", "blocks.{n}.mlp.fc2.{leaf}"),
    Row("encoder.ln.{leaf}", "norm.{leaf}"),
    Row("heads.pre_logits.{leaf}", "pre_logits.{leaf}"),
    Row("heads.head.{leaf}", "head.projection.{leaf}"),
)

TRANSFORMERS_EMBEDDINGS = (
    Row("vit.embeddings.cls_token", "cls_token"),
    Row("vit.embeddings.position_embeddings", "pos_embed"),
    Row("vit.embeddings.patch_embeddings.projection.{leaf}", "patch_embed.proj.{leaf}"),
    Row("vit.layernorm.{leaf}", "norm.{leaf}"),
    Row("classifier.{leaf}", "head.projection.{leaf}"),
)
# From transformers 5 on.
TRANSFORMERS = TRANSFORMERS_EMBEDDINGS + (
    Row("vit.layers.{n}.layernorm_before.{leaf}", "blocks.{n}.norm1.{leaf}"),
    Row("vit.layers.{n}.attention.{p}_proj.{leaf}", "blocks.{n}.attn.{p}.{leaf}"),
    Row("vit.layers.{n}.attention.o_proj.{leaf}", "blocks.{n}.attn.proj.{leaf}"),
    Row("vit.layers.{n}.layernorm_after.{leaf}", "blocks.{n}.norm2.{leaf}"),
    Row("vit.layers.{n}.mlp.fc{m}.{leaf}", "blocks.{n}.mlp.fc{m}.{leaf}"),
)
TRANSFORMERS_4 = TRANSFORMERS_EMBEDDINGS + tuple(
    Row("vit.encoder.layer.{n}." + theirs + ".{leaf}", "blocks.{n}." + ours + ".{leaf}")
    for theirs, ours in (
        ("layernorm_before", "norm1"),
        ("attention.attention.query", "attn.q"),
        ("attention.attention.key", "attn.k"),
        ("attention.attention.value", "attn.v"),
        ("attention.output.dense", "attn.proj"),
        ("layernorm_after", "norm2"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    )
)

TIMESFORMER = (
    Row("blocks.{n}.temporal_fc.{leaf}", "blocks.{n}.temporal_proj.{leaf}"),
    Row("time_embed", "pos_embed_temporal"),
    Row("head.{leaf}", "head.projection.{leaf}"),
)
TIMESFORMER_LAYER = "timesformer.encoder.layer.{n}."
TRANSFORMERS_TIMESFORMER = (
    Row("timesformer.embeddings.cls_token", "cls_token"),
    Row("timesformer.embeddings.position_embeddings", "pos_embed"),
    Row("timesformer.embeddings.time_embeddings", "pos_embed_temporal"),
    Row("timesformer.embeddings.patch_embeddings.projection.{leaf}", "patch_embed.proj.{leaf}"),
    *(
        Row(TIMESFORMER_LAYER + theirs + ".{leaf}", "blocks.{n}." + ours + ".{leaf}")
        for theirs, ours in (
            ("temporal_layernorm", "temporal_norm1"),
            ("temporal_attention.attention.qkv", "temporal_attn.qkv"),
            ("temporal_attention.output.dense", "temporal_attn.proj"),
            ("temporal_dense", "temporal_proj"),
            ("layernorm_before", "norm1"),
            ("attention.attention.qkv", "attn.qkv"),
            ("attention.output.dense", "attn.proj"),
            ("layernorm_after", "norm2"),
            ("intermediate.dense", "mlp.fc1"),
            ("output.dense", "mlp.fc2"),
        )
    ),
    Row("timesformer.layernorm.{leaf}", "norm.{leaf}"),
    Row("classifier.{leaf}", "head.projection.{leaf}"),
)

MVIT_ONLY = (*OF_POOLING_ATTENTION, "blocks.{n}.proj.{leaf}")
POOLER = ("vit.pooler.dense.{leaf}",)

DIALECTS = (
    Dialect("timesformer", ("blocks.0.temporal_fc.weight", "time_embed"), TIMESFORMER),
    Dialect(
        "transformers timesformer",
        ("timesformer.encoder.layer.{n}.temporal_dense.weight",),
        TRANSFORMERS_TIMESFORMER,
        base="timesformer.",
    ),
    Dialect("timm vit", ("blocks.0.norm1.weight", "blocks.0.attn.qkv.weight", "head.weight"), TIMM),
    Dialect(  # without a classifier, told from an MViT by what only that has
        "timm vit",
        ("blocks.0.norm1.weight", "blocks.0.attn.qkv.weight", "patch_embed.proj.weight"),
        TIMM,
        kernel_dims=4,
        absent=(*MVIT_ONLY, "head.projection.weight"),
    ),
    Dialect(
        "torchvision vit",
        ("encoder.layers.encoder_layer_0.ln_1.weight", "conv_proj.weight"),
        TORCHVISION,
    ),
    Dialect(
        "transformers vit",
        ("vit.layers.0.attention.q_proj.weight",),
        TRANSFORMERS,
        base="vit.",
        unused=POOLER,
    ),
    Dialect(
        "transformers vit",
        ("vit.encoder.layer.0.attention.attention.query.weight",),
        TRANSFORMERS_4,
        base="vit.",
        unused=POOLER,
    ),
)
