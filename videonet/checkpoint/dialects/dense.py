"""Necks and dense heads in the names of mmdetection, mmsegmentation, torchvision and detectron2.

Our names are those of mmdetection and mmsegmentation, but that a norm is called ``norm`` whatever
its kind and that pooled maps lie in ``pooling``. Necks and heads come by themselves, as the
dialects below, or beside a backbone, in ``PARTS``.
"""

from __future__ import annotations

import re

from videonet.checkpoint.dialect import Dialect
from videonet.checkpoint.names import Row

PARTS = ("neck.", "decode_head.", "auxiliary_head.")
NORM_NAMES = ("bn", "gn", "ln")
EVERYTHING = Row("{any}", "{any}")
TORCHVISION_LEVEL = re.compile(r"(inner|layer)_blocks\.(\d+)\.(?:([01])\.)?(weight|bias|\w+)")
TORCHVISION_EXTRA = re.compile(r"extra_blocks\.p(\d)\.(weight|bias)")
DETECTRON_LEVEL = re.compile(r"fpn_(lateral|output)(\d+)\.(norm\.)?(\w+)")
DETECTRON_EXTRA = re.compile(r"top_block\.p(\d)\.(weight|bias)")
SIMPLE_LEVEL = re.compile(r"simfp_(\d+)\.(\d+)\.(norm\.)?(weight|bias)")
KINDS = {
    "inner": "lateral_convs",
    "lateral": "lateral_convs",
    "layer": "fpn_convs",
    "output": "fpn_convs",
}


def rows_below(prefix: str) -> tuple[Row, ...]:
    """Rows for what mmdetection and mmsegmentation name otherwise, below a prefix."""
    pooled = [
        row
        for norm in NORM_NAMES
        for row in (
            Row(
                f"{prefix}psp_modules.{{n}}.1.{norm}.{{tensor}}",
                f"{prefix}pooling.convs.{{n}}.norm.{{tensor}}",
            ),
            Row(f"{prefix}{{any}}.{norm}.{{tensor}}", f"{prefix}{{any}}.norm.{{tensor}}"),
        )
    ]
    conv = Row(
        f"{prefix}psp_modules.{{n}}.1.conv.{{leaf}}", f"{prefix}pooling.convs.{{n}}.conv.{{leaf}}"
    )
    return conv, *pooled


OF_HRNET = (  # the head in HRNet's own repository of segmentation
    Row("last_layer.0.{leaf}", "decode_head.convs.0.conv.{leaf}"),
    Row("last_layer.1.{tensor}", "decode_head.convs.0.norm.{tensor}"),
    Row("last_layer.3.{leaf}", "decode_head.conv_seg.{leaf}"),
)
PART_ROWS = (*(row for prefix in PARTS for row in rows_below(prefix)), *OF_HRNET)


def name_torchvision_levels(names: list[str]) -> dict[str, str]:
    """``FeaturePyramidNetwork``: blocks are a convolution, or that and a norm in a sequence."""
    renamed, levels = {}, set()
    for name in names:
        if match := TORCHVISION_LEVEL.fullmatch(name):
            kind, level, place, leaf = match.groups()
            levels.add(level)
            part = "norm" if place == "1" else "conv"
            renamed[name] = f"{KINDS[kind]}.{level}.{part}.{leaf}"
    return renamed | _name_extra_levels(names, TORCHVISION_EXTRA, len(levels))


def name_detectron_levels(names: list[str]) -> dict[str, str]:
    """``FPN`` of detectron2: levels are numbered by their stride, 2 for 4 pixels."""
    matches = {name: m for name in names if (m := DETECTRON_LEVEL.fullmatch(name))}
    levels = sorted({int(match[2]) for match in matches.values()})
    renamed = {}
    for name, match in matches.items():
        kind, level, norm, leaf = match.groups()
        part = "norm" if norm else "conv"
        renamed[name] = f"{KINDS[kind]}.{levels.index(int(level))}.{part}.{leaf}"
    return renamed | _name_extra_levels(names, DETECTRON_EXTRA, len(levels))


def _name_extra_levels(names: list[str], pattern: re.Pattern[str], first: int) -> dict[str, str]:
    """The convolutions ``p6`` and ``p7`` are further levels, from number `first` on."""
    matches = {name: m for name in names if (m := pattern.fullmatch(name))}
    numbers = sorted({int(match[1]) for match in matches.values()})
    return {
        name: f"fpn_convs.{first + numbers.index(int(m[1]))}.conv.{m[2]}"
        for name, m in matches.items()
    }


def name_simple_levels(names: list[str]) -> dict[str, str]:
    """``SimpleFeaturePyramid`` of detectron2: levels as in its FPN, norms within convolutions."""
    matches = {name: m for name in names if (m := SIMPLE_LEVEL.fullmatch(name))}
    levels = sorted({int(match[1]) for match in matches.values()})
    with_norm = {(m[1], m[2]) for m in matches.values() if m[3]}
    last = {n: max(int(m[2]) for m in matches.values() if m[1] == n) for n in map(str, levels)}
    renamed = {}
    for name, match in matches.items():
        level, place, norm, leaf = match.groups()
        # The last two steps of a level are convolutions, those before resample.
        part = "norm." if norm else ""
        if not norm and ((level, place) in with_norm or int(place) >= last[level] - 1):
            part = "conv."
        renamed[name] = f"levels.{levels.index(int(level))}.{place}.{part}{leaf}"
    return renamed


DIALECTS = (
    Dialect("mmdet_pyramid", ("lateral_convs.{n}.conv.weight",), (*rows_below(""), EVERYTHING)),
    Dialect("mmdet_hrfpn", ("reduction_conv.conv.weight",), (EVERYTHING,)),
    Dialect(
        "hrnet_detection_hrfpn",
        ("reduction_conv.0.weight",),
        (
            Row("reduction_conv.0.{leaf}", "reduction_conv.conv.{leaf}"),
            Row("fpn_conv.{n}.{leaf}", "fpn_convs.{n}.conv.{leaf}"),
            Row("fpn_conv.{leaf}", "fpn_convs.0.conv.{leaf}"),
        ),
    ),
    Dialect(
        "torchvision_fpn",
        ("inner_blocks.{n}.0.weight",),
        (EVERYTHING,),
        prepare=name_torchvision_levels,
    ),
    Dialect(
        "torchvision_fpn",
        ("inner_blocks.{n}.weight",),
        (EVERYTHING,),
        prepare=name_torchvision_levels,
    ),
    Dialect(
        "detectron2_fpn",
        ("fpn_lateral{n}.weight",),
        (EVERYTHING,),
        prepare=name_detectron_levels,
    ),
    Dialect(
        "detectron2_simple_pyramid",
        ("simfp_{n}.1.weight",),
        (EVERYTHING,),
        prepare=name_simple_levels,
    ),
    Dialect("mmseg_head", ("scale_heads.{n}.0.conv.weight",), (*rows_below(""), EVERYTHING)),
    Dialect("mmseg_head", ("conv_seg.weight",), (*rows_below(""), EVERYTHING)),
)
