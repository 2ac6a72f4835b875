"""Guessing the architecture of a checkpoint by the names of its tensors, for messages."""

from __future__ import annotations

from collections.abc import Iterable

from videonet.checkpoint.names import has_names

SIGNS = (
    ("a reversible MViT", ("rev_backbone.layers.{n}.F.norm.weight",)),
    ("an MViT", ("blocks.{n}.attn.pool_k.weight", "blocks.{n}.attn.norm_k.weight")),
    ("an MViT", ("blocks.{n}.attn.rel_pos_h",)),
    ("a ResNet", ("layer1.0.conv1.weight",)),
    ("a ResNet", ("blocks.1.res_blocks.0.branch2.conv_a.weight",)),
    ("a SlowFast network", ("s1.pathway0_stem.conv.weight",)),
    ("an X3D", ("s1.pathway0_stem.conv_xy.weight",)),
    ("a Swin", ("{any}.attn.relative_position_bias_table",)),
    (
        "a DilateFormer",
        ("stages.{n}.blocks.{m}.attn.qkv.weight", "stages.{n}.downsample.proj.0.weight"),
    ),
    ("a HorNet", ("stages.{n}.{m}.gnconv.proj_in.weight",)),
    ("a VJEPA2", ("{any}.self_attention_layers.{n}.layer_norm1.weight",)),
    ("a VJEPA2", ("{any}cross_attention_block.xattn.q.weight",)),
    ("a VJEPA2", ("{any}encoder.layer.{n}.attention.query.weight",)),
    ("a Hiera", ("blocks.{n}.proj.weight", "blocks.0.attn.qkv.weight")),
    ("a Hiera", ("hiera.encoder.stages.{n}.layers.{m}.layernorm_before.weight",)),
    ("a vision transformer", ("blocks.0.attn.qkv.weight", "{any}.mlp.fc1.weight")),
    ("a vision transformer", ("blocks.0.attn.q.weight", "{any}.mlp.fc1.weight")),
    ("a vision transformer", ("encoder.layers.encoder_layer_0.ln_1.weight",)),
    ("a vision transformer", ("{any}layers.{n}.attention.q_proj.weight",)),
    ("a vision transformer", ("{any}layer.{n}.attention.q_proj.weight",)),
    ("a CvT", ("stage{n}.blocks.{m}.attn.conv_proj_k.conv.weight",)),
    ("a CvT", ("stage{n}.blocks.{m}.attn.proj_q.weight",)),
    ("a CvT", ("cvt.encoder.stages.{n}.layers.{m}.layernorm_before.weight",)),
    ("a vision transformer", ("{any}encoder.layer.0.attention.attention.query.weight",)),
    ("a ConvNeXt", ("stages.0.0.dwconv.weight",)),
    ("a ConvNeXt", ("stages.0.blocks.0.conv_dw.weight",)),
    ("an HRNet", ("stage2.0.branches.0.0.conv1.weight",)),
    ("a CycleMLP", ("network.0.0.attn.sfc_h.weight",)),
    ("an ASMLP", ("layers.0.blocks.0.axial_shift.conv1.weight",)),
)


def guess_architecture(names: Iterable[str]) -> str | None:
    """The architecture whose parameters are called so, with its article, where one is known."""
    names = list(names)
    return next((label for label, marks in SIGNS if has_names(names, marks)), None)
