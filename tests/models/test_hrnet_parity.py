"""HRNet: the official numbers, timm's, and what a clip adds."""

import pytest
import torch

from tests.models.invariants import (
    assert_everything_loaded,
    assert_same_as_recorded,
    assert_same_logits,
    assert_still_clips_are_images,
    assert_temporal_parameters_learn,
    read_record,
    relative_error,
)
from videonet.checkpoint import load_checkpoint
from videonet.errors import ConfigError
from videonet.models import create_model
from videonet.models.hrnet import VARIANTS, HRNet, StagePlan

RECORDS = ["eps_probe", "w5_two_modules", "w8"]
SMALL = {
    "stages": (
        (1, "bottleneck", (1,), (6,)),
        (1, "basic", (1, 1), (5, 8)),
        (2, "basic", (1, 1, 1), (5, 8, 12)),
    ),
    "stem_width": 8,
    "head_channels": (4, 5, 6),
    "final_channels": 16,
}


def official(cfg, **constructor):
    """Our image model for the official ``HighResolutionNet(cfg)``, its constants replaced."""
    plans = [
        StagePlan(
            plan["NUM_MODULES"],
            plan["BLOCK"].lower(),
            tuple(plan["NUM_BLOCKS"]),
            tuple(plan["NUM_CHANNELS"]),
        )
        for _, plan in sorted(cfg["MODEL"]["EXTRA"].items())
    ]
    return HRNet(num_frames=1, stages=plans, **constructor)


def as_recorded(found, expected):
    """One tensor, or of several branches the one of the recorded size."""
    maps = [x.squeeze(2) for x in (found if isinstance(found, list) else [found])]
    return next(x for x in maps if x.shape == expected.shape)


@pytest.mark.parametrize("variant", RECORDS)
def test_official_numbers(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "hrnet" / variant)
    model = official(**record["constructor"])
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, state)
    assert report.dialect == "hrnet"
    assert_everything_loaded(report, model, state)
    assert_same_as_recorded(model, record, tensors, convert=as_recorded)


def test_every_record_is_tested(shared_dir):
    records = (shared_dir / "reference" / "hrnet").glob("*.json")
    assert sorted(RECORDS) == sorted(path.stem for path in records)


@pytest.mark.slow
@pytest.mark.parametrize("width", [18, 32, 48])
def test_timm_at_full_size(width):
    timm = pytest.importorskip("timm")
    model = create_model(f"hrnet_w{width}", num_frames=1, num_classes=1000)
    peer = timm.create_model(f"hrnet_w{width}")
    assert_same_logits(model, peer, (1, 3, 128, 160), "hrnet")


@pytest.mark.slow
def test_timm_without_biases_in_the_neck():
    timm = pytest.importorskip("timm")
    model = create_model("hrnet_w18", num_frames=1, num_classes=1000, head_conv_bias=False)
    assert_same_logits(model, timm.create_model("hrnet_w18_ssld"), (1, 3, 64, 64), "hrnet")


@pytest.mark.parametrize("frames", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(64, 64), (48, 88)], ids=["built", "other"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 1), (1, 1)])
def test_a_still_clip_has_the_logits_of_its_image(frames, size, kernel, stride):
    image = create_model("hrnet_w18", num_frames=1, **SMALL)
    video = create_model(
        "hrnet_w18", num_frames=8, temporal_kernel=kernel, temporal_stride=stride, **SMALL
    )
    report = assert_still_clips_are_images(image, video, frames, size, seed=frames)
    assert bool(report.inflated) == (kernel == 3) and not report.notes


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_the_law_at_every_published_size(name):
    plans = VARIANTS[name]["stages"]
    shallow = [plan._replace(num_modules=1, num_blocks=(1,) * len(plan[2])) for plan in plans]
    image = create_model(name, num_frames=1, stages=shallow)
    video = create_model(name, num_frames=4, stages=shallow)
    assert_still_clips_are_images(image, video, 4, (64, 64))


def test_the_temporal_taps_learn_from_the_first_step():
    image = create_model("hrnet_w18", num_frames=1, **SMALL)
    video = create_model("hrnet_w18", num_frames=8, **SMALL)
    load_checkpoint(video, image.state_dict())
    kernels = {n: p for n, p in video.named_parameters() if p.dim() == 5 and p.shape[2] == 3}
    assert not any(p[:, :, [0, 2]].any() for p in kernels.values())
    assert_temporal_parameters_learn(video, 8, (64, 64), list(kernels))
    assert all(p.grad[:, :, [0, 2]].any() for p in kernels.values())


def test_frames_in_another_order_change_the_logits():
    video = create_model("hrnet_xs", num_classes=5).eval()
    clip = torch.randn(1, 3, 8, 48, 48)
    with torch.no_grad():
        assert relative_error(video(clip.flip(2)), video(clip)) > 1e-3


def test_representations_of_the_paper():
    clip = torch.randn(1, 3, 8, 64, 96)
    shapes = {}
    for kind in ("branches", "v1", "v2", "v2p"):
        torch.manual_seed(0)
        model = create_model("hrnet_w18", num_frames=8, features=kind, **SMALL).eval()
        with torch.no_grad():
            shapes[kind] = model.forward_intermediates(clip)
    branches = shapes["branches"]
    assert [tuple(x.shape[1:]) for x in branches] == [(5, 4, 16, 24), (8, 4, 8, 12), (12, 4, 4, 6)]
    torch.testing.assert_close(shapes["v1"], branches[:1])
    (v2,) = shapes["v2"]
    assert v2.shape == (1, 25, 4, 16, 24)
    torch.testing.assert_close(v2[:, :5], branches[0])
    frame = torch.nn.functional.interpolate(branches[1][:, :, 2], size=(16, 24), mode="bilinear")
    torch.testing.assert_close(v2[:, 5:13, 2], frame)
    assert [tuple(x.shape[1:]) for x in shapes["v2p"]] == [
        (25, 4, 16, 24),
        (25, 4, 8, 12),
        (25, 4, 4, 6),
    ]
    pooled = torch.nn.functional.avg_pool2d(v2[:, :, 1], 4)
    torch.testing.assert_close(shapes["v2p"][2][:, :, 1], pooled)


def test_checkpointing_counts_every_batch_once():
    statistics = []
    for enabled in (False, True):
        torch.manual_seed(0)
        model = create_model("hrnet_w18", num_frames=8, **SMALL).train()
        model.set_grad_checkpointing(enabled)
        generator = torch.Generator().manual_seed(1)
        model(torch.randn(2, 3, 8, 64, 64, generator=generator)).sum().backward()
        statistics.append(dict(model.named_buffers()))
    assert statistics[0]["stage2.0.branches.0.0.bn1.num_batches_tracked"] == 1
    torch.testing.assert_close(*statistics)


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match="stage 3 has 2 entries in num_blocks and 3"):
        plans = [*SMALL["stages"][:2], (2, "basic", (1, 1), (5, 8, 12))]
        create_model("hrnet_xs", stages=plans)
    with pytest.raises(ConfigError, match="blocks 'plain', expected basic or bottleneck"):
        create_model("hrnet_xs", stages=[(1, "plain", (1,), (6,))])
    with pytest.raises(ConfigError, match="head_channels has 4 entries"):
        create_model("hrnet_xs", head_channels=(1, 2, 3, 4))
    with pytest.raises(ConfigError, match="expected one of branches, v1, v2, v2p"):
        create_model("hrnet_xs", features="v3")
    with pytest.raises(ConfigError, match="fuse_upsample is 'cubic', expected nearest or"):
        create_model("hrnet_xs", fuse_upsample="cubic")
    with pytest.raises(ConfigError, match="HRNet has no class token"):
        create_model("hrnet_xs", cls_token=True)
