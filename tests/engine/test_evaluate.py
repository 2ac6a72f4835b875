"""Multi-view scores against numbers small enough to work out on paper."""

import pytest
import torch

from videonet.config import load_config
from videonet.data import Batch, Failure
from videonet.data.targets import Targets
from videonet.devices import apply_to_clips
from videonet.engine.distributed import Process
from videonet.engine.evaluate import evaluate
from videonet.errors import DataError
from videonet.tasks.classification import Classification, ensemble_views

CFG = load_config(None, ["MODEL.NAME", "mvit_v2_xs", "MODEL.NUM_CLASSES", "2"])
TASK = Classification(CFG, ["0", "1"])
CPU = Process(rank=0, world_size=1, device=torch.device("cpu"))
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


class Brightness(torch.nn.Module):
    """Logits (0, ln(255 * mean of the clip)): class 1 gets the odds that the pixels say."""

    def forward(self, clips):
        odds = (clips.mean(dim=(1, 2, 3, 4)) * 255).log()
        return torch.stack((torch.zeros_like(odds), odds), dim=1)


def clips(*values):
    return torch.stack([torch.full((3, 2, 4, 4), v, dtype=torch.uint8) for v in values])


def batch(videos, labels, values, failures=()):
    targets = Targets({"labels": torch.tensor(labels)})
    return Batch(clips(*values), targets, torch.tensor(videos), list(failures))


def test_ways_to_average_views():
    logits = torch.log(torch.tensor([[1.0, 3.0], [3.0, 1.0], [1.0, 1.0]]))
    torch.testing.assert_close(ensemble_views(logits, "softmax"), torch.tensor([0.5, 0.5]))
    logits = torch.log(torch.tensor([[1.0, 9.0], [1.0, 1.0]]))
    torch.testing.assert_close(ensemble_views(logits, "softmax"), torch.tensor([0.3, 0.7]))
    torch.testing.assert_close(ensemble_views(logits, "logits"), torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(ensemble_views(logits, "max"), torch.tensor([0.5, 0.9]))


def test_two_videos_with_two_views_by_hand():
    # Video 4: odds 3 and 1, so class 1 has (3/4 + 1/2) / 2 = 5/8. Video 1: odds 1 and 9: 7/10.
    loader = [batch([4, 4], [0, 0], [3, 1]), batch([1, 1], [1, 1], [1, 9])]
    result = evaluate(Brightness(), loader, CPU, TASK, max_clips=8, **PLAIN)
    assert result.videos.tolist() == [1, 4]
    torch.testing.assert_close(result.scores[:, 1], torch.tensor([0.7, 0.625]))
    assert result.accuracy() == 0.5
    assert result.accuracy(5) == 1.0
    assert result.confusion().tolist() == [[0, 1], [0, 1]]
    expected = -(torch.tensor(0.7).log() + torch.tensor(0.375).log()) / 2
    assert result.loss() == pytest.approx(expected.item())


def test_the_number_of_clips_at_a_time_does_not_matter():
    model, many = Brightness(), clips(1, 2, 3, 4, 5)
    found = [
        apply_to_clips(model, many, device=CPU.device, max_clips=n, **PLAIN)[0]
        for n in (1, 2, 5, 9)
    ]
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_failures_are_listed_and_do_not_count():
    empty = Batch(
        torch.empty(0),
        Targets({"labels": torch.empty(0).long()}),
        torch.empty(0).long(),
        [Failure(2, "b.mp4", "broken")],
    )
    loader = [batch([0], [1], [9], [Failure(1, "a.mp4", "empty")]), empty]
    result = evaluate(Brightness(), loader, CPU, TASK, max_clips=8, **PLAIN)
    assert len(result.videos) == 1 and result.accuracy() == 1.0
    assert [f.path for f in result.failures] == ["a.mp4", "b.mp4"]
    with pytest.raises(DataError, match="none of the 1 videos could be read.*b.mp4: broken"):
        evaluate(Brightness(), [empty], CPU, TASK, max_clips=8, **PLAIN)


def test_videos_with_several_labels_by_hand():
    labels = [[1.0, 1.0], [0.0, 1.0]]
    loader = [batch([0, 1], labels, [1, 3])]
    result = evaluate(Brightness(), loader, CPU, TASK, max_clips=8, **PLAIN)
    # Logits (0, ln 1) and (0, ln 3): each class gets the sigmoid of its own.
    torch.testing.assert_close(result.scores, torch.tensor([[0.5, 0.5], [0.5, 0.75]]))
    assert result.labels.tolist() == labels
