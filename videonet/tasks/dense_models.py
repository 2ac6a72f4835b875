"""Detectors and segmenters as a configuration describes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, cast

from fvcore.common.config import CfgNode
from torch import nn

from videonet.config import model_arguments
from videonet.config.arguments import without_nodes
from videonet.errors import ConfigError
from videonet.heads.detection import CONVENTIONS, Detector, build_detector
from videonet.heads.detection.conventions import BoxLoss, Conventions
from videonet.heads.necks import is_plain, make_neck
from videonet.models import create_model
from videonet.models.backbones import DETECTION, detection_arguments
from videonet.models.base import VideoModel
from videonet.models.segmenter import SemanticSegmenter, make_segmenter
from videonet.models.stages import StageInfo

PLAIN_LEVELS = 4  # that regions are pooled from on a backbone of one resolution, as in ViTDet


def backbone_of(cfg: CfgNode) -> VideoModel:
    """The configuration's model without a classifier.

    It has the options of published detectors, where there are some and ``MODEL.ARGUMENTS`` says
    nothing else.

    Args:
        cfg: a complete configuration.
    """
    name, arguments = model_arguments(cfg)
    arguments["num_classes"] = 0
    if any(fnmatchcase(name, pattern) for pattern in DETECTION):
        arguments = detection_arguments(name, arguments["num_frames"]) | arguments
    return cast("VideoModel", create_model(name, **arguments))


def detector_of(cfg: CfgNode, num_classes: int) -> Detector:
    """The detector that ``MODEL``, ``NECK`` and ``DETECTOR`` describe.

    Args:
        cfg: a complete configuration.
        num_classes: without the background.

    Raises:
        ConfigError: options that do not go together.
    """
    keys, backbone = cfg.DETECTOR, backbone_of(cfg)
    numbers = backbone.stage_numbers(list(cfg.NECK.INDICES) or None)
    infos = [backbone.feature_info[number] for number in numbers]
    plain = is_plain(infos)
    neck, levels = _pyramid(cfg, infos, plain=plain)
    strides = list(keys.STRIDES) or [info.strides[1] for info in infos]
    if plain and not keys.STRIDES:
        if strides[0] % 4:
            raise ConfigError(
                f"the cells of {cfg.MODEL.NAME} are {strides[0]} pixels wide, of which a quarter "
                "is no whole number: give DETECTOR.STRIDES, and NECK.ARGUMENTS.scales that fit"
            )
        strides = [strides[0] // 4]  # pyramids of one resolution begin at a quarter of it
    while len(strides) < levels:
        strides.append(2 * strides[-1])
    try:
        return build_detector(
            backbone,
            num_classes,
            _rules(cfg),
            neck=neck,
            indices=numbers,
            strides=strides,
            pooled=min(PLAIN_LEVELS, levels) if plain else None,
            anchor_scale=keys.ANCHOR_SCALE,
            cascade=keys.CASCADE,
            class_agnostic=keys.CLASS_AGNOSTIC,
            masks=keys.MASKS,
            sample_per=keys.SAMPLE_PER,
            rpn=without_nodes(keys.RPN),
            heads=without_nodes(keys.HEADS),
            pad_multiple=cfg.DATA.SIZE_MULTIPLE,
            pad_square=keys.PAD_SQUARE,
        )
    except TypeError as error:
        raise ConfigError(f"DETECTOR: {error}") from error


def _pyramid(
    cfg: CfgNode, infos: Sequence[StageInfo], *, plain: bool
) -> tuple[nn.Module | None, int]:
    """The neck of a detector, and the number of its levels.

    Args:
        cfg: a complete configuration.
        infos: of the maps that the neck gets.
        plain: whether all of them have one resolution.
    """
    keys = cfg.NECK
    name = keys.NAME
    if name == "auto":
        name = "simple_pyramid" if plain else "fpn"
    if name == "none":
        return None, len(infos)
    options: dict[str, Any] = {"temporal_kernel": _taps(cfg)}
    if name != "multi_level":
        options["num_outs"] = 1 + (PLAIN_LEVELS if plain else len(infos))
    neck = make_neck(name, infos, keys.CHANNELS, **options | without_nodes(keys.ARGUMENTS))
    return neck, neck.num_outs


def _taps(cfg: CfgNode) -> int:
    """Taps along time: the image model, of clips of one frame, has nothing along time."""
    taps: int = cfg.NECK.TEMPORAL_KERNEL
    return taps if cfg.DATA.NUM_FRAMES > 1 else 1


def _rules(cfg: CfgNode) -> Conventions:
    """The rules of a preset, with those that ``DETECTOR.CONVENTIONS`` replaces."""
    rules, changes = CONVENTIONS[cfg.DETECTOR.RULES], without_nodes(cfg.DETECTOR.CONVENTIONS)
    for name, value in changes.items():
        if name in ("box_loss", "rpn_box_loss") and isinstance(value, dict):
            changes[name] = BoxLoss(**value)
        elif isinstance(value, list):
            changes[name] = tuple(tuple(v) if isinstance(v, list) else v for v in value)
    try:
        return replace(rules, **changes)
    except TypeError as error:
        raise ConfigError(f"DETECTOR.CONVENTIONS: {error}") from error


def segmenter_of(cfg: CfgNode, num_classes: int) -> SemanticSegmenter:
    """The segmenter that ``MODEL``, ``NECK`` and ``SEGMENTER`` describe.

    Args:
        cfg: a complete configuration.
        num_classes: of the heads.

    Raises:
        ConfigError: options that do not go together.
    """
    neck, keys = cfg.NECK, cfg.SEGMENTER
    options: dict[str, Any] = {
        "neck": None if neck.NAME == "none" else neck.NAME,
        "neck_channels": neck.CHANNELS,
        "indices": list(neck.INDICES) or None,
        "neck_options": without_nodes(neck.ARGUMENTS),
        "temporal_kernel": _taps(cfg),
    }
    return make_segmenter(
        backbone_of(cfg),
        num_classes,
        keys.HEAD,
        auxiliary=keys.AUXILIARY,
        align_corners=keys.ALIGN_CORNERS,
        norm=None if keys.NORM == "none" else keys.NORM,
        head_options=without_nodes(keys.HEAD_ARGUMENTS),
        **options,
    )
