"""Weights of a small model that has learnt drawn motions: made on this machine, once.

A model from random weights stays at chance for long on a few hundred videos. One that can already
tell eight motions of drawn shapes apart knows what a movement is, and nothing else: no photograph,
no licence and no network is needed for it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from videonet.checkpoint.download import cache_folder
from videonet.data.preparing.synthetic import write_demo_dataset
from videonet.files import make_folder
from videonet.finetuning.choices import StartingWeights
from videonet.finetuning.start import config_from
from videonet.inference.predictor import Predictor
from videonet.inference.pretrained import CONFIG, WEIGHTS
from videonet.terminal import progress_bar

logger = logging.getLogger(__name__)

MOTIONS = "motions"  # what --weights calls them
MODEL = "mvit_v2_xs"
VERSION = 1  # of the drawn clips and of the recipe
TRAIN_CLIPS, VAL_CLIPS = 5000, 200
FRAMES, SIZE = 8, 48
# That of configs/DEMO/MVITv2_XS.yaml.
RECIPE: dict[str, dict[str, Any]] = {
    "MODEL": {"NAME": MODEL, "NUM_CLASSES": 8, "DROPOUT_RATE": 0.0, "DROPPATH_RATE": 0.0},
    "DATA": {
        "SAMPLING": "segments",
        "NUM_FRAMES": FRAMES,
        "TRAIN_JITTER_SCALES": [SIZE, 52],
        "TRAIN_CROP_SIZE": SIZE,
        "TEST_CROP_SIZE": SIZE,
        "DECODING_BACKEND": "pyav",
        "RANDOM_FLIP": False,
    },
    "SOLVER": {
        "OPTIMIZING_METHOD": "adamw",
        "BASE_LR": 1.5e-3,
        "WARMUP_START_LR": 1e-5,
        "COSINE_END_LR": 1e-5,
        "WARMUP_EPOCHS": 0.4,
        "COSINE_AFTER_WARMUP": True,
        "MAX_EPOCH": 5,
        "WEIGHT_DECAY": 0.05,
        "ZERO_WD_1D_PARAM": True,
        "CLIP_GRAD_L2NORM": 1.0,
    },
    "TRAIN": {"BATCH_SIZE": 32, "EVAL_PERIOD": 1, "CHECKPOINT_PERIOD": 1},
    "TEST": {"BATCH_SIZE": 60, "NUM_ENSEMBLE_VIEWS": 3, "NUM_SPATIAL_CROPS": 1},
    "DATA_LOADER": {"NUM_WORKERS": 1},
}


def motion_folder() -> Path:
    """The saved model in the cache, whether it is there or not."""
    return cache_folder() / MOTIONS / f"{MODEL}-{VERSION}"


def motion_weights(*, given: bool) -> StartingWeights:
    """What a training that starts from them has to know; they need not be there yet.

    Clips of other lengths and sizes may be taken: relative positions are interpolated.

    Args:
        given: somebody asked for them.
    """
    return StartingWeights(
        str(motion_folder() / WEIGHTS),
        MODEL,
        frames=0,
        size=0,
        trained_on="drawn motions",
        config={"MODEL": {"NAME": MODEL}, "TRAIN": {"NEW_HEAD": True}},  # eight other classes
        given=given,
        made=True,
    )


def learn_motions(train: Callable[[CfgNode], Any], *, quiet: bool = False) -> Path:
    """Make the weights where they are not there; a stopped training goes on.

    Args:
        train: trains and tests a complete configuration.
        quiet: no progress bar.

    Returns:
        The folder of the saved model.

    Raises:
        WriteError: the cache cannot be written.
    """
    place = motion_folder()
    if (place / CONFIG).is_file():  # written last
        return place
    work = place.with_name(f"{place.name}.making")
    make_folder(work)
    logger.info("a small model learns drawn motions first (minutes; once, for %s)", place)
    with progress_bar(desc="drawn clips", unit="clips", delay=0.5, show=not quiet) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        write_demo_dataset(
            work / "data", train_clips=TRAIN_CLIPS, val_clips=VAL_CLIPS, progress=show
        )
    run = work / "run"
    cfg = config_from(RECIPE, ["DATA.PATH_TO_DATA_DIR", str(work / "data"), "OUTPUT_DIR", str(run)])
    train(cfg)
    Predictor.from_checkpoint(run, overrides=["DEVICE", "cpu"]).save_pretrained(place)
    shutil.rmtree(work)
    return place
