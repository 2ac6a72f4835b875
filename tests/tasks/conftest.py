"""Drawn data sets, and configurations that train on them in seconds."""

import pytest
import torch

from tests.tasks.drawn import write_images, write_videos
from videonet.config import load_config

SMALL = [
    *("MODEL.NAME", "hornet_xs", "MODEL.ARGUMENTS", "{base_dim: 12, depths: [1, 1]}"),
    *("DATA.CROP", "short_side", "DATA.SHORT_SIDES", "[48]", "DATA.TEST_SHORT_SIDE", "48"),
    *("DATA.LONGEST_SIDE", "64", "DATA.SIZE_MULTIPLE", "16", "DATA.SAMPLING_RATE", "1"),
    *("DATA.TRAIN_CROP_SIZE", "48", "DATA.TRAIN_JITTER_SCALES", "[48, 48]"),
    *("NECK.CHANNELS", "16", "DATA_LOADER.NUM_WORKERS", "0", "TRAIN.BATCH_SIZE", "3"),
    *("SOLVER.OPTIMIZING_METHOD", "adamw", "SOLVER.BASE_LR", "0.002", "SOLVER.MAX_EPOCH", "2"),
    *("TRAIN.EVAL_PERIOD", "2", "LOG_PERIOD", "1", "TRAIN.CHECKPOINT_PERIOD", "1"),
]
INSTANCES = [
    *("MODEL.TASK", "instance_segmentation", "DETECTOR.ANCHOR_SCALE", "4"),
    *(
        "DETECTOR.HEADS",
        "{box_fcs: [32], mask_convs: [16], mask_deconv: 16, num_sampled: 32, most: 10}",
    ),
]
SEMANTICS = [
    *("MODEL.TASK", "semantic_segmentation", "SEGMENTER.AUXILIARY", "1"),
    *("SEGMENTER.HEAD_ARGUMENTS", "{channels: 16}"),
]


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    return write_videos(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def small():
    """A function of the task's and other KEY VALUE words that gives a configuration."""

    def make(data, folder, form, frames, *overrides):
        words = ["DATA.PATH_TO_DATA_DIR", data, "OUTPUT_DIR", folder, "DATA.NUM_FRAMES", frames]
        words += ["TRAIN.DATASET", form, "TEST.DATASET", form]
        return load_config(None, list(map(str, [*words, *SMALL, *overrides])))

    return make


@pytest.fixture(autouse=True)
def one_thread():
    """Sums do not depend on how threads share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
