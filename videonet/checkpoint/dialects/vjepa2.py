"""V-JEPA 2 in the names of its repository (encoders and probes) and of transformers."""

from __future__ import annotations

from videonet.checkpoint.dialect import Dialect
from videonet.checkpoint.dialects.mvit import OF_POOLING_ATTENTION
from videonet.checkpoint.names import Row

PREDICTOR = ("predictor.{any}",)
POSITIONS = ("pos_embed",)  # fixed ones, which the encoder has and does not read
POOLER = ("pooler.{any}",)
ENCODER = ("patch_embed.{any}", "blocks.{any}", "norm.{leaf}")

# An encoder and a probe in one state dict; a file of probes holds a list, called classifiers.
BOTH = tuple(
    row
    for classifier in ("classifier", "classifiers")
    for row in (
        Row(classifier + ".linear.{leaf}", "head.projection.{leaf}"),
        Row(classifier + ".pooler.{any}", "pooler.{any}"),
    )
) + (Row("encoder.{any}", "{any}"),)

LAYER = "vjepa2.encoder.layer.{n}."
POOLER_LAYER = "pooler.self_attention_layers.{n}."
OUR_LAYER = "pooler.blocks.{n}."
CROSS, OUR_CROSS = "pooler.cross_attention_layer.", "pooler.cross_attention_block."
TRANSFORMERS = (
    Row("vjepa2.encoder.embeddings.patch_embeddings.proj.{leaf}", "patch_embed.proj.{leaf}"),
    Row(LAYER + "norm{m}.{leaf}", "blocks.{n}.norm{m}.{leaf}"),
    Row(LAYER + "attention.query.{leaf}", "blocks.{n}.attn.q.{leaf}"),
    Row(LAYER + "attention.key.{leaf}", "blocks.{n}.attn.k.{leaf}"),
    Row(LAYER + "attention.value.{leaf}", "blocks.{n}.attn.v.{leaf}"),
    Row(LAYER + "attention.proj.{leaf}", "blocks.{n}.attn.proj.{leaf}"),
    Row(LAYER + "mlp.fc{m}.{leaf}", "blocks.{n}.mlp.fc{m}.{leaf}"),
    Row("vjepa2.encoder.layernorm.{leaf}", "norm.{leaf}"),
    Row(POOLER_LAYER + "layer_norm{m}.{leaf}", OUR_LAYER + "norm{m}.{leaf}"),
    Row(POOLER_LAYER + "self_attn.{p}_proj.{leaf}", OUR_LAYER + "attn.{p}.{leaf}"),
    Row(POOLER_LAYER + "self_attn.out_proj.{leaf}", OUR_LAYER + "attn.proj.{leaf}"),
    Row(POOLER_LAYER + "mlp.fc{m}.{leaf}", OUR_LAYER + "mlp.fc{m}.{leaf}"),
    Row(CROSS + "layer_norm{m}.{leaf}", OUR_CROSS + "norm{m}.{leaf}"),
    Row(CROSS + "cross_attn.q_proj.{leaf}", OUR_CROSS + "xattn.q.{leaf}"),
    Row(CROSS + "cross_attn.k_proj.{leaf}", OUR_CROSS + "xattn.kv.k.{leaf}"),
    Row(CROSS + "cross_attn.v_proj.{leaf}", OUR_CROSS + "xattn.kv.v.{leaf}"),
    Row(CROSS + "mlp.fc{m}.{leaf}", OUR_CROSS + "mlp.fc{m}.{leaf}"),
    Row("classifier.{leaf}", "head.projection.{leaf}"),
)

DIALECTS = (
    Dialect(
        "vjepa2",
        ("encoder.blocks.{n}.attn.qkv.weight", "{any}.pooler.query_tokens"),
        BOTH,
        unused=(*PREDICTOR, "encoder.pos_embed"),
    ),
    Dialect(
        "vjepa2 probe",
        ("pooler.query_tokens", "pooler.cross_attention_block.xattn.kv.weight", "linear.weight"),
        (Row("linear.{leaf}", "head.projection.{leaf}"),),
        lacks=ENCODER,
        absent=("blocks.{n}.attn.qkv.weight",),
    ),
    Dialect(
        "transformers vjepa2",
        ("vjepa2.encoder.layer.{n}.attention.query.weight",),
        TRANSFORMERS,
        unused=("vjepa2.predictor.{any}",),
        base="vjepa2.",
        base_lacks=POOLER,
    ),
    Dialect(  # nothing but plain blocks, so it is told by what all others have
        "vjepa2 encoder",
        ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "norm.weight"),
        kernel_dims=5,
        unused=(*PREDICTOR, *POSITIONS),
        lacks=POOLER,
        absent=(
            *OF_POOLING_ATTENTION,
            *("cls_token", "pos_embed_spatial", "head.{any}", "fc_norm.{leaf}", "mask_token"),
            *("blocks.{n}.proj.{leaf}", "blocks.{n}.attn.q_bias", "encoder_to_decoder.weight"),
        ),
    ),
)
