"""Swin in the names of its image and video repositories, torchvision and timm."""

from __future__ import annotations

import re

from videonet.checkpoint.dialect import Dialect, State
from videonet.checkpoint.names import Row

BIAS_TABLE = "attn.relative_position_bias_table"
CONSTANTS = ("{any}.attn.relative_position_index", "{any}.attn_mask")
DOWNSAMPLE = re.compile(r"layers\.(\d+)\.(downsample\..+)")
FEATURE = re.compile(r"features\.(\d+)\.(.+)")

OF_OUTPUTS = Row("norm{n}.{leaf}", "output_norms.{n}.{leaf}")  # of detectors and segmentations
OFFICIAL_IMAGE = (
    OF_OUTPUTS,
    Row("absolute_pos_embed", "pos_embed"),
    Row("head.{leaf}", "head.projection.{leaf}"),
)
OFFICIAL_VIDEO = (Row("cls_head.fc_cls.{leaf}", "head.projection.{leaf}"),)
TIMM = (Row("head.fc.{leaf}", "head.projection.{leaf}"),)
MMDET = (
    Row("patch_embed.projection.{leaf}", "patch_embed.proj.{leaf}"),
    Row("stages.{n}.blocks.{m}.attn.w_msa.{any}", "layers.{n}.blocks.{m}.attn.{any}"),
    Row("stages.{n}.blocks.{m}.ffn.layers.0.0.{leaf}", "layers.{n}.blocks.{m}.mlp.fc1.{leaf}"),
    Row("stages.{n}.blocks.{m}.ffn.layers.1.{leaf}", "layers.{n}.blocks.{m}.mlp.fc2.{leaf}"),
    Row("stages.{any}", "layers.{any}"),
    Row("head.fc.{leaf}", "head.projection.{leaf}"),
    *OFFICIAL_IMAGE,
)
TORCHVISION = (
    Row("{any}.mlp.0.{leaf}", "{any}.mlp.fc1.{leaf}"),
    Row("{any}.mlp.3.{leaf}", "{any}.mlp.fc2.{leaf}"),
    Row("head.{leaf}", "head.projection.{leaf}"),
)


def lay_out_positions(state: State) -> str:
    """Positions as a map (1, C, H, W), which detectors resize, as a table (1, H*W, C)."""
    table = state.get("pos_embed")
    if table is not None and table.dim() == 4:
        state["pos_embed"] = table.flatten(2).transpose(1, 2)
    return ""


def order_neighbours(state: State) -> str:
    """Put the inputs of patch merging into the official order.

    mmdetection's come from ``nn.Unfold``: channel by channel, the four neighbours of each row by
    row. The official ones come neighbour by neighbour, column by column.
    """
    for name, tensor in state.items():
        if ".downsample." in name:
            cells = tensor.unflatten(-1, (-1, 4))[..., [0, 2, 1, 3]]  # (..., C, 4)
            state[name] = cells.transpose(-1, -2).flatten(-2)
    lay_out_positions(state)
    return "the inputs of patch merging are put into the official order"


def merge_at_the_end(names: list[str]) -> dict[str, str]:
    """Timm merges at the start of a stage, the official code at the end of the one before."""
    return {
        name: f"layers.{int(m[1]) - 1}.{m[2]}"
        for name in names
        if (m := DOWNSAMPLE.fullmatch(name))
    }


def name_stages(names: list[str]) -> dict[str, str]:
    """Torchvision puts stages and mergings in one sequence, in its image models the stem too."""
    first = 1 if "features.0.0.weight" in names else 0  # place of the first stage
    stem = {"0": "patch_embed.proj", "2": "patch_embed.norm"}
    renamed = {}
    for name in names:
        if (match := FEATURE.fullmatch(name)) is None:
            continue
        place, rest = int(match[1]) - first, match[2]
        if place < 0:
            part, leaf = rest.split(".")
            renamed[name] = f"{stem[part]}.{leaf}"
        elif place % 2:
            renamed[name] = f"layers.{place // 2}.downsample.{rest}"
        else:
            renamed[name] = f"layers.{place // 2}.blocks.{rest}"
    return renamed


DIALECTS = (
    Dialect(
        "torchvision_swin",
        ("features.{n}.{m}.attn.relative_position_bias_table",),
        TORCHVISION,
        prepare=name_stages,
        constants=CONSTANTS,
    ),
    Dialect(
        "video_swin",
        ("cls_head.fc_cls.weight", f"layers.0.blocks.0.{BIAS_TABLE}"),
        OFFICIAL_VIDEO,
        constants=CONSTANTS,
    ),
    Dialect(
        "swin",
        ("layers.0.downsample.reduction.weight", f"layers.0.blocks.0.{BIAS_TABLE}"),
        OFFICIAL_IMAGE,
        adapt=lay_out_positions,
        constants=CONSTANTS,
    ),
    Dialect(  # of mmdetection from version 3 on, mmsegmentation and mmpretrain
        "mmdet swin",
        ("stages.0.blocks.0.attn.w_msa.relative_position_bias_table",),
        MMDET,
        adapt=order_neighbours,
        constants=CONSTANTS,
    ),
    Dialect(
        "timm_swin",
        ("layers.1.downsample.reduction.weight", f"layers.0.blocks.0.{BIAS_TABLE}"),
        TIMM,
        prepare=merge_at_the_end,
        constants=CONSTANTS,
    ),
    Dialect(  # one stage alone, which has no merging to tell them by
        "swin",
        (f"layers.0.blocks.0.{BIAS_TABLE}",),
        OFFICIAL_IMAGE + TIMM,
        adapt=lay_out_positions,
        constants=CONSTANTS,
    ),
)
