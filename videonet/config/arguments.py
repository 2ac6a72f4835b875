"""From a config to the name and the keyword arguments of ``create_model``."""

from __future__ import annotations

from typing import Any

from fvcore.common.config import CfgNode

from videonet.config.defaults import defaults_of
from videonet.config.layers import MVIT_RATE_DEFAULT, is_mvit
from videonet.config.model_keys import MVIT
from videonet.errors import ConfigError

# Keys of MVIT that train a model rather than shape it: they may be set with any mvit_* name.
MVIT_TRAINING_KEYS = ("DROPOUT_RATE", "ZERO_DECAY_POS_CLS")

CLASSES = 400  # of a model without data to count them in, as in PySlowFast


def model_arguments(cfg: CfgNode) -> tuple[str, dict[str, Any]]:
    """Name and keyword arguments for :func:`videonet.create_model`.

    With ``MODEL.NAME`` the architecture is one of ``list_models()``. Without it,
    ``MODEL.MODEL_NAME: MViT`` makes ``MVIT.*`` the description, as in PySlowFast.
    ``MODEL.ARGUMENTS`` are added to what the other keys say.

    Args:
        cfg: a complete config.

    Returns:
        The name, and the arguments by name.

    Raises:
        ConfigError: no model is named, or its keys contradict each other.
    """
    name, arguments = _named_model(cfg)
    return name, arguments | without_nodes(cfg.MODEL.ARGUMENTS)


def without_nodes(value: Any) -> Any:
    """A value of a config with dictionaries in place of nodes, and with their numbers as keys.

    Args:
        value: of any key or group.
    """
    if isinstance(value, dict):
        return {
            int(key) if key.isdecimal() else key: without_nodes(item) for key, item in value.items()
        }
    return value


def drop_path_rate(cfg: CfgNode) -> float:
    """``MODEL.DROPPATH_RATE``, or what None stands for.

    Args:
        cfg: a complete config.
    """
    if cfg.MODEL.DROPPATH_RATE is not None:
        return cfg.MODEL.DROPPATH_RATE
    return MVIT_RATE_DEFAULT if is_mvit(cfg.MODEL.NAME, cfg.MODEL.MODEL_NAME) else 0.0


def _named_model(cfg: CfgNode) -> tuple[str, dict[str, Any]]:
    name = cfg.MODEL.NAME
    if name == "mvit" or (not name and cfg.MODEL.MODEL_NAME == "MViT"):
        if cfg.MVIT.REV.ENABLE:
            return "rev_mvit", described_reversible_mvit(cfg)
        return "mvit", described_mvit(cfg)
    if not name:
        raise ConfigError(
            "no model is given: set MODEL.NAME to a name of list_models(), or MODEL.MODEL_NAME to "
            f"MViT (it is {cfg.MODEL.MODEL_NAME}) and describe the model by MVIT.* keys"
        )
    if name.startswith("mvit_"):
        return name, named_mvit(cfg)
    _refuse_architecture_keys(cfg, allowed=())
    return name, _common(cfg)


def named_mvit(cfg: CfgNode) -> dict[str, Any]:
    """The arguments that a published MViT leaves open.

    Args:
        cfg: a complete config.

    Raises:
        ConfigError: a key of ``MVIT`` contradicts the name.
    """
    _refuse_architecture_keys(cfg, allowed=MVIT_TRAINING_KEYS)
    return _common(cfg) | {"dropout": cfg.MVIT.DROPOUT_RATE}


def described_mvit(cfg: CfgNode) -> dict[str, Any]:
    """All arguments of an MViT that ``MVIT.*`` describes.

    Args:
        cfg: a complete config.

    Raises:
        ConfigError: a key of ``MVIT`` has no such value.
    """
    mvit = cfg.MVIT
    depth = mvit.DEPTH
    adaptive = _triple("POOL_KV_STRIDE_ADAPTIVE", mvit.POOL_KV_STRIDE_ADAPTIVE)
    arguments = {
        "dropout": mvit.DROPOUT_RATE,
        "depth": depth,
        "embed_dim": mvit.EMBED_DIM,
        "num_heads": mvit.NUM_HEADS,
        "mlp_ratio": mvit.MLP_RATIO,
        "qkv_bias": mvit.QKV_BIAS,
        "patch_kernel": _stem(mvit, "PATCH_KERNEL", time=1),
        "patch_stride": _stem(mvit, "PATCH_STRIDE", time=1),
        "patch_padding": _stem(mvit, "PATCH_PADDING", time=0),
        "dim_mul": _factors("DIM_MUL", mvit.DIM_MUL, depth),
        "head_mul": _factors("HEAD_MUL", mvit.HEAD_MUL, depth),
        "pool_q_stride": _strides("POOL_Q_STRIDE", mvit.POOL_Q_STRIDE, depth),
        # PySlowFast overwrites the list by the adaptive stride where both are given.
        "pool_kv_stride": (
            _strides("POOL_KV_STRIDE", mvit.POOL_KV_STRIDE, depth) or None
            if adaptive is None
            else None
        ),
        "pool_kv_stride_adaptive": adaptive,
        "pool_kernel": _triple("POOL_KVQ_KERNEL", mvit.POOL_KVQ_KERNEL),
        "pool_mode": mvit.MODE,
        "pool_first": mvit.POOL_FIRST,
        "separate_qkv": mvit.SEPARATE_QKV,
        "cls_token": mvit.CLS_EMBED_ON,
        "use_abs_pos": mvit.USE_ABS_POS,
        "sep_pos_embed": mvit.SEP_POS_EMBED,
        "rel_pos_spatial": mvit.REL_POS_SPATIAL,
        "rel_pos_temporal": mvit.REL_POS_TEMPORAL,
        "rel_pos_zero_init": mvit.REL_POS_ZERO_INIT,
        "residual_pooling": mvit.RESIDUAL_POOLING,
        "dim_mul_in_att": mvit.DIM_MUL_IN_ATT,
        "norm_stem": mvit.NORM_STEM,
        "mean_pooling": mvit.USE_MEAN_POOLING,
        "head_init_scale": mvit.HEAD_INIT_SCALE,
    }
    return _common(cfg) | arguments


def described_reversible_mvit(cfg: CfgNode) -> dict[str, Any]:
    """All arguments of a reversible MViT or ViT that ``MVIT.*`` and ``MVIT.REV.*`` describe.

    Args:
        cfg: a complete config.

    Raises:
        ConfigError: a key of ``MVIT`` has no such value.
    """
    reversible, arguments = cfg.MVIT.REV, described_mvit(cfg)
    del arguments["dim_mul_in_att"]  # in a reversible network the attention always widens
    layers = reversible.BUFFER_LAYERS
    if not _are_whole(layers):
        raise ConfigError(f"MVIT.REV.BUFFER_LAYERS is {layers!r}, but must be a list of blocks")
    return arguments | {
        "transitions": tuple(sorted(layers)),
        "fusion": reversible.RESPATH_FUSE,
        "transition_fusion": reversible.PRE_Q_FUSION,
        "shortcut": reversible.RES_PATH,
    }


def _common(cfg: CfgNode) -> dict[str, Any]:
    return {
        "num_classes": cfg.MODEL.NUM_CLASSES or CLASSES,
        "num_frames": 1 if cfg.MVIT.PATCH_2D else cfg.DATA.NUM_FRAMES,
        "crop_size": cfg.DATA.TRAIN_CROP_SIZE,
        "in_channels": 3,
        "head_dropout": cfg.MODEL.DROPOUT_RATE,
        "drop_path_rate": drop_path_rate(cfg),
    }


def _refuse_architecture_keys(cfg: CfgNode, allowed: tuple[str, ...]) -> None:
    for key, default in defaults_of(MVIT).items():
        if key not in allowed and cfg.MVIT[key] != default:
            raise ConfigError(
                f"MVIT.{key} is {cfg.MVIT[key]!r}, but MODEL.NAME {cfg.MODEL.NAME} fixes the "
                "architecture; remove one"
            )


def _are_whole(values: Any) -> bool:
    return all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values)


def _triple(key: str, value: list | None) -> tuple[int, int, int] | None:
    if value is None:
        return None
    if len(value) != 3 or not _are_whole(value) or not all(value):
        raise ConfigError(
            f"MVIT.{key} is {value!r}, but must be three whole numbers above 0 (t, h, w)"
        )
    return tuple(value)


def _stem(mvit: CfgNode, key: str, time: int) -> tuple[int, int, int]:
    value, count = mvit[key], 2 if mvit.PATCH_2D else 3
    if len(value) != count or not _are_whole(value):
        raise ConfigError(
            f"MVIT.{key} is {value!r}, but with MVIT.PATCH_2D {mvit.PATCH_2D} it must be {count} "
            "whole numbers"
        )
    return (time, *value) if mvit.PATCH_2D else tuple(value)


def _factors(key: str, rows: list, depth: int) -> dict[int, float]:
    """``[[block, factor], …]``; PySlowFast lets the block be one past the last."""
    factors = {}
    for row in rows:
        if not (
            isinstance(row, list)
            and len(row) == 2
            and _are_whole(row[:1])
            and row[0] <= depth
            and isinstance(row[1], int | float)
            and row[1] > 0
        ):
            raise ConfigError(
                f"MVIT.{key} has {row!r}, but each entry must be [block, factor] with a block up "
                f"to MVIT.DEPTH {depth}"
            )
        factors[row[0]] = float(row[1])
    return factors


def _strides(key: str, rows: list, depth: int) -> dict[int, tuple[int, int, int]]:
    strides = {}
    for row in rows:
        if not (
            isinstance(row, list)
            and len(row) == 4
            and _are_whole(row)
            and row[0] < depth
            and all(row[1:])
        ):
            raise ConfigError(
                f"MVIT.{key} has {row!r}, but each entry must be [block, t, h, w] with a block "
                f"below MVIT.DEPTH {depth}"
            )
        strides[row[0]] = tuple(row[1:])
    return strides
