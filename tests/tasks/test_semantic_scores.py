"""Mean IoU of label maps by hand."""

import math

import pytest
import torch

from videonet.errors import DataError
from videonet.tasks.semantic_scores import SemanticScores, confusion


def test_figures_by_hand():
    labels = torch.tensor([[0, 0, 1], [1, 255, 1]])
    predicted = torch.tensor([[0, 1, 1], [1, 0, 0]])
    counts = confusion(predicted, labels, 3)
    assert counts.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    found = SemanticScores(counts)
    assert found.iou()[:2].tolist() == [1 / 3, 2 / 4] and math.isnan(found.iou()[2])
    expected = {"mIoU": (1 / 3 + 1 / 2) / 2, "mAcc": (1 / 2 + 2 / 3) / 2, "aAcc": 3 / 5}
    assert found.stats() == pytest.approx(expected)


def test_images_are_added_up_before_dividing():
    labels, predicted = torch.randint(4, (5, 9, 7)), torch.randint(4, (5, 9, 7))
    parts = [confusion(p, q, 4) for p, q in zip(predicted, labels, strict=True)]
    whole = confusion(predicted, labels, 4)
    assert torch.equal(SemanticScores.of(parts).confusion, whole)
    for k in range(4):
        both = ((predicted == k) & (labels == k)).sum()
        either = ((predicted == k) | (labels == k)).sum()
        assert SemanticScores(whole).iou()[k] == pytest.approx((both / either).item())


def test_a_predicted_class_that_does_not_occur_counts():
    """A union without an intersection is an IoU of 0, as in mmsegmentation."""
    found = SemanticScores(confusion(torch.tensor([2, 0]), torch.tensor([0, 0]), 3))
    assert found.iou()[[0, 2]].tolist() == [0.5, 0.0]
    assert found.stats()["mIoU"] == 0.25


def test_wrong_labels_are_named():
    with pytest.raises(DataError, match="the label 7 is outside 0 … 2"):
        confusion(torch.tensor([0]), torch.tensor([7]), 3)
    with pytest.raises(DataError, match="the predicted class -1 is"):
        confusion(torch.tensor([-1]), torch.tensor([1]), 3)
    with pytest.raises(DataError, match=r"shape \(1,\) for labels of shape \(2,\)"):
        confusion(torch.tensor([0]), torch.tensor([0, 1]), 3)
