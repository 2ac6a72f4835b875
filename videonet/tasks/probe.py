"""How well frozen features tell classes apart: a linear probe, and nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from videonet.data.feature_store import VideoFeatures, labels_of

TEMPERATURE = 0.07  # of the votes of neighbours


def probe(
    train: Sequence[VideoFeatures],
    val: Sequence[VideoFeatures],
    num_classes: int,
    *,
    neighbours: int = 20,
    l2: float = 1e-3,
) -> dict:
    """Top-1 accuracy of a linear probe and of nearest neighbours; a video is the mean of its clips.

    Args:
        train: features with labels.
        val: features with labels.
        num_classes: K.
        neighbours: the number of training videos that vote.
        l2: see :func:`linear_probe`.

    Returns:
        Percent on `val` as ``linear`` and ``knn``, and the numbers of videos.

    Raises:
        DataError: videos without labels.
    """
    x, y = _videos(train, num_classes)
    test_x, test_y = _videos(val, num_classes)
    linear = linear_probe(x, y, test_x, num_classes, l2=l2).argmax(dim=1)
    near = nearest_neighbours(x, y, test_x, num_classes, neighbours=neighbours).argmax(dim=1)
    return {
        "linear": round(100 * (linear == test_y).float().mean().item(), 3),
        "knn": round(100 * (near == test_y).float().mean().item(), 3),
        "neighbours": min(neighbours, len(x)),
        "train_videos": len(x),
        "val_videos": len(test_x),
    }


def linear_probe(
    x: Tensor, y: Tensor, test_x: Tensor, num_classes: int, *, l2: float = 1e-3, steps: int = 200
) -> Tensor:
    """Logits (M, K) of :func:`fit_linear` on `test_x` (M, C); the other arguments are its own."""
    weight, bias = fit_linear(x, y, num_classes, l2=l2, steps=steps)
    return F.linear(test_x, weight, bias)


def fit_linear(
    x: Tensor, y: Tensor, num_classes: int, *, l2: float = 1e-3, steps: int = 200
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression on standardised features.

    Args:
        x: (N, C) training features.
        y: (N,) their classes.
        num_classes: K.
        l2: factor on half the squared norm of the weights, beside the mean loss.
        steps: of L-BFGS.

    Returns:
        Weights (K, C) and biases (K,) for the features as they are.
    """
    # A single row has no spread.
    mean, std = x.mean(dim=0), x.std(dim=0, correction=min(1, len(x) - 1)).clamp_min(1e-6)
    x = (x - mean) / std
    weight = torch.zeros(num_classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(F.linear(x, weight, bias), y) + l2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(objective)
    weight = weight.detach() / std
    return weight, bias.detach() - weight @ mean


def nearest_neighbours(
    x: Tensor, y: Tensor, test_x: Tensor, num_classes: int, *, neighbours: int = 20
) -> Tensor:
    """Votes of the nearest training features by cosine, weighted by ``exp(cos / 0.07)``.

    As in Wu et al. 2018, arXiv 1805.01978, Sec. 3.4.

    Args:
        x: (N, C) training features.
        y: (N,) their classes.
        test_x: (M, C).
        num_classes: K.
        neighbours: the number of training features that vote.

    Returns:
        (M, K).
    """
    similarity = F.normalize(test_x, dim=1) @ F.normalize(x, dim=1).T  # (M, N)
    best = similarity.topk(min(neighbours, len(x)), dim=1)
    votes = torch.zeros(len(test_x), num_classes)
    return votes.scatter_add_(1, y[best.indices], (best.values / TEMPERATURE).exp())


def _videos(videos: Sequence[VideoFeatures], num_classes: int) -> tuple[Tensor, Tensor]:
    labels = torch.from_numpy(labels_of(list(videos), num_classes))
    return torch.stack([torch.from_numpy(v.features).mean(dim=0) for v in videos]), labels
