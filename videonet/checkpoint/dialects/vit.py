"""ViT in the names of timm, torchvision, transformers and DINOv2."""

from __future__ import annotations

from collections.abc import Mapping

from videonet.checkpoint.dialect import Dialect, State
from videonet.checkpoint.dialects.mvit import OF_POOLING_ATTENTION, drop_class_row
from videonet.checkpoint.names import Row

# What is called alike there and here, for the way back.
ALIKE = (
    *("cls_token", "reg_token", "pos_embed", "blocks.{n}.ls{m}.gamma"),
    *(f"{norm}.{{leaf}}" for norm in ("norm_pre", "norm", "fc_norm", "patch_embed.proj")),
    *(
        f"blocks.{{n}}.{layer}.{{leaf}}"
        for layer in ("norm{m}", "attn.qkv", "attn.{p}_norm", "attn.norm", "attn.proj")
        + ("mlp.fc{m}", "mlp.norm")
    ),
)
TIMM = (Row("head.{leaf}", "head.projection.{leaf}"), *(Row(name, name) for name in ALIKE))

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

PATCHES = "embeddings.patch_embeddings.projection"  # the stem of ViTs of transformers
# Layers of transformers' ViTs before version 5, which files on the hub have, and from then on.
LAYER_4 = {
    "layernorm_before": "norm1",
    "attention.attention.query": "attn.q",
    "attention.attention.key": "attn.k",
    "attention.attention.value": "attn.v",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
LAYER_5 = {
    "layernorm_before": "norm1",
    "attention.{p}_proj": "attn.{p}",
    "attention.o_proj": "attn.proj",
    "layernorm_after": "norm2",
    "mlp.fc{m}": "mlp.fc{m}",
}


def layer_rows(prefix: str, layers: Mapping[str, str]) -> tuple[Row, ...]:
    """Rows for the layers of all blocks.

    Args:
        prefix: of the block of number {n}.
        layers: name of a layer there -> name here.
    """
    return tuple(
        Row(f"{prefix}.{theirs}.{{leaf}}", f"blocks.{{n}}.{ours}.{{leaf}}")
        for theirs, ours in layers.items()
    )


def transformers_rows(model: str) -> tuple[Row, ...]:
    """Rows for what lies around the blocks of a ViT of transformers; `model` is its prefix."""
    return (
        Row(f"{model}.embeddings.cls_token", "cls_token"),
        Row(f"{model}.embeddings.position_embeddings", "pos_embed"),
        Row(f"{model}.{PATCHES}.{{leaf}}", "patch_embed.proj.{leaf}"),
        Row(f"{model}.layernorm.{{leaf}}", "norm.{leaf}"),
        Row("classifier.{leaf}", "head.projection.{leaf}"),
    )


DINOV2 = (
    Row("register_tokens", "reg_token"),
    Row("blocks.{n}.mlp.w12.{leaf}", "blocks.{n}.mlp.fc1.{leaf}"),
    Row("blocks.{n}.mlp.w3.{leaf}", "blocks.{n}.mlp.fc2.{leaf}"),
    *TIMM,
)


def dinov2_rows(model: str) -> tuple[Row, ...]:
    """Rows for DINOv2 of transformers, with registers or without; `model` is its prefix."""
    layer = f"{model}.encoder.layer.{{n}}"
    others = {
        "norm{m}": "norm{m}",
        "mlp.weights_in": "mlp.fc1",
        "mlp.weights_out": "mlp.fc2",
        "mlp.gate_proj": "mlp.gate",  # joined to fc1 afterwards
        "mlp.up_proj": "mlp.value",
        "mlp.down_proj": "mlp.fc2",
    }
    return (
        *transformers_rows(model),
        Row(f"{model}.embeddings.register_tokens", "reg_token"),
        Row(f"{layer}.layer_scale{{m}}.lambda1", "blocks.{n}.ls{m}.gamma"),
        *layer_rows(layer, LAYER_4 | LAYER_5 | others),
    )


def add_class_position(state: State) -> str:
    """Add the class token's position to the token where registers have none (DINOv2).

    Its position table has a row for the class token and none for registers. Here all tokens before
    the cells have positions, or none has.
    """
    if not {"reg_token", "pos_embed", "cls_token"} <= state.keys():
        return ""
    table = state["pos_embed"]
    state["cls_token"] = state["cls_token"] + table[:, :1]
    state["pos_embed"] = table[:, 1:]
    return "the class token's position is added to the token itself, as registers have none"


MVIT_ONLY = (*OF_POOLING_ATTENTION, "blocks.{n}.proj.{leaf}")
# Parts of an MViT that a ViT with relative positions lacks.
WITHOUT_RELATIVE = tuple(name for name in MVIT_ONLY if "rel_pos" not in name)
POOLER = ("vit.pooler.dense.{leaf}",)

DIALECTS = (
    Dialect(
        "dinov2", ("register_tokens", "blocks.0.norm1.weight"), DINOV2, adapt=add_class_position
    ),
    Dialect("dinov2", ("blocks.0.mlp.w12.weight", "blocks.0.norm1.weight"), DINOV2),
    *(
        Dialect(
            "transformers dinov2",
            (f"{model}.encoder.layer.0.layer_scale1.lambda1",),
            dinov2_rows(model),
            adapt=add_class_position,
            base=f"{model}.",
        )
        for model in ("dinov2", "dinov2_with_registers")
    ),
    Dialect(  # ViTDet
        "detectron2 vit",
        ("blocks.{n}.attn.rel_pos_h", "blocks.0.attn.qkv.weight", "patch_embed.proj.weight"),
        kernel_dims=4,
        adapt=drop_class_row,
        absent=(*WITHOUT_RELATIVE, "cls_token", "head.weight", "head.projection.weight"),
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
        transformers_rows("vit") + layer_rows("vit.layers.{n}", LAYER_5),
        base="vit.",
        unused=POOLER,
    ),
    Dialect(
        "transformers vit",
        ("vit.encoder.layer.0.attention.attention.query.weight",),
        transformers_rows("vit") + layer_rows("vit.encoder.layer.{n}", LAYER_4),
        base="vit.",
        unused=POOLER,
    ),
)
