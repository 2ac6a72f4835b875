"""Small runs from end to end: what they leave, and that a resumed one is the same."""

import json
import shutil

import pytest
import torch

from videonet.checkpoint import read_checkpoint
from videonet.checkpoint.checkpoint_dir import saved_checkpoints
from videonet.engine.distributed import process
from videonet.engine.metric_logger import read_log
from videonet.engine.multiview import checkpoint_to_test, run_multiview_test
from videonet.engine.train import Trainer
from videonet.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    TrainingError,
    VideonetError,
)


@pytest.fixture(autouse=True)
def pictures():
    """They are painted."""


def train(cfg):
    with process("cpu") as this:
        trainer = Trainer(cfg, this)
        trainer.run()
    return trainer


def test_run_leaves_checkpoints_records_pictures_and_results(tiny, tmp_path):
    cfg = tiny("TRAIN.KEEP_CHECKPOINTS", 2)
    train(cfg)
    run = tmp_path / "run"
    names = [path.name for path in saved_checkpoints(run)]
    assert names == ["checkpoint_epoch_00002.pyth", "checkpoint_epoch_00003.pyth"]
    records = read_log(run / "log.jsonl")
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 13))
    assert [r["epoch"] for r in records if r["kind"] == "val"] == [1, 2, 3]
    with process("cpu") as this:
        results = run_multiview_test(cfg, this)
    assert results["videos"] == 10 and results["views"] == "3 x 1"
    assert results["checkpoint"].endswith("checkpoint_epoch_00003.pyth")
    assert json.loads((run / "results.json").read_text()) == results
    for name in ("config.yaml", "learning_curve.png", "confusion.png", "predictions.csv"):
        assert (run / name).stat().st_size > 0, name
    assert list((run / "tensorboard").iterdir())


def test_repeated_augmentation_and_activation_checkpoints_run(tiny):
    trainer = train(tiny("AUG.NUM_SAMPLE", 2, "MODEL.ACT_CHECKPOINT", True, "SOLVER.MAX_EPOCH", 2))
    assert trainer.position.step == 8


def test_state_of_another_model_is_refused_and_left_alone(tiny, tmp_path):
    train(tiny("SOLVER.MAX_EPOCH", 2))
    before = [path.read_bytes() for path in saved_checkpoints(tmp_path / "run")]
    with pytest.raises(
        CheckpointError, match=r"belongs to another model \(.* is .* there and .* here\)"
    ):
        train(tiny("MODEL.NAME", "mvit_v2_t"))
    assert [path.read_bytes() for path in saved_checkpoints(tmp_path / "run")] == before


def test_loss_that_is_not_finite_stops_and_names_the_videos(tiny, tmp_path):
    with process("cpu") as this:
        trainer = Trainer(tiny(), this)
        with torch.no_grad():
            trainer.model.head.projection.bias.fill_(float("nan"))
        with pytest.raises(TrainingError, match=r"the loss is nan in step 1 .*good.*none.*\.mp4"):
            trainer.run()
    assert saved_checkpoints(tmp_path / "run") == []


def test_damaged_video_stops_the_run_beyond_the_allowed_share(tiny, demo_folder, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_text("this is no video")
    good = [line for line in (demo_folder / "train.csv").read_text().splitlines() if line][:19]
    listed = [f"{demo_folder}/{line}" for line in good] + [f"{broken} 0"]
    (tmp_path / "train.csv").write_text("\n".join(listed) + "\n")
    lists = ("DATA.TRAIN_LIST", tmp_path / "train.csv", "TRAIN.EVAL_PERIOD", 0)
    with pytest.raises(DataError, match="broken.mp4"):
        train(tiny(*lists, "DATA.MAX_BAD_SHARE", 0.01))
    assert train(tiny(*lists, "DATA.MAX_BAD_SHARE", 0.1)).position.step == 12


def test_nothing_to_test_is_said(tiny):
    with pytest.raises(ConfigError, match="nothing to test"):
        checkpoint_to_test(tiny())


def test_a_validation_that_reads_nothing_costs_no_epoch(tiny, demo_folder, tmp_path):
    """Each attempt gets an epoch further."""
    data = shutil.copytree(demo_folder, tmp_path / "data")
    cfg = tiny("DATA.PATH_TO_DATA_DIR", data, "TEST.ENABLE", False)
    videos = [data / line.rsplit(" ", 1)[0] for line in (data / "val.csv").read_text().splitlines()]
    kept = {path: path.read_bytes() for path in videos if path.suffix == ".mp4"}
    assert len(kept) >= 10
    for epoch in (1, 2):
        with process("cpu") as this:
            trainer = Trainer(cfg, this)
            for path in kept:
                path.write_text("this is no video")
            with pytest.raises(DataError, match="none of the 10 videos could be read"):
                trainer.run()
        assert read_checkpoint(saved_checkpoints(cfg.OUTPUT_DIR)[-1])["epoch"] == epoch
        for path, content in kept.items():
            path.write_bytes(content)
    assert train(cfg).position.epoch == 3


def test_scores_that_are_not_finite_are_one_sentence(tiny, tmp_path):
    cfg = tiny("SOLVER.MAX_EPOCH", 1)
    train(cfg)
    (path,) = saved_checkpoints(tmp_path / "run")
    content = read_checkpoint(path)
    for state in (content["model_state"], content["ema_state"]):
        for name in state:
            if name.endswith("projection.bias"):
                state[name].fill_(float("nan"))
    torch.save(content, path)
    with process("cpu") as this, pytest.raises(VideonetError, match="not finite"):
        run_multiview_test(cfg, this)
    assert not (tmp_path / "run" / "results.json").exists()
