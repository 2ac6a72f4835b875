"""A tiny data set and a configuration that trains on it in seconds."""

import signal
from functools import partial
from pathlib import Path

import pytest
import torch

from videonet.config import load_config
from videonet.data.preparing.synthetic import write_demo_dataset
from videonet.engine import plots


@pytest.fixture(scope="module", autouse=True)
def as_the_children():
    """One thread, as the child processes have (sums are cut by threads), and Python's own answer
    to Ctrl-C, which shells switch off in what they start in the background."""
    threads, answer = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, answer)


@pytest.fixture(autouse=True)
def pictures(monkeypatch):
    """Learning curves are put together and not painted, which takes as long as small runs do.

    Modules whose tests look at them have a fixture of this name that does nothing.
    """
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: path.touch())


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder, train_clips=20, val_clips=10, size=32, num_frames=8, seed=0)
    return folder


@pytest.fixture(scope="session")
def tiny_in(demo_folder):
    """A function of a folder and KEY VALUE overrides that gives the configuration of a small run.

    For runs that the tests of a module share; a test's own runs are made with ``tiny``.
    """

    def make(folder, *overrides):
        base = [
            *("DATA.PATH_TO_DATA_DIR", str(demo_folder), "OUTPUT_DIR", str(folder)),
            *("DATA.NUM_FRAMES", "4", "DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32"),
            *("DATA.TRAIN_JITTER_SCALES", "[32, 36]", "TRAIN.BATCH_SIZE", "5"),
            *("DATA_LOADER.NUM_WORKERS", "0", "SOLVER.MAX_EPOCH", "3", "SOLVER.WARMUP_EPOCHS", "1"),
            *("TRAIN.CHECKPOINT_PERIOD", "1", "TRAIN.EVAL_PERIOD", "1", "LOG_PERIOD", "1"),
        ]
        return load_config("DEMO/MVITv2_XS.yaml", [*base, *(str(o) for o in overrides)])

    return make


@pytest.fixture
def tiny(tiny_in, tmp_path):
    """A function of KEY VALUE overrides that gives the configuration of a small run."""
    return partial(tiny_in, tmp_path / "run")
