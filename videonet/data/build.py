"""From a config to a data set: its videos, how their clips are made, and their targets."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fvcore.common.config import CfgNode

from videonet.choices import SPLITS
from videonet.data.classes import class_names, folder_classes, tells_names
from videonet.data.dataset import EvaluationViews, TrainingClips, VideoDataset
from videonet.data.folders import read_folders
from videonet.data.lists import VideoList, read_list
from videonet.data.manifest import read_manifest
from videonet.data.sampling import DENSE, SEGMENTS, ClipSampler
from videonet.data.splits import find_list, list_kind
from videonet.data.ssv2 import ANSWERS, read_ssv2
from videonet.data.targets import Annotations, TargetMaker, annotations_of
from videonet.data.transforms import (
    INTERPOLATIONS,
    InceptionCrop,
    JitterCrop,
    build_augmentation,
)
from videonet.errors import ConfigError

logger = logging.getLogger(__name__)

Annotate = Callable[[VideoList], Annotations]  # what a task wants to know of the videos
STANDARD_ASPECT = (3 / 4, 4 / 3)


def build_dataset(cfg: CfgNode, split: str, annotate: Annotate = annotations_of) -> VideoDataset:
    """The videos of a split as the config wants their clips, with their manifest if there is one.

    ``annotate`` gives what the targets of the list's videos are made from.

    Raises ConfigError for an unknown split or value, DataError for a list that cannot be used.
    """
    videos = read_videos(cfg, split)
    annotations = annotate(videos)
    if split == "train":
        make_clips = training_clips(cfg, annotations.maker)
    else:
        make_clips = evaluation_views(cfg, split, annotations.maker)
    return VideoDataset(
        videos,
        make_clips,
        seed=cfg.RNG_SEED,
        replace=split == "train",
        annotations=annotations,
        manifest=read_manifest(videos),
    )


def read_videos(cfg: CfgNode, split: str) -> VideoList:
    """The videos and labels of a split, in whichever form ``TRAIN.DATASET`` has them.

    The labels are in the order of :func:`~videonet.data.classes.class_names`.

    Raises ConfigError for an unknown split, DataError for a list that cannot be used.
    """
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; known are {', '.join(SPLITS)}")
    kind, path = list_kind(cfg, split), find_list(cfg, split)
    if kind == "folder":
        return read_folders(path, folder_classes(cfg, split))
    names = class_names(cfg, split)
    if kind == "ssv2" and (path.suffix == ".json" or path.name == ANSWERS):
        return read_ssv2(path, len(names), prefix=cfg.DATA.PATH_PREFIX)
    return read_list(
        path,
        len(names),
        prefix=cfg.DATA.PATH_PREFIX,
        separator=cfg.DATA.PATH_LABEL_SEPARATOR,
        multi_label=kind == "multilabel",
        names=names if tells_names(names) else (),
    )


def clip_sampler(cfg: CfgNode, split: str = "train") -> ClipSampler:
    """Dense for Kinetics, segments for Something-Something, unless DATA.SAMPLING says which."""
    mode = cfg.DATA.SAMPLING
    if mode == "auto":
        mode = SEGMENTS if list_kind(cfg, split) == "ssv2" else DENSE
    return ClipSampler(
        num_frames=cfg.DATA.NUM_FRAMES,
        rate=cfg.DATA.SAMPLING_RATE,
        target_fps=float(cfg.DATA.TARGET_FPS),
        mode=mode,
        short_video=cfg.DATA.SHORT_VIDEO,
    )


def training_clips(cfg: CfgNode, maker: TargetMaker | None = None) -> TrainingClips:
    """Random clips with the augmentation of DATA and AUG; ``maker``: of their targets."""
    aug = cfg.AUG
    recipe = {}
    if aug.ENABLE:
        recipe = {
            "policy": aug.AA_TYPE,
            "colour_jitter": aug.COLOR_JITTER or 0.0,
            "erasing": aug.RE_PROB,
            "erasing_mode": aug.RE_MODE,
            "erasing_count": aug.RE_COUNT,
        }
    augment = build_augmentation(
        flip=cfg.DATA.RANDOM_FLIP
        and list_kind(cfg, "train") != "ssv2",  # its labels have directions
        mean=cfg.DATA.MEAN,
        std=cfg.DATA.STD,
        **recipe,
    )
    return TrainingClips(
        sampler=clip_sampler(cfg),
        crop=_training_crop(cfg),
        augment=augment,
        count=cfg.AUG.NUM_SAMPLE,
        backend=_backend(cfg),
        frames_fps=cfg.DATA.FRAMES_FPS,
        maker=maker,
    )


def evaluation_views(
    cfg: CfgNode, split: str = "test", maker: TargetMaker | None = None
) -> EvaluationViews:
    """All views of the test, or the one centre view of validation; ``maker``: of their targets."""
    if split == "val":
        size, temporal, spatial = cfg.DATA.TRAIN_CROP_SIZE, 1, 1
    else:
        size = cfg.DATA.TEST_CROP_SIZE
        temporal, spatial = cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS
    sampler = clip_sampler(cfg, "train" if split == "val" else "test")
    return EvaluationViews(
        sampler,
        size,
        temporal,
        spatial,
        _backend(cfg),
        frames_fps=cfg.DATA.FRAMES_FPS,
        crop_ratio=cfg.TEST.CROP_RATIO,
        maker=maker,
    )


def _training_crop(cfg: CfgNode) -> JitterCrop | InceptionCrop:
    data = cfg.DATA
    if not data.TRAIN_JITTER_SCALES_RELATIVE:
        return JitterCrop(
            data.TRAIN_CROP_SIZE, tuple(data.TRAIN_JITTER_SCALES), data.INV_UNIFORM_SAMPLE
        )
    name = cfg.AUG.INTERPOLATION if cfg.AUG.ENABLE else "bilinear"
    if name not in INTERPOLATIONS:
        raise ConfigError(
            f"AUG.INTERPOLATION is {name!r}, expected one of {', '.join(INTERPOLATIONS)}"
        )
    return InceptionCrop(
        data.TRAIN_CROP_SIZE,
        area=tuple(data.TRAIN_JITTER_SCALES_RELATIVE),
        aspect=tuple(data.TRAIN_JITTER_ASPECT_RELATIVE) or STANDARD_ASPECT,
        decode_side=data.TRAIN_JITTER_SCALES[0],
        interpolation=INTERPOLATIONS[name],
    )


def _backend(cfg: CfgNode) -> str:
    backend = cfg.DATA.DECODING_BACKEND
    return "auto" if backend == "torchvision" else backend  # torchvision reads no videos any more
