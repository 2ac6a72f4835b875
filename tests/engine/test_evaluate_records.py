"""Evaluation of tasks whose results differ in number from video to video."""

import threading
from types import SimpleNamespace

import pytest
import torch

from videonet.config import load_config
from videonet.data import Batch
from videonet.data.targets import Targets
from videonet.engine.distributed import Process
from videonet.engine.evaluate import evaluate
from videonet.errors import ScoreError, TrainingError
from videonet.tasks.task import RecordEvaluation, RecordTask

CFG = load_config(None, ["MODEL.NAME", "mvit_v2_xs", "MODEL.NUM_CLASSES", "2"])
CPU = torch.device("cpu")
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}


class Counts(RecordEvaluation):
    def measures(self):
        return {"boxes": float(sum(len(record["boxes"]) for record in self.records))}


class Boxes(RecordTask):
    """A clip has as many boxes as the value of its pixels; 9 is not finite."""

    evaluation = Counts

    def loss(self, outputs, targets):
        raise NotImplementedError

    def run(self, model, clips, targets):
        assert len(clips) == len(targets["number"]) <= 2 and torch.is_inference_mode_enabled()
        return [torch.full((count, 4), count) for count in model(clips).int().tolist()]

    def record(self, outputs, targets, annotation):
        boxes = torch.cat(outputs)
        if (boxes == 9).any():
            raise ScoreError("nine")
        return {"boxes": boxes, "truth": annotation, "numbers": targets["number"].tolist()}


class Mean(torch.nn.Module):
    def forward(self, clips):
        return clips.mean(dim=(1, 2, 3, 4)).round()


class Loader(list):
    """Batches, and the data set that they are of."""

    dataset = SimpleNamespace(
        annotations=SimpleNamespace(rows=[f"row {k}" for k in range(9)]),
        paths=[f"{k}.mp4" for k in range(9)],
    )


def batch(videos, values):
    clips = torch.stack([torch.full((3, 1, 4, 4), value, dtype=torch.uint8) for value in values])
    numbers = torch.tensor([10 * value for value in values])
    return Batch(clips, Targets({"number": numbers}), torch.tensor(videos))


def run(loader, process, **more):
    return evaluate(Mean(), loader, process, Boxes(CFG), max_clips=2, **PLAIN, **more)


def test_a_record_per_video_in_the_order_of_the_list():
    loader = Loader([batch([4, 4, 2], [1, 2, 0]), batch([7], [3])])
    found = run(loader, Process(0, 1, CPU))
    assert isinstance(found, Counts) and found.videos.tolist() == [2, 4, 7]
    assert [record["truth"] for record in found.records] == ["row 2", "row 4", "row 7"]
    assert [record["boxes"][:, 0].tolist() for record in found.records] == [[], [1, 2, 2], [3] * 3]
    assert found.records[1]["numbers"] == [10, 20]
    assert found.measures() == found.summary() == {"boxes": 6.0}
    assert isinstance(found.task, Boxes)


def test_outputs_that_are_not_finite_name_the_video():
    loader = Loader([batch([5, 1], [9, 1])])
    with pytest.raises(TrainingError, match=r"scores of 1 of 2 videos .* \(first 5.mp4\)"):
        run(loader, Process(0, 1, CPU))


class Among(Process):
    """One of two processes that are threads here."""

    def __init__(self, rank, meeting, values):
        super().__init__(rank, 2, CPU)
        object.__setattr__(self, "meeting", meeting)
        object.__setattr__(self, "values", values)

    def gather(self, value):
        self.values[self.rank] = value
        self.meeting.wait(20)
        everything = list(self.values)
        self.meeting.wait(20)
        return everything


@pytest.mark.parametrize("limit", [1, 2, 256])
def test_processes_exchange_their_records(monkeypatch, limit):
    monkeypatch.setattr("videonet.engine.evaluate.RECORDS", limit)
    parts = [
        Loader([batch([0, 3], [1, 2]), batch([1], [0]), batch([8, 6], [4, 1])]),
        Loader([batch([2, 5], [3, 3])]),
    ]
    alone = run(Loader([one for part in parts for one in part]), Process(0, 1, CPU))
    meeting, values, found = threading.Barrier(2), [None, None], [None, None]

    def one(rank):
        found[rank] = run(parts[rank], Among(rank, meeting, values))

    threads = [threading.Thread(target=one, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in found:
        assert result.videos.tolist() == alone.videos.tolist() == [0, 1, 2, 3, 5, 6, 8]
        for mine, other in zip(result.records, alone.records, strict=True):
            assert torch.equal(mine["boxes"], other["boxes"])
            assert (mine["truth"], mine["numbers"]) == (other["truth"], other["numbers"])
