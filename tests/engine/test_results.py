"""Tables, pictures and figures of merit of an evaluation small enough to compute by hand."""

import csv
import json

import numpy as np
import pytest
import torch

from videonet.config import load_config
from videonet.data import Failure
from videonet.engine.results import dataset_fingerprint, write_results
from videonet.tasks.class_scores import BINS, ClassScores
from videonet.tasks.classification import Classification, ensemble_views

# Three classes, the last without a video; two of three videos are recognised.
SCORES = torch.tensor([[0.9, 0.06, 0.04], [0.55, 0.35, 0.1], [0.2, 0.7, 0.1]])
SINGLE = ClassScores(
    torch.tensor([0, 2, 3]), torch.tensor([0, 1, 1]), SCORES, [Failure(1, "b.mp4", "cut short")]
)
# Two classes over four videos; class 2 has no video.
SEVERAL = ClassScores(
    torch.arange(4),
    torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]]).float(),
    torch.tensor([[0.9, 0.1, 0.3], [0.8, 0.9, 0.3], [0.7, 0.4, 0.3], [0.1, 0.8, 0.3]]),
)


def task(*names):
    cfg = load_config(None, ["MODEL.NAME", "mvit_v2_xs", "MODEL.NUM_CLASSES", str(len(names))])
    return Classification(cfg, names)


def table(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def single(tmp_path):
    written = write_results(
        tmp_path,
        SINGLE,
        task("up", "down", "left"),
        paths=["a.mp4", "b.mp4", "c, d.mp4", "e.mp4"],
        details={"fingerprint": "list 0"},
    )
    assert written == json.loads((tmp_path / "results.json").read_text())
    return tmp_path, written


def test_summary(single):
    _, results = single
    assert results["top1"] == 66.667 and results["top5"] == 100.0 and results["videos"] == 3
    assert results["mean_class_accuracy"] == 75.0  # (1 + 1/2) / 2, without the empty class
    expected = -(np.log(0.9) + np.log(0.35) + np.log(0.7)) / 3
    assert results["loss"] == pytest.approx(expected, abs=1e-6)
    # One video a bin: |1 - 0.9|, |0 - 0.55| and |1 - 0.7|, a third each.
    assert results["calibration_error"] == pytest.approx(100 * 0.95 / 3, abs=1e-3)
    assert results["failed"] == ["b.mp4: cut short"] and results["fingerprint"] == "list 0"


def test_tables(single):
    folder, _ = single
    assert table(folder / "scores.csv") == [
        ["path", "label", "up", "down", "left"],
        ["a.mp4", "up", "0.9", "0.06", "0.04"],
        ["c, d.mp4", "down", "0.55", "0.35", "0.1"],
        ["e.mp4", "down", "0.2", "0.7", "0.1"],
    ]
    assert table(folder / "per_class.csv")[1:] == [
        ["up", "1", "1", "1.000000"], ["down", "2", "1", "0.500000"], ["left", "0", "0", ""],
    ]  # fmt: skip
    assert table(folder / "confusion.csv")[1:] == [
        ["up", "1", "0", "0"], ["down", "1", "1", "0"], ["left", "0", "0", "0"],
    ]  # fmt: skip
    assert table(folder / "predictions.csv")[2] == [
        *("c, d.mp4", "down", "up", "0.550000", "0.350000"),
    ]
    assert table(folder / "failed.csv") == [["path", "reason"], ["b.mp4", "cut short"]]
    for name in ("confusion.png", "reliability.png"):
        assert (folder / name).stat().st_size > 0


def test_reliability_gives_the_calibration_error():
    scores, accuracy, counts = SINGLE.reliability()
    filled = counts > 0
    assert len(counts) == BINS and filled.sum() == 3 and counts.sum() == 3
    gaps = (scores - accuracy)[filled].abs() * counts[filled] / 3
    assert gaps.sum().item() == pytest.approx(SINGLE.calibration_error(), abs=1e-6)


def test_average_precision_of_several_labels_by_hand():
    # Class 0: videos 0 and 2, ranked 1st and 3rd: (1/1 + 2/3) / 2. Class 1: 1st, 2nd, 3rd: 1.
    assert SEVERAL.multi_label
    found = SEVERAL.average_precision()
    torch.testing.assert_close(found[:2], torch.tensor([5 / 6, 1.0]))
    assert found[2].isnan()
    assert SEVERAL.mean_average_precision() == pytest.approx(11 / 12)
    scores, labels = SEVERAL.scores.double(), SEVERAL.labels.double()
    expected = -(labels * scores.log() + (1 - labels) * (1 - scores).log()).mean().item()
    assert SEVERAL.measures() == pytest.approx({"loss": expected, "mAP": 1100 / 12})


def test_files_of_several_labels(tmp_path):
    names = ["run", "jump", "fly"]
    results = write_results(tmp_path, SEVERAL, task(*names), paths=list("abcd"), details={})
    assert results["mAP"] == 91.667 and "top1" not in results
    assert table(tmp_path / "scores.csv")[3][:2] == ["c", "run; jump"]
    assert table(tmp_path / "per_class.csv")[1:] == [
        ["run", "2", "0.833333"], ["jump", "3", "1.000000"], ["fly", "0", ""],
    ]  # fmt: skip
    assert not (tmp_path / "confusion.csv").exists()


def test_several_labels_have_a_probability_each():
    logits = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    found = ensemble_views(logits, multi_label=True)
    torch.testing.assert_close(found, torch.tensor([0.5, (torch.tensor(2.0).sigmoid() + 0.5) / 2]))
    found = ensemble_views(logits, "logits", multi_label=True)
    torch.testing.assert_close(found, torch.tensor([0.5, torch.tensor(1.0).sigmoid()]))


class Data:
    def __init__(self, folder, paths, labels):
        self.name, self.paths, self.labels = f"{folder}/val.csv", paths, labels


def test_a_fingerprint_knows_list_and_labels_but_not_where_they_lie():
    first = dataset_fingerprint(Data("/a", ["/a/x.mp4", "/a/y.mp4"], np.array([0, 1])))
    assert first == dataset_fingerprint(Data("/b", ["/b/x.mp4", "/b/y.mp4"], np.array([0, 1])))
    assert first != dataset_fingerprint(Data("/a", ["/a/x.mp4", "/a/y.mp4"], np.array([1, 1])))
    assert first != dataset_fingerprint(Data("/a", ["/a/x.mp4", "/a/z.mp4"], np.array([0, 1])))
    several = Data("/a", ["/a/x.mp4"], [np.array([0.0, 1.0])])
    assert dataset_fingerprint(several).startswith("list ")
