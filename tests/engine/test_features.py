"""Probes and heads on features whose classes are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from videonet.config import load_config
from videonet.data.feature_store import VideoFeatures
from videonet.engine.video_head import train_video_head
from videonet.errors import CheckpointError, DataError
from videonet.tasks.clip_head import ClipHeadTraining, load_video_head
from videonet.tasks.probe import linear_probe, nearest_neighbours, probe


def videos(count: int, seed: int, telling: int = 8) -> list[VideoFeatures]:
    """Three classes; `telling` of the 8 clips of a video show the class, the others are noise."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(3, 12)) * 2
    made = []
    for k in range(count):
        frames = rng.normal(size=(8, 4, 12))
        frames[rng.permutation(8)[:telling]] += centres[k % 3]
        frames = frames.astype(np.float32)
        times = np.zeros((8, 2), dtype=np.float32)
        made.append(VideoFeatures(f"{seed}/{k}", frames.mean(axis=1), times, frames, k % 3))
    return made


def test_a_probe_and_neighbours_find_separate_classes():
    results = probe(videos(60, 1), videos(30, 2), 3)
    assert results["linear"] > 95 and results["knn"] > 95
    shuffled = [
        VideoFeatures(v.video, v.features, v.times, label=k // 20)
        for k, v in enumerate(videos(60, 1))
    ]
    chance = probe(shuffled, videos(30, 2), 3)
    assert chance["linear"] < 70 and chance["knn"] < 70


def test_the_probe_solves_its_objective():
    torch.manual_seed(0)
    x, y = torch.randn(40, 3), torch.randint(3, (40,))
    strong = linear_probe(x, y, x, 3, l2=1e4)
    shares = torch.bincount(y, minlength=3) / 40
    assert torch.allclose(strong.softmax(dim=1), shares.expand(40, 3), atol=1e-2)


def test_the_nearest_neighbour_by_cosine():
    x, y = torch.tensor([[1.0, 0.0], [0.0, 5.0], [-1.0, 0.0]]), torch.tensor([0, 1, 2])
    votes = nearest_neighbours(x, y, torch.tensor([[9.0, 1.0], [0.1, 0.2]]), 3, neighbours=2)
    assert votes.argmax(dim=1).tolist() == [0, 1] and votes[0, 2] == 0


@pytest.fixture
def config(tmp_path):
    def make(**overrides):
        items = {"OUTPUT_DIR": tmp_path / "head", "TRAIN.BATCH_SIZE": 20, "LOG_PERIOD": 5}
        items |= {"SOLVER.MAX_EPOCH": 30, "SOLVER.BASE_LR": 0.005}
        items |= {f"VIDEO_HEAD.{key}": value for key, value in overrides.items()}
        flat = [str(part) for pair in items.items() for part in pair]
        return load_config("DEMO/video_head.yaml", flat)

    return make


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("score", ["additive", "dot"])
def test_a_head_learns_which_clips_tell_the_class(config, tmp_path, levels, score):
    cfg = config(LEVELS=levels, SCORE=score)
    torch.manual_seed(cfg.RNG_SEED)
    made = videos(120, 1, 3), videos(60, 2, 3)
    values = train_video_head(cfg, ClipHeadTraining(cfg.VIDEO_HEAD, *made, ["a", "b", "c"]))
    assert values["top1"] > 90
    head = load_video_head(tmp_path / "head", 12)
    assert head.levels == levels
    (tmp_path / "head" / "learning_curve.png").stat()
    with pytest.raises(CheckpointError, match="width 12"):
        load_video_head(tmp_path / "head", 48)


def test_a_head_of_two_levels_needs_frames(config):
    plain = [VideoFeatures(v.video, v.features, v.times, None, v.label) for v in videos(30, 1)]
    with pytest.raises(DataError, match="--frames"):
        ClipHeadTraining(config(LEVELS=2).VIDEO_HEAD, plain, plain, ["a", "b", "c"])


def test_a_file_that_is_no_head(tmp_path):
    torch.save({"model_state": {}}, tmp_path / "x.pyth")
    with pytest.raises(CheckpointError, match="no head"):
        load_video_head(tmp_path / "x.pyth", 12)
