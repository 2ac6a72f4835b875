"""Classifiers on frozen features, many settings at once."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.models.invariants import relative_error
from videonet.config import load_config
from videonet.engine.probing import (
    FrozenVideos,
    probe_attentive,
    probe_linear,
    probe_neighbours,
    probe_statistics,
    surest,
    train_stacked,
)
from videonet.engine.stacked import StackedAdamW, StackedProbes
from videonet.errors import ConfigError
from videonet.heads.attentive import AttentiveHead, AttentiveProbe
from videonet.heads.statistics import StatisticsHead


def config(*overrides):
    usual = ("SOLVER.MAX_EPOCH", "15", "TRAIN.BATCH_SIZE", "16", "MODEL.NAME", "vit_xs")
    return load_config(None, [*usual, *map(str, overrides)])


@pytest.mark.parametrize("options", [{}, {"frames": 2, "num_prefix_tokens": 1}, {"num_blocks": 1}])
def test_copies_are_trained_as_each_would_be_alone(options):
    """Logits, gradients and steps of torch's AdamW, three rates and decays at once."""
    torch.manual_seed(0)
    options = {"num_heads": 2, "num_queries": 2, "num_blocks": 0} | options
    probe = AttentiveProbe(8, 3, **options)
    settings = [(1e-2, 0.0), (1e-3, 0.5), (3e-3, 0.1)]
    copies = StackedProbes(probe, 3)
    rates, decays = zip(*settings, strict=True)
    optimizer = StackedAdamW(copies.parameters, rates, decays, probe.no_weight_decay())
    singles = []
    for rate, decay in settings:
        single = AttentiveProbe(8, 3, **options)
        single.load_state_dict(probe.state_dict())
        spared = single.no_weight_decay()
        decayed = [p for n, p in single.named_parameters() if p.dim() > 1 and n not in spared]
        others = [p for n, p in single.named_parameters() if p.dim() < 2 or n in spared]
        groups = [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0}]
        singles.append((single, torch.optim.AdamW(groups, lr=rate)))
    labels = torch.tensor([0, 1, 2, 1])
    for _ in range(4):
        tokens = torch.randn(4, 7, 8)
        outputs = copies(tokens)
        sum(F.cross_entropy(logits, labels) for logits in outputs).backward()
        optimizer.step(1.0)
        for (single, own), found in zip(singles, outputs, strict=True):
            expected = single(tokens)
            assert relative_error(found, expected) < 1e-5
            F.cross_entropy(expected, labels).backward()
            own.step()
            own.zero_grad()
    for index, (single, _) in enumerate(singles):
        for name, tensor in copies.state(index).items():
            torch.testing.assert_close(tensor, single.state_dict()[name], atol=2e-5, rtol=1e-4)


def frozen(count: int, seed: int, passes: int = 1) -> FrozenVideos:
    """Whether a mark comes in the first or the second frame tells the class, 2 clips a video."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    mark = torch.randn(12, generator=torch.Generator().manual_seed(5)) * 3
    tokens = []
    for _ in range(passes):
        cells = torch.randn(count, 2, 2, 4, 12, generator=generator)
        for video, label in enumerate(labels):
            cells[video, :, label, int(torch.randint(4, (), generator=generator))] += mark
        tokens.append(cells.flatten(2, 3).half())
    return FrozenVideos(labels, [t.float().mean(dim=2) for t in tokens], tokens)


HEAD = {"num_heads": 2, "num_blocks": 0, "mlp_ratio": 1.0}


def test_queries_that_tell_frames_apart_learn_what_the_mean_of_tokens_cannot_show():
    train, val = frozen(120, 1, passes=2), frozen(60, 2)
    folds = np.arange(120) % 3
    cfg = config("PROBE.RATES", "[0.00001, 0.03]", "PROBE.DECAYS", "[0.01]", "SOLVER.MAX_EPOCH", 25)
    blind = probe_attentive(train, val, folds, 2, cfg, HEAD)
    seeing = probe_attentive(train, val, folds, 2, cfg, HEAD | {"frames": 2})
    linear = probe_linear(train, val, folds, 2, cfg.PROBE)
    assert seeing.accuracy > 90 and seeing.held_out > 75 and seeing.chosen["rate"] == 0.03
    assert blind.accuracy < 75 and linear.accuracy < 75
    assert len(seeing.tried) == 2 and seeing.tried[0]["held_out"] < seeing.held_out

    head = AttentiveHead(12, 2, **HEAD, frames=2)
    head.load_state_dict(seeing.state)
    head.eval()
    with torch.no_grad():
        logits = head(head.read(val.tokens[0].float().flatten(0, 1)))
    scores = logits.softmax(dim=1).unflatten(0, (60, 2)).mean(dim=1)
    torch.testing.assert_close(scores, seeing.scores, atol=1e-5, rtol=1e-4)


def test_statistics_show_what_changes_at_some_place():
    """Of each class a mark is in one frame, or in both at the same place: as much of it."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 2
    cells = 0.1 * torch.randn(120, 1, 2, 4, 12, generator=generator)
    for video, label in enumerate(labels.tolist()):
        cells[video, :, : 1 + label, video % 4] += 2.0 / (1 + label)
    tokens = torch.cat((torch.randn(120, 1, 1, 12, generator=generator), cells.flatten(2, 3)), 2)
    videos = FrozenVideos(labels, [tokens.mean(dim=2)], [tokens.half()])
    folds, options = np.arange(120) % 3, config().PROBE
    head = {"frames": 2, "num_prefix_tokens": 1}
    found = probe_statistics(videos, videos, folds, 2, options, head)
    assert found.method == "statistics" and found.held_out > 95
    assert probe_linear(videos, videos, folds, 2, options).held_out < 75

    assert {row["regions"] for row in found.tried} == {1, 2}
    model = StatisticsHead(12, 2, **found.head)
    model.load_state_dict(found.state)
    scores = model(model.read(tokens.half().flatten(0, 1))).softmax(dim=1)
    torch.testing.assert_close(scores, found.scores, atol=1e-5, rtol=1e-4)


def test_regions_that_fit_no_grid_are_named():
    videos = FrozenVideos(torch.arange(6) % 2, [], [torch.randn(6, 1, 12, 8)])
    options = config("PROBE.REGIONS", "[2]").PROBE
    for head in ({"frames": 1}, {"frames": 2}):  # no change; two frames of six cells
        with pytest.raises(ConfigError, match=r"PROBE.REGIONS is \[2\], expected 1 among them"):
            probe_statistics(videos, videos, np.arange(6) % 3, 2, options, head)


def test_held_out_videos_are_not_trained_on():
    """Labels of noise: what is learnt by heart shows on the videos that were trained on alone."""
    train = frozen(60, 3)
    noise = torch.randint(2, (60,), generator=torch.Generator().manual_seed(0))
    train = FrozenVideos(noise, train.vectors, train.tokens)
    folds = np.arange(60) % 3
    cfg = config("SOLVER.MAX_EPOCH", 60)
    torch.manual_seed(0)
    probe = AttentiveProbe(12, 2, **HEAD)
    copies = train_stacked(probe, train, folds, [(1e-2, 0.0, 0), (1e-2, 0.0, 1)], cfg)
    with torch.no_grad():
        logits = copies(train.tokens[0][:, 0].float())
    right = (logits.argmax(dim=2) == noise).float()
    for copy in (0, 1):
        held = torch.from_numpy(folds == copy)
        assert right[copy, ~held].mean() >= right[copy, held].mean() + 0.15


def test_settings_that_cannot_be_told_apart_are_chosen_by_loss():
    tried = [
        {"held_out": 80.0, "loss": 1.2},  # of 100 videos: four points are a standard error
        {"held_out": 77.0, "loss": 0.6},
        {"held_out": 76.5, "loss": 0.7},
        {"held_out": 75.0, "loss": 0.1},
    ]
    assert surest(tried, 100) == 1
    assert surest(tried, 10_000) == 0
    assert surest(tried, 40) == 3


def test_linear_and_neighbours_choose_by_what_they_have_not_seen():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    centres = torch.randn(3, 6, generator=generator)

    def videos(own):
        return (centres[own] + torch.randn(len(own), 6, generator=generator)).unsqueeze(1)

    train = FrozenVideos(labels, [videos(labels), videos(labels)])
    val = FrozenVideos(labels[:30], [videos(labels[:30])])
    folds = np.arange(90) // 30
    cfg = config("PROBE.NEIGHBOURS", "[1, 15]").PROBE
    linear = probe_linear(train, val, folds, 3, cfg)
    near = probe_neighbours(train, val, folds, 3, cfg)
    for found in (linear, near):
        best = found.tried[surest(found.tried, 90)]
        assert found.held_out == best["held_out"] > 50 and found.accuracy > 50
        assert best.items() >= found.chosen.items()
    assert near.state is None and near.chosen == {"neighbours": 15}
    logits = F.linear(val.vectors[0][:, 0], *linear.state.values())
    torch.testing.assert_close(logits.softmax(dim=1), linear.scores)
