import pytest
import torch

from videonet.tasks.mixing import Mixup, soft_targets


def batch(n=6):
    clips = torch.arange(n).view(n, 1, 1, 1, 1).expand(n, 3, 4, 16, 16).float().contiguous()
    return clips, torch.arange(n)


def test_soft_targets():
    targets = soft_targets(torch.tensor([2, 0]), 4, 0.1)
    assert torch.allclose(targets[0], torch.tensor([0.025, 0.025, 0.925, 0.025]))
    assert targets.sum(1) == pytest.approx(torch.ones(2))


@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_targets_say_how_much_of_each_clip_is_there(alphas):
    mixup = Mixup(*alphas, prob=1.0, switch_prob=0.5, num_classes=6)
    clips, labels = batch()
    for seed in range(30):
        torch.manual_seed(seed)
        mixed, targets = mixup(clips, labels)
        assert torch.allclose(targets.sum(1), torch.ones(6))
        # The value of clip k is k, so the mean of a mixed clip is its expected label.
        expected = (targets * torch.arange(6)).sum(1)
        assert torch.allclose(mixed.mean(dim=(1, 2, 3, 4)), expected, atol=1e-4)
        assert (targets > 0).sum(1).max() <= 2


def test_mixup_blends_and_cutmix_cuts_the_same_box_in_all_frames():
    clips, labels = batch(2)
    torch.manual_seed(1)
    blended, _ = Mixup(0.8, 0.0, 1.0, 0.5, 2)(clips, labels)
    assert blended[0].unique().numel() == 1
    cut, _ = Mixup(0.0, 1.0, 1.0, 0.5, 2)(clips, labels)
    assert set(cut.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(cut[0], cut[0, :1, :1].expand_as(cut[0]))


def test_switching_and_probability():
    clips, labels = batch(2)
    torch.manual_seed(0)
    mixup = Mixup(0.8, 1.0, prob=0.5, switch_prob=0.5, num_classes=2)
    kept = blended = 0
    for _ in range(400):
        mixed, targets = mixup(clips, labels)
        kept += torch.equal(mixed, clips)
        blended += mixed[0].unique().numel() == 1 and mixed[0].max() > 0
        if torch.equal(mixed, clips):
            assert torch.equal(targets, torch.eye(2))
    assert 170 < kept < 250 and 70 < blended < 130


def test_without_mixing_only_the_labels_are_smoothed():
    clips, labels = batch()
    mixed, targets = Mixup(0.8, 1.0, 0.0, 0.5, 6, label_smoothing=0.1)(clips, labels)
    assert torch.equal(mixed, clips)
    assert torch.allclose(targets, soft_targets(labels, 6, 0.1))


def test_the_global_seed_decides_and_the_input_stays():
    clips, labels = batch()
    kept = clips.clone()
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(Mixup(0.8, 1.0, 1.0, 0.5, 6)(clips, labels)[0])
    assert torch.equal(*results) and torch.equal(clips, kept)


def test_in_place_gives_the_same_bits():
    clips, labels = torch.randn(6, 3, 4, 16, 16), torch.arange(6)
    for seed in range(12):
        torch.manual_seed(seed)
        expected, targets = Mixup(0.8, 1.0, 1.0, 0.5, 6)(clips, labels)
        torch.manual_seed(seed)
        own = clips.clone()
        found, same = Mixup(0.8, 1.0, 1.0, 0.5, 6)(own, labels, in_place=True)
        assert torch.equal(found, expected) and torch.equal(same, targets)
        cut = (found == clips).any()
        assert (found.data_ptr() == own.data_ptr()) == bool(cut)
