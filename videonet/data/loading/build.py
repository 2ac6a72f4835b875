"""From a config to a data set: its videos, how their clips are made, and their targets."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fvcore.common.config import CfgNode

from videonet.choices import SPLITS
from videonet.data.datasets.classes import label_names
from videonet.data.datasets.lists import VideoList
from videonet.data.datasets.registry import dataset_form, find_list
from videonet.data.loading.dataset import (
    EvaluationViews,
    TrainingClips,
    VideoDataset,
    annotations_of,
)
from videonet.data.preparing.manifest import read_manifest
from videonet.data.targets import Annotations, TargetMaker
from videonet.data.transforms.geometry import Size
from videonet.data.transforms.sampling import ClipSampler
from videonet.data.video.frame_store import FrameStore
from videonet.errors import ConfigError
from videonet.ops.boundary_patches import PatchRule

if TYPE_CHECKING:  # imported where they are used: prediction need not wait for torchvision
    from videonet.data.transforms.clip import InceptionCrop, JitterCrop
    from videonet.data.transforms.dense import Pad, PictureCrop
    from videonet.data.transforms.patches import PatchCut

logger = logging.getLogger(__name__)

Annotate = Callable[[VideoList], Annotations]  # what a task wants to know of the videos
SQUARE = "square"  # DATA.CROP of classification
PATCHES = "patches"  # of boundary refinement
STANDARD_ASPECT = (3 / 4, 4 / 3)


def build_dataset(cfg: CfgNode, split: str, annotate: Annotate = annotations_of) -> VideoDataset:
    """The videos of a split as the config wants their clips, with their manifest if there is one.

    ``annotate`` gives what the targets of the list's videos are made from.

    Raises ConfigError for an unknown split or value, DataError for a list that cannot be used.
    """
    videos = read_videos(cfg, split)
    annotations = annotate(videos)
    make_clips: TrainingClips | EvaluationViews
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

    The labels are in the order of :func:`~videonet.data.datasets.classes.class_names`.

    Raises ConfigError for an unknown split, DataError for a list that cannot be used.
    """
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; known are {', '.join(SPLITS)}")
    form, path = dataset_form(cfg, split), find_list(cfg, split)
    return form.read_split(cfg, path, label_names(cfg, split), split)


def clip_sampler(cfg: CfgNode, split: str = "train") -> ClipSampler:
    """As the form of the data set wants clips, unless DATA.SAMPLING says how."""
    mode = cfg.DATA.SAMPLING
    if mode == "auto":
        mode = dataset_form(cfg, split).sampling
    varied = {key.lower(): cfg.AUG[key] for key in ("TRIM", "HOLD", "PACE") if cfg.AUG.ENABLE}
    return ClipSampler(
        num_frames=cfg.DATA.NUM_FRAMES,
        rate=cfg.DATA.SAMPLING_RATE,
        target_fps=float(cfg.DATA.TARGET_FPS),
        mode=mode,
        short_video=cfg.DATA.SHORT_VIDEO,
        **varied,
    )


def training_clips(cfg: CfgNode, maker: TargetMaker | None = None) -> TrainingClips:
    """Random clips with the augmentation of DATA and AUG; ``maker``: of their targets."""
    from torchvision.transforms import v2

    from videonet.data.transforms.clip import build_augmentation
    from videonet.data.transforms.dense import PictureCrop

    aug = cfg.AUG
    recipe = {}
    if aug.ENABLE:
        recipe = {
            "policy": aug.AA_TYPE,
            "colour_jitter": aug.COLOR_JITTER or 0.0,
            "erasing": aug.RE_PROB,
            "erasing_mode": aug.RE_MODE,
            "erasing_count": aug.RE_COUNT,
            "exposure": aug.EXPOSURE,
            "shake": aug.SHAKE,
        }
    augment = build_augmentation(
        flip=cfg.DATA.RANDOM_FLIP and dataset_form(cfg, "train").mirrors,
        mean=cfg.DATA.MEAN,
        std=cfg.DATA.STD,
        **recipe,
    )
    crop, dense = _training_crop(cfg), {}
    if isinstance(crop, PictureCrop):
        pad = _padding(cfg, crop.shape)
        augment = v2.Compose([augment, pad])
        dense = {"canvas": pad.shape, "multiple": cfg.DATA.SIZE_MULTIPLE}
    return TrainingClips(
        sampler=clip_sampler(cfg),
        crop=crop,
        augment=augment,
        count=cfg.AUG.NUM_SAMPLE,
        backend=_backend(cfg),
        frames_fps=cfg.DATA.FRAMES_FPS,
        maker=maker,
        store=_frame_store(cfg),
        **dense,
    )


def _frame_store(cfg: CfgNode) -> FrameStore | None:
    if not cfg.DATA.FRAME_STORE:
        return None
    return FrameStore(os.path.abspath(cfg.DATA.FRAME_STORE), cfg.DATA.FRAME_STORE_GB * 1e9)


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
    dense: dict[str, Any] = {}
    if cfg.DATA.CROP == PATCHES:
        dense, spatial = {"whole": _patch_cut(cfg)}, 1
    elif cfg.DATA.CROP != SQUARE:
        from videonet.data.transforms.dense import WholePicture

        side, longest = cfg.DATA.TEST_SHORT_SIDE, cfg.DATA.LONGEST_SIDE
        whole = WholePicture(side, longest, _padding(cfg, (longest, longest)))
        dense, spatial = {"whole": whole, "multiple": cfg.DATA.SIZE_MULTIPLE}, 1
    return EvaluationViews(
        sampler,
        size,
        temporal,
        spatial,
        _backend(cfg),
        frames_fps=cfg.DATA.FRAMES_FPS,
        crop_ratio=cfg.TEST.CROP_RATIO,
        interpolation=cfg.TEST.INTERPOLATION,
        maker=maker,
        **dense,
    )


def _padding(cfg: CfgNode, shape: Size) -> Pad:
    """Padding to the multiple above this size, with the mean, which is zero for a model."""
    from videonet.data.transforms.dense import Pad

    multiple = cfg.DATA.SIZE_MULTIPLE
    height, width = (-(-side // multiple) * multiple for side in shape)
    return Pad((height, width), [round(255 * value) for value in cfg.DATA.MEAN])


def _picture_crop(cfg: CfgNode) -> PictureCrop:
    from videonet.data.transforms.dense import LargeScaleJitter, ScaleAndCrop, ShortSideResize

    data = cfg.DATA
    if data.CROP == "short_side":
        return ShortSideResize(
            data.SHORT_SIDES, data.LONGEST_SIDE, data.FIRST_SIDES, tuple(data.FIRST_CROP)
        )
    if data.CROP == "large_scale_jitter":
        return LargeScaleJitter(data.TRAIN_CROP_SIZE, tuple(data.SCALES))
    if data.CROP == "scale_and_crop":
        return ScaleAndCrop(data.TRAIN_CROP_SIZE, tuple(data.SCALE_BASE), tuple(data.SCALES))
    known = (SQUARE, PATCHES, "short_side", "large_scale_jitter", "scale_and_crop")
    raise ConfigError(f"DATA.CROP is {data.CROP!r}, expected one of {', '.join(known)}")


def _patch_cut(cfg: CfgNode) -> PatchCut:
    from videonet.data.transforms.patches import PatchCut

    keys = cfg.BOUNDARY
    rule = PatchRule(keys.PATCH_SIZE, keys.PADDING, keys.TRAIN_OVERLAP, keys.EDGES)
    return PatchCut(rule, cfg.DATA.TRAIN_CROP_SIZE)


def _training_crop(cfg: CfgNode) -> JitterCrop | InceptionCrop | PictureCrop | PatchCut:
    data = cfg.DATA
    if data.CROP == PATCHES:
        return _patch_cut(cfg)
    if data.CROP != SQUARE:
        return _picture_crop(cfg)
    from videonet.data.transforms.clip import INTERPOLATIONS, InceptionCrop, JitterCrop

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
