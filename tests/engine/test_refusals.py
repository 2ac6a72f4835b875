"""Evaluations of which too little could be read, and how often that is looked at."""

import json

import numpy as np
import pytest
import torch

from videonet.checkpoint.checkpoint_dir import saved_checkpoints
from videonet.data.loading.dataset import Batch, Failure
from videonet.data.loading.loader import VideoLoader
from videonet.data.targets import Targets
from videonet.engine.distributed import Process
from videonet.engine.multiview import refuse_few_videos
from videonet.engine.train import Trainer
from videonet.errors import DataError, exit_code
from videonet.tasks import class_scores
from videonet.tasks.class_scores import ClassScores

CPU = Process(rank=0, world_size=1, device=torch.device("cpu"))


def evaluation(read: int, failed: int) -> ClassScores:
    failures = [Failure(read + k, f"{k}.mp4", f"cannot read {k}.mp4: no") for k in range(failed)]
    labels = torch.zeros(read, dtype=torch.long)
    return ClassScores(torch.arange(read), labels, torch.full((read, 2), 0.5), failures)


def test_a_test_of_one_video_in_ten_has_no_result(tiny, tmp_path):
    cfg = tiny()
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "results.json").write_text("of an earlier test")
    said = "9 of 10 videos cannot be read, more than TEST.MAX_BAD_SHARE = 0.1 .*cannot read 0.mp4"
    with pytest.raises(DataError, match=said):
        refuse_few_videos(cfg, evaluation(1, 9), "val.csv", CPU)
    assert not (folder / "results.json").exists()
    assert len((folder / "failed.csv").read_text().splitlines()) == 10
    refuse_few_videos(cfg, evaluation(9, 1), "val.csv", CPU)
    refuse_few_videos(tiny("TEST.MAX_BAD_SHARE", 0.9), evaluation(1, 9), "val.csv", CPU)
    with pytest.raises(DataError):
        refuse_few_videos(tiny("TEST.MAX_BAD_SHARE", 0), evaluation(99, 1), "val.csv", CPU)


def test_a_validation_of_few_videos_is_a_warning(tiny, tmp_path, demo_folder, caplog):
    lines = (demo_folder / "val.csv").read_text().splitlines()
    (tmp_path / "bad.mp4").write_text("no video")
    paths = [f"{demo_folder}/{lines[0]}", *(f"{tmp_path}/bad.mp4 {k}" for k in range(3))]
    (tmp_path / "val.csv").write_text("".join(f"{line}\n" for line in paths))
    cfg = tiny("DATA.VAL_LIST", tmp_path / "val.csv", "SOLVER.MAX_EPOCH", 1, "TEST.ENABLE", False,
               "SOLVER.WARMUP_EPOCHS", 0)  # fmt: skip
    Trainer(cfg, CPU).run()
    assert "3 of 4 validation videos cannot be read" in caplog.text
    records = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    (record,) = (record for record in records if record["kind"] == "val")
    assert (record["videos"], record["failed"]) == (1, 3)
    assert len(saved_checkpoints(tmp_path / "run")) == 1


def test_exit_codes():
    assert [exit_code(failed, 10) for failed in (0, 1, 9, 10)] == [0, 3, 3, 1]


class Counted:
    """What a loader needs of a data set of so many videos."""

    def __init__(self, videos: int):
        self.name, self.replace, self.paths = "train.csv", True, [str(k) for k in range(videos)]
        self.bad = {}

    def __len__(self) -> int:
        return len(self.paths)


def test_failures_are_counted_once_each():
    videos, total = 3000, 0

    class Bad(dict):
        def __iter__(self):
            nonlocal total
            total += len(self)
            return super().__iter__()

        keys = __iter__

    dataset = Counted(videos)
    dataset.bad = Bad()
    loader = VideoLoader(dataset, sampler=None, max_bad_share=0.5)
    empty = torch.zeros(0)
    for k in range(videos // 2):
        dataset.bad[k] = "no"
        loader._note_failures(Batch(empty, Targets({}), empty, [Failure(k, str(k), "no")]))
    assert total < 10 * videos
    with pytest.raises(DataError, match="1501 of 3000 videos"):
        loader._note_failures(Batch(empty, Targets({}), empty, [Failure(2999, "2999", "no")]))


def test_large_evaluations_hold_their_scores_once(tmp_path):
    """Figures of merit of parts of the scores are those of all at once."""
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.random((300, 70), dtype=np.float32)).softmax(dim=1)
    labels = torch.from_numpy(rng.integers(0, 70, 300))
    whole = ClassScores(torch.arange(300), labels, scores).measures()
    part, class_scores.PART = class_scores.PART, 100
    try:
        assert ClassScores(torch.arange(300), labels, scores).measures() == pytest.approx(whole)
    finally:
        class_scores.PART = part
    pairs = ClassScores(torch.arange(300), labels, scores)
    dense = torch.zeros(70, 70, dtype=torch.long)
    for true, guess, count in pairs.confused().tolist():
        dense[true, guess] = count
    assert torch.equal(dense, pairs.confusion())
