"""Classifiers on frozen features: each kind with its settings chosen on held-out training videos.

The settings of the attentive classifier are trained side by side, once for every part of the
training videos that is held out; the best are then trained on all of them.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor

from videonet.engine.stacked import StackedAdamW, StackedProbes
from videonet.errors import ConfigError
from videonet.heads.attentive import AttentiveProbe
from videonet.heads.statistics import TokenStatistics
from videonet.tasks.probe import fit_linear, nearest_neighbours
from videonet.terminal import ShortRepr, progress_bar

logger = logging.getLogger(__name__)

EVALUATED = 32  # clips at a time


@dataclass(frozen=True, repr=False)
class FrozenVideos(ShortRepr):
    """Frozen features of labelled videos.

    Attributes:
        labels: (V,) int64.
        vectors: what the backbone's own head reads, for every pass over the videos (V, clips, C);
            the first pass has the views of testing.
        tokens: all tokens, for every pass (V, clips, N, C') in half precision; empty where no
            classifier reads them.
    """

    labels: Tensor
    vectors: Sequence[Tensor]
    tokens: Sequence[Tensor] = ()

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, repr=False)
class Probed(ShortRepr):
    """A classifier on frozen features.

    Attributes:
        method: attentive, statistics, linear or knn.
        chosen: its settings.
        tried: every setting with its accuracy in percent on the videos that were held out.
        held_out: that of the chosen one.
        judged: (V', K) probabilities of the training videos by the chosen one, each by a classifier
            that was trained without its part.
        scores: (V, K) probabilities, or votes, of the validation videos.
        accuracy: in percent on these; not a number where there are none.
        state: of the head, by its names; None where a classifier is no head.
        head: arguments of a head that reads all tokens.
    """

    method: str
    chosen: dict[str, Any]
    tried: list[dict[str, Any]]
    held_out: float
    judged: Tensor
    scores: Tensor
    accuracy: float
    state: dict[str, Tensor] | None = None
    head: Mapping[str, Any] = field(default_factory=dict)


def probe_linear(
    train: FrozenVideos, val: FrozenVideos, folds: np.ndarray, num_classes: int, options: CfgNode
) -> Probed:
    """Logistic regression on the mean vector of a video; augmented passes are further videos.

    Args:
        train: features of the training videos.
        val: features of the validation videos.
        folds: the part (V,) that each training video is held out with.
        num_classes: K.
        options: ``PROBE``.
    """
    means = [vectors.mean(dim=1) for vectors in train.vectors]

    def fitted(chosen: Tensor, l2: float) -> tuple[Tensor, Tensor]:
        x = torch.cat([mean[chosen] for mean in means])
        y = train.labels[chosen].repeat(len(means))
        return fit_linear(x, y, num_classes, l2=l2)

    def scores_of(chosen: Tensor, held: Tensor, l2: float) -> Tensor:
        return F.linear(means[0][held], *fitted(chosen, l2))

    found = [
        ({"l2": l2}, _out_of_fold(train.labels, folds, num_classes, scores_of, l2))
        for l2 in options.L2
    ]
    chosen, tried, held_out, judged = _best(found, train.labels)
    weight, bias = fitted(torch.arange(len(train)), chosen["l2"])
    scores = F.linear(val.vectors[0], weight, bias).softmax(dim=-1).mean(dim=1)
    state = {"projection.weight": weight, "projection.bias": bias}
    accuracy = _accuracy(scores, val.labels)
    judged = judged.softmax(dim=1)
    return Probed("linear", chosen, tried, held_out, judged, scores, accuracy, state)


def probe_statistics(
    train: FrozenVideos,
    val: FrozenVideos,
    folds: np.ndarray,
    num_classes: int,
    options: CfgNode,
    head: dict[str, Any],
) -> Probed:
    """Logistic regression on the statistics of all tokens; see :func:`probe_linear`.

    Args:
        train, val, folds, num_classes, options: as there; ``REGIONS`` are tried too.
        head: further arguments of :class:`videonet.heads.statistics.TokenStatistics`.

    Raises:
        ConfigError: none of ``REGIONS`` fits the grid of the tokens.
    """
    cells = train.tokens[0].shape[2] - head.get("num_prefix_tokens", 0)
    places, found = cells // head.get("frames", 1), list[Probed]()
    for regions in options.REGIONS:
        # In a single frame nothing changes, and other frames than square ones have no regions.
        if regions > 1 and (cells == places or math.isqrt(places) ** 2 != places):
            continue
        arguments = {**head, "regions": regions}
        statistics = TokenStatistics(train.tokens[0].shape[-1], **arguments)
        videos = (described(train, statistics), described(val, statistics))
        one = probe_linear(*videos, folds, num_classes, options)
        tried = [{"regions": regions} | row for row in one.tried]
        chosen = {"regions": regions} | one.chosen
        found.append(replace(one, method="statistics", chosen=chosen, tried=tried, head=arguments))
    if not found:
        raise ConfigError(
            f"PROBE.REGIONS is {list(options.REGIONS)}, expected 1 among them: the tokens are "
            "those of a single frame, or of frames that are not square"
        )
    rows = [next(row for row in one.tried if row.items() >= one.chosen.items()) for one in found]
    best = found[surest(rows, len(train))]
    return replace(best, tried=[row for one in found for row in one.tried])


def described(videos: FrozenVideos, statistics: TokenStatistics) -> FrozenVideos:
    """Videos with the statistics of their tokens as vectors (V, clips, width), for every pass."""
    vectors = []
    for tokens in videos.tokens:
        rows = [statistics(clips) for clips in tokens]
        empty = tokens.new_zeros(0, 1, statistics.width, dtype=torch.float32)
        vectors.append(torch.stack(rows) if rows else empty)
    return FrozenVideos(videos.labels, vectors)


def probe_neighbours(
    train: FrozenVideos, val: FrozenVideos, folds: np.ndarray, num_classes: int, options: CfgNode
) -> Probed:
    """Votes of the nearest training videos by the mean vector; see :func:`probe_linear`."""
    x, test = train.vectors[0].mean(dim=1), val.vectors[0].mean(dim=1)

    def scores_of(chosen: Tensor, held: Tensor, count: int) -> Tensor:
        votes = nearest_neighbours(
            x[chosen], train.labels[chosen], x[held], num_classes, neighbours=count
        )
        return (votes / votes.sum(dim=1, keepdim=True)).clamp_min(1e-12).log()

    found = [
        ({"neighbours": k}, _out_of_fold(train.labels, folds, num_classes, scores_of, k))
        for k in options.NEIGHBOURS
    ]
    chosen, tried, held_out, judged = _best(found, train.labels)
    judged = judged.softmax(dim=1)  # of logarithms of shares of the votes
    scores = nearest_neighbours(x, train.labels, test, num_classes, **chosen)
    return Probed("knn", chosen, tried, held_out, judged, scores, _accuracy(scores, val.labels))


def probe_attentive(
    train: FrozenVideos,
    val: FrozenVideos,
    folds: np.ndarray,
    num_classes: int,
    cfg: CfgNode,
    head: dict[str, Any],
    *,
    progress: bool = True,
) -> Probed:
    """A classifier whose learned queries read all tokens; see :func:`probe_linear`.

    Args:
        train, val, folds, num_classes: as there.
        cfg: the configuration: ``PROBE``, ``SOLVER``, ``TRAIN.BATCH_SIZE``, ``RNG_SEED``.
        head: arguments of :class:`videonet.heads.attentive.AttentivePooler`.
        progress: show a progress bar.
    """
    options = cfg.PROBE
    torch.manual_seed(cfg.RNG_SEED)
    width = train.tokens[0].shape[-1]
    probe = AttentiveProbe(width, num_classes, dropout=options.DROPOUT, **head)
    settings = list(itertools.product(options.RATES, options.DECAYS))
    parts = range(int(folds.max()) + 1)
    trained = [(rate, decay, part) for rate, decay in settings for part in parts]
    stacked = train_stacked(probe, train, folds, trained, cfg, progress=progress)
    outputs = torch.empty(len(settings), len(train), num_classes)
    for part in parts:
        held = torch.from_numpy(np.flatnonzero(folds == part))
        mine = torch.arange(len(settings)) * len(parts) + part
        outputs[:, held] = _probabilities(stacked, train.tokens[0][held])[mine]
    found = [
        ({"rate": rate, "decay": decay}, outputs[number].clamp_min(1e-12).log())
        for number, (rate, decay) in enumerate(settings)
    ]
    chosen, tried, held_out, judged = _best(found, train.labels)
    judged = judged.softmax(dim=1)  # of logarithms of probabilities
    torch.manual_seed(cfg.RNG_SEED)
    last = [(chosen["rate"], chosen["decay"], -1)]
    final = train_stacked(probe, train, folds, last, cfg, progress=progress)
    scores = _probabilities(final, val.tokens[0])[0]
    probe.load_state_dict(final.state(0))
    accuracy = _accuracy(scores, val.labels)
    state = probe.head_state()
    return Probed("attentive", chosen, tried, held_out, judged, scores, accuracy, state, head)


def train_stacked(
    probe: AttentiveProbe,
    train: FrozenVideos,
    folds: np.ndarray,
    trained: Sequence[tuple[float, float, int]],
    cfg: CfgNode,
    *,
    progress: bool = True,
) -> StackedProbes:
    """Train copies of a probe in one pass over the features.

    In an epoch every video gives one clip, drawn from all passes; all copies see the same clips.

    Args:
        probe: its parameters are the first ones of all copies.
        train: features of the training videos.
        folds: the part (V,) of each video.
        trained: learning rate, weight decay and held-out part of each copy; -1 to hold out none.
        cfg: ``SOLVER.MAX_EPOCH``, ``WARMUP_EPOCHS``, ``TRAIN.BATCH_SIZE``.
        progress: show a progress bar.
    """
    rates, decays, parts = zip(*trained, strict=True)
    copies = StackedProbes(probe, len(trained))
    copies.train()
    optimizer = StackedAdamW(copies.parameters, rates, decays, probe.no_weight_decay())
    uses = torch.tensor(parts).unsqueeze(1) != torch.from_numpy(folds)  # (H, V)
    batches = max(1, math.ceil(len(train) / cfg.TRAIN.BATCH_SIZE))
    epochs, warm_up = cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.WARMUP_EPOCHS
    title = f"{len(trained)} classifiers"
    bar = progress_bar(show=progress, total=epochs * batches, desc=title, unit="steps")
    for epoch in range(epochs):
        for index, chosen in enumerate(torch.randperm(len(train)).tensor_split(batches)):
            at = epoch + index / batches
            tokens = _draw(train.tokens, chosen)  # (B, N, C)
            logits = copies(tokens)  # (H, B, K)
            labels = train.labels[chosen].expand(len(trained), -1)
            losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
            used = uses[:, chosen]
            loss = (losses * used).sum(dim=1) / used.sum(dim=1).clamp_min(1)
            loss.sum().backward()
            optimizer.step(_schedule(at, warm_up, epochs))
            bar.update()
        bar.set_postfix(loss=f"{loss.min().item():.3f}")
    bar.close()
    copies.train(False)
    return copies


def _schedule(at: float, warm_up: float, epochs: float) -> float:
    """The factor on the learning rates: a line up, then half a cosine down to zero."""
    if at < warm_up:
        return (at + 1e-3) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (at - warm_up) / max(epochs - warm_up, 1e-9)))


def _draw(passes: Sequence[Tensor], chosen: Tensor) -> Tensor:
    """A clip of each chosen video, of any pass, (B, N, C)."""
    which = torch.randint(len(passes), (len(chosen),)).tolist()
    return torch.stack(
        [
            passes[number][video, int(torch.randint(passes[number].shape[1], ()))]
            for number, video in zip(which, chosen.tolist(), strict=True)
        ]
    ).float()


@torch.no_grad()
def _probabilities(copies: StackedProbes, tokens: Tensor) -> Tensor:
    """Mean probabilities over the clips of videos, (V, clips, N, C) -> (H, V, K)."""
    videos, clips = tokens.shape[:2]
    parts = [copies(part.float()) for part in tokens.flatten(0, 1).split(EVALUATED)]
    scores = torch.cat(parts, dim=1).softmax(dim=2)  # (H, V * clips, K)
    return scores.unflatten(1, (videos, clips)).mean(dim=2)


def _out_of_fold(
    labels: Tensor,
    folds: np.ndarray,
    num_classes: int,
    scores_of: Callable[[Tensor, Tensor, Any], Tensor],
    setting: Any,
) -> Tensor:
    """Scores (V, K) of every video by a classifier that has not seen its part."""
    scores = torch.empty(len(labels), num_classes)
    for part in range(int(folds.max()) + 1):
        held = torch.from_numpy(np.flatnonzero(folds == part))
        chosen = torch.from_numpy(np.flatnonzero(folds != part))
        scores[held] = scores_of(chosen, held, setting)
    return scores


def _best(
    found: Sequence[tuple[dict[str, Any], Tensor]], labels: Tensor
) -> tuple[dict[str, Any], list[dict[str, Any]], float, Tensor]:
    """The setting that :func:`surest` chooses.

    Returns:
        The setting, all with their results, its accuracy, and its scores.
    """
    tried = []
    for setting, scores in found:
        loss = F.cross_entropy(scores, labels).item()
        tried.append({**setting, "held_out": _accuracy(scores, labels), "loss": round(loss, 4)})
    best = surest(tried, len(labels))
    return found[best][0], tried, tried[best]["held_out"], found[best][1]


def surest(tried: Sequence[Mapping[str, Any]], videos: int) -> int:
    """Which setting has the lowest loss of those whose accuracies may as well be the best one.

    These are at most one standard error below it (Breiman et al., Classification and Regression
    Trees, 3.4.3): among settings that a few videos cannot tell apart, the one that knows when it
    does not know.

    Args:
        tried: ``held_out``, the accuracy in percent, and ``loss`` of each setting.
        videos: number of videos that the accuracies are of.
    """
    best = max(row["held_out"] for row in tried)
    error = math.sqrt(best * (100 - best) / max(videos, 1))
    close = [i for i, row in enumerate(tried) if row["held_out"] >= best - error]
    return min(close, key=lambda i: tried[i]["loss"])


def _accuracy(scores: Tensor, labels: Tensor) -> float:
    return round(100 * (scores.argmax(dim=1) == labels).float().mean().item(), 3)


PROBES = {"linear": probe_linear, "knn": probe_neighbours}  # those that read vectors alone
