"""The choices, ranges and combinations of values that a config may have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from videonet.config.keys import MAPPINGS
from videonet.config.reading import shown
from videonet.errors import ConfigError

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

CHOICES: dict[str, tuple[Any, ...]] = {
    "DATA.SAMPLING": ("auto", "dense", "segments"),
    "DATA.SHORT_VIDEO": ("repeat_last", "loop"),
    "DATA.DECODING_BACKEND": ("auto", "cuda", "decord", "pyav", "torchcodec"),
    "AUG.INTERPOLATION": ("bicubic", "bilinear", "random"),
    "AUG.RE_MODE": ("pixel", "rand", "const"),
    "MVIT.MODE": ("conv", "conv_unshared", "max", "avg"),
    "MODEL.LOSS_FUNC": ("cross_entropy", "soft_cross_entropy", "bce_logit"),
    "BOUNDARY.EDGES": ("official", "covered"),
    "TRAIN.HALF_PRECISION": ("auto", "bf16", "fp16"),
    "MODEL.HEAD": ("linear", "attentive", "statistics"),
    "TRAIN.INFLATION": ("centre", "average"),
    "TRAIN.PARALLEL": ("ddp", "fsdp"),
    "TEST.NUM_SPATIAL_CROPS": (1, 3),
    "TEST.INTERPOLATION": ("bilinear", "bicubic"),
    "TEST.ENSEMBLE": ("softmax", "logits", "max"),
    "NECK.NAME": (*("auto", "none", "fpn", "hor_fpn", "hrfpn", "simple_pyramid", "multi_level"),),
    "DETECTOR.RULES": ("detectron2", "mmdet", "torchvision"),
    "DETECTOR.SAMPLE_PER": ("frame", "clip"),
    "SEGMENTER.HEAD": ("uper", "semantic_fpn", "fcn", "hrnet"),
    "SOLVER.SCHEDULE": ("cosine", "steps", "poly"),
    "SOLVER.OPTIMIZING_METHOD": ("sgd", "adam", "adamw"),
    "VIDEO_HEAD.LEVELS": (1, 2),
    "VIDEO_HEAD.SCORE": ("additive", "dot"),
    "DIST_BACKEND": ("nccl", "gloo"),
}


def _numbers(*counts: int) -> Callable[[Any], bool]:
    def test(values: Any) -> bool:
        return len(values) in counts and all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in values
        )

    return test


LARGEST_ARGUMENT = 100_000  # of a model


def _single_values(value: Any) -> Iterator[Any]:
    """What a value of lists and mappings is made of."""
    if isinstance(value, dict):
        yield from _single_values([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _single_values(item)
    else:
        yield value


def _is_argument(value: Any) -> bool:
    return all(
        value is None
        or isinstance(value, str)
        or (isinstance(value, int | float) and abs(value) <= LARGEST_ARGUMENT)
        for value in _single_values(value)
    )


def _rising(values: Any) -> bool:
    return _numbers(2)(values) and 0 < values[0] <= values[1]


def _all_above(least: float) -> Callable[[Any], bool]:
    def test(values: Any) -> bool:
        return bool(values) and _numbers(len(values))(values) and min(values) > least

    return test


def _counts(values: Any) -> bool:
    return _all_above(0)(values) and all(isinstance(v, int) for v in values)


# Far above what anybody trains, so that a configuration from elsewhere cannot occupy the machine.
LARGEST: dict[str, int] = {
    "DATA.NUM_FRAMES": 10_000,
    "DATA.SAMPLING_RATE": 10_000,
    "DATA.TRAIN_CROP_SIZE": 10_000,
    "DATA.TEST_CROP_SIZE": 10_000,
    "DATA.TEST_SHORT_SIDE": 10_000,
    "DATA.LONGEST_SIDE": 10_000,
    "DATA.SIZE_MULTIPLE": 1_000,
    "BOUNDARY.PATCH_SIZE": 10_000,
    "BOUNDARY.PADDING": 10_000,
    "DATA.TARGET_FPS": 1_000_000,
    "DATA.FRAMES_FPS": 1_000_000,
    "TRAIN.BATCH_SIZE": 1_000_000,
    "TRAIN.GRAD_ACCUM_STEPS": 1_000_000,
    "TEST.BATCH_SIZE": 1_000_000,
    "SOLVER.MAX_EPOCH": 1_000_000,
    "RNG_SEED": 2**63 - 1,
    "AUG.NUM_SAMPLE": 1_000,
    "AUG.RE_COUNT": 1_000,
    "TEST.NUM_ENSEMBLE_VIEWS": 1_000,
    "MODEL.NUM_CLASSES": 1_000_000,
    "MVIT.DEPTH": 1_000,
    "MVIT.EMBED_DIM": 100_000,
    "MVIT.NUM_HEADS": 10_000,
    "MODEL.LORA.RANK": 10_000,
    "PROBE.AUGMENTED": 1_000,
    "PROBE.FOLDS": 1_000,
    "VIDEO_HEAD.HIDDEN": 100_000,
    "NECK.CHANNELS": 100_000,
    "NECK.TEMPORAL_KERNEL": 99,
    "DETECTOR.PAD_SQUARE": 10_000,
    "DATA_LOADER.NUM_WORKERS": 10_000,
}
MOST_BYTES_OF_A_VIDEO = 16 << 30  # of all views together


# (what the value must be, the test, the keys)
RULES: tuple[tuple[str, Callable[[Any], bool], tuple[str, ...]], ...] = (
    (
        "at least 1",
        lambda v: v >= 1,
        (
            *("DATA.NUM_FRAMES", "DATA.SAMPLING_RATE", "DATA.TRAIN_CROP_SIZE"),
            *("DATA.TEST_CROP_SIZE", "AUG.NUM_SAMPLE", "AUG.RE_COUNT"),
            *("DATA.TEST_SHORT_SIDE", "DATA.LONGEST_SIDE", "DATA.SIZE_MULTIPLE"),
            *("TRAIN.BATCH_SIZE", "TRAIN.CHECKPOINT_PERIOD", "TRAIN.GRAD_ACCUM_STEPS"),
            *("TEST.BATCH_SIZE", "TEST.NUM_ENSEMBLE_VIEWS", "SOLVER.MAX_EPOCH", "LOG_PERIOD"),
            *("MVIT.DEPTH", "MVIT.EMBED_DIM", "MVIT.NUM_HEADS", "VIDEO_HEAD.HIDDEN"),
            *("BN.NUM_BATCHES_PRECISE", "NECK.CHANNELS", "NECK.TEMPORAL_KERNEL"),
        ),
    ),
    (
        "0 or more",
        lambda v: v >= 0,
        (
            *("AUG.COLOR_JITTER", "MIXUP.ALPHA", "MIXUP.CUTMIX_ALPHA"),
            *("TRAIN.EVAL_PERIOD", "TRAIN.KEEP_CHECKPOINTS", "TRAIN.CHECKPOINT_STEPS"),
            *("SOLVER.BASE_LR", "SOLVER.COSINE_END_LR", "SOLVER.WARMUP_START_LR"),
            *("SOLVER.WARMUP_EPOCHS", "SOLVER.WEIGHT_DECAY", "SOLVER.BASE_LR_CLIPS"),
            *("SOLVER.MOMENTUM", "SOLVER.DAMPENING", "BN.WEIGHT_DECAY"),
            *("DATA_LOADER.NUM_WORKERS", "DATA_LOADER.VIDEO_TIMEOUT", "NUM_GPUS", "RNG_SEED"),
            *("MODEL.NUM_CLASSES", "MODEL.LORA.RANK", "PROBE.AUGMENTED", "DATA.TARGET_FPS"),
            *("BOUNDARY.PADDING", "DATA.FRAME_STORE_GB"),
            *("DETECTOR.PAD_SQUARE", "SEGMENTER.AUXILIARY_WEIGHT"),
        ),
    ),
    (
        "above 0",
        lambda v: v > 0,
        (
            *("DATA.FRAMES_FPS", "MVIT.MLP_RATIO", "MVIT.HEAD_INIT_SCALE", "MODEL.LORA.ALPHA"),
            *("DETECTOR.ANCHOR_SCALE", "SOLVER.STEP_FACTOR", "SOLVER.POLY_POWER"),
        ),
    ),
    ("2 or more", lambda v: v >= 2, ("PROBE.FOLDS",)),
    (
        "some of attentive, statistics, linear and knn",
        lambda v: bool(v) and set(v) <= {"attentive", "statistics", "linear", "knn"},
        ("PROBE.METHODS",),
    ),
    ("numbers above 0", _all_above(0), ("PROBE.RATES",)),
    ("numbers, 0 or more", _all_above(-1e-300), ("PROBE.DECAYS", "PROBE.L2")),
    ("whole numbers above 0", _counts, ("PROBE.NEIGHBOURS", "PROBE.REGIONS")),
    ("a list of words", lambda v: all(isinstance(w, str) and w for w in v), ("MODEL.LORA.LAYERS",)),
    (
        "None or above 0",
        lambda v: v is None or v > 0,
        ("SOLVER.CLIP_GRAD_L2NORM", "SOLVER.CLIP_GRAD_VAL"),
    ),
    (
        "between 0 and 1",
        lambda v: 0 <= v <= 1,
        (
            *("DATA.MAX_BAD_SHARE", "TEST.MAX_BAD_SHARE", "AUG.RE_PROB", "MIXUP.PROB"),
            *("AUG.EXPOSURE", "AUG.SHAKE", "AUG.TRIM", "AUG.HOLD", "AUG.PACE"),
            "MIXUP.SWITCH_PROB",
            *("BOUNDARY.OVERLAP", "BOUNDARY.TRAIN_OVERLAP"),
        ),
    ),
    (
        "0 or more and below 1",
        lambda v: 0 <= v < 1,
        (
            *("MVIT.DROPOUT_RATE", "MODEL.DROPOUT_RATE", "MODEL.DROPPATH_RATE"),
            "MIXUP.LABEL_SMOOTH_VALUE",
            "SOLVER.EMA_DECAY",
            *("VIDEO_HEAD.DROPOUT", "PROBE.DROPOUT", "MODEL.LORA.DROPOUT"),
        ),
    ),
    ("above 0 and at most 1", lambda v: 0 < v <= 1, ("SOLVER.LAYER_DECAY", "TEST.CROP_RATIO")),
    (
        "empty, or two whole numbers above 0",
        lambda v: not v or (_numbers(2)(v) and all(type(n) is int and n > 0 for n in v)),
        ("SEGMENTER.WINDOW", "SEGMENTER.STRIDE"),
    ),
    (
        "one or more numbers above 0",
        lambda v: bool(v) and _numbers(len(v))(v) and min(v) > 0,
        ("SEGMENTER.SCALES",),
    ),
    (
        "rising numbers, 0 or more",
        lambda v: _numbers(len(v))(v) and list(v) == sorted(set(v)) and min(v, default=0) >= 0,
        ("SOLVER.STEP_EPOCHS",),
    ),
    (
        "whole numbers",
        lambda v: all(type(number) is int for number in v),
        ("NECK.INDICES", "DETECTOR.STRIDES"),
    ),
    ("three numbers (RGB)", _numbers(3), ("DATA.MEAN",)),
    ("three numbers above 0 (RGB)", lambda v: _numbers(3)(v) and min(v) > 0, ("DATA.STD",)),
    (
        "two rising numbers above 0",
        _rising,
        ("DATA.TRAIN_JITTER_SCALES", "DATA.FIRST_CROP", "DATA.SCALES"),
    ),
    (
        "two rising numbers, of cells",
        lambda v: _rising(v) and all(type(cells) is int for cells in v),
        ("BOUNDARY.COARSE_CELLS",),
    ),
    (
        "an even number of 2 or more",
        lambda v: v >= 2 and v % 2 == 0,
        ("BOUNDARY.PATCH_SIZE",),
    ),
    (
        "whole numbers from 1 to 10,000",
        lambda v: all(type(side) is int and 1 <= side <= 10_000 for side in v),
        ("DATA.SHORT_SIDES", "DATA.FIRST_SIDES", "DATA.SCALE_BASE"),
    ),
    ("-1 to 1", lambda v: -1 <= v <= 1, ("BOUNDARY.MIN_IOU",)),
    ("-1 to 255", lambda v: -1 <= v <= 255, ("DATA.IGNORED_LABEL",)),
    (
        "empty or two rising numbers above 0",
        lambda v: not v or _rising(v),
        ("DATA.TRAIN_JITTER_SCALES_RELATIVE", "DATA.TRAIN_JITTER_ASPECT_RELATIVE"),
    ),
    (
        "two numbers from 0 to below 1",
        lambda v: _numbers(2)(v) and all(0 <= beta < 1 for beta in v),
        ("SOLVER.BETAS",),
    ),
    (
        "not empty",
        bool,
        ("DATA.PATH_LABEL_SEPARATOR", "DATA.TRAIN_LIST", "DATA.VAL_LIST", "OUTPUT_DIR"),
    ),
    (
        "auto, cpu, mps, cuda or cuda:N",
        lambda v: bool(re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", v)),
        ("DEVICE",),
    ),
)


def get(cfg: CfgNode, key: str) -> Any:
    """The value, or the group, at a dotted key; the config itself for an empty one."""
    for part in key.split(".") if key else ():
        cfg = cfg[part]
    return cfg


def allowed(key: str) -> str:
    """What the values of a key are limited to, for help; empty where only their type is.

    Args:
        key: dotted name of the key.
    """
    found = [" or ".join(map(str, CHOICES[key]))] if key in CHOICES else []
    found += [words for words, _, keys in RULES if key in keys]
    if key in LARGEST:
        found.append(f"at most {LARGEST[key]:,}")
    return ", ".join(found)


def check(cfg: CfgNode, where: Mapping[str, str]) -> None:
    """Check every value, and values that depend on each other.

    Args:
        cfg: a config with all keys.
        where: dotted key -> the place it was set at, for the message.

    Raises:
        ConfigError: the first value that cannot be used.
    """
    for key, problem in _problems(cfg):
        place = f" in {where[key]}" if key in where else ""
        raise ConfigError(f"{key}{place} is {shown(get(cfg, key))}, but must be {problem}")


def _problems(cfg: CfgNode) -> Iterator[tuple[str, str]]:
    for key, choices in CHOICES.items():
        if get(cfg, key) not in choices:
            yield key, " or ".join(map(str, choices))
    for words, test, keys in RULES:
        for key in keys:
            if not test(get(cfg, key)):
                yield key, words
    for key, most in LARGEST.items():
        if get(cfg, key) > most:
            yield key, f"at most {most:,}"
    for key, name, value in ((k, *item) for k in MAPPINGS for item in get(cfg, k).items()):
        if not name.isidentifier() or not _is_argument(value):
            yield (
                f"{key}.{name}",
                f"named as an argument of Python is, of text, numbers up to {LARGEST_ARGUMENT:,}, "
                "lists or mappings",
            )
    if cfg.MODEL.HEAD_ARGUMENTS and cfg.MODEL.HEAD == "linear":
        yield "MODEL.HEAD_ARGUMENTS", "empty unless MODEL.HEAD is attentive or statistics"
    if cfg.MODEL.LORA.RANK and cfg.MODEL.FROZEN_LAYERS:
        yield "MODEL.FROZEN_LAYERS", "0 with adapters (MODEL.LORA.RANK), which freeze all weights"
    if cfg.MODEL.LORA.RANK and cfg.TRAIN.PARALLEL == "fsdp":
        yield "TRAIN.PARALLEL", "ddp with adapters (MODEL.LORA.RANK)"
    test = cfg.TEST.NUM_ENSEMBLE_VIEWS * cfg.TEST.NUM_SPATIAL_CROPS
    if 3 * test * cfg.DATA.NUM_FRAMES * cfg.DATA.TEST_CROP_SIZE**2 > MOST_BYTES_OF_A_VIDEO:
        yield (
            "TEST.NUM_ENSEMBLE_VIEWS",
            f"fewer: all views of a video have more than {MOST_BYTES_OF_A_VIDEO >> 30} GiB",
        )
    if (cfg.MODEL.LOSS_FUNC == "bce_logit") != (cfg.TRAIN.DATASET == "multilabel"):
        yield "MODEL.LOSS_FUNC", "bce_logit with TRAIN.DATASET multilabel, and only there"
    solver = cfg.SOLVER
    plain = not solver.MOMENTUM or solver.DAMPENING
    if solver.OPTIMIZING_METHOD == "sgd" and solver.NESTEROV and plain:
        yield "SOLVER.NESTEROV", "False without SOLVER.MOMENTUM or with SOLVER.DAMPENING"
    if cfg.MIXUP.ENABLE and cfg.MODEL.LOSS_FUNC == "bce_logit":
        yield "MIXUP.ENABLE", "False where videos have several labels"
    data = cfg.DATA
    if data.TRAIN_JITTER_SCALES_RELATIVE:
        if data.TRAIN_JITTER_SCALES_RELATIVE[1] > 1:
            yield "DATA.TRAIN_JITTER_SCALES_RELATIVE", "at most 1, a share of the frame"
    elif cfg.TRAIN.ENABLE and data.TRAIN_JITTER_SCALES[0] < data.TRAIN_CROP_SIZE:
        yield (
            "DATA.TRAIN_JITTER_SCALES",
            f"at least DATA.TRAIN_CROP_SIZE, {data.TRAIN_CROP_SIZE}, to leave room for the crop",
        )
