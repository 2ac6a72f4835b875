"""AS-MLP: the official numbers, and what a clip adds."""

import pytest
import torch

from tests.models.invariants import (
    assert_everything_loaded,
    assert_same_as_recorded,
    assert_still_clips_are_images,
    assert_temporal_parameters_learn,
    read_record,
    relative_error,
)
from videonet.checkpoint import load_checkpoint
from videonet.errors import ConfigError
from videonet.models import create_model
from videonet.models.asmlp import ASMLP, VARIANTS

RECORDS = ["eps_probe", "shift3_rect_nopatchnorm", "shift5", "shift7"]
SMALL = {"embed_dim": 14, "depths": (1, 2, 1)}


def official(img_size, drop_rate=0.0, **constructor):
    """Our image model for the official ``AS_MLP(**constructor)``."""
    return ASMLP(num_frames=1, crop_size=img_size, dropout=drop_rate, **constructor)


def as_recorded(found, expected):
    return found.squeeze(1).movedim(-1, 1)  # (B, 1, H, W, C) -> (B, C, H, W)


@pytest.mark.parametrize("variant", RECORDS)
def test_official_numbers(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "asmlp" / variant)
    model = official(**record["constructor"])
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, {"model": state})
    assert report.dialect == "asmlp"
    assert_everything_loaded(report, model, state)

    def merged(name):
        """The official stages merge at their end."""
        return f"{name}.downsample" if model.get_submodule(name).downsample is not None else name

    assert_same_as_recorded(model, record, tensors, rename=merged, convert=as_recorded)


def test_every_record_is_tested(shared_dir):
    records = (shared_dir / "reference" / "asmlp").glob("*.json")
    assert sorted(RECORDS) == sorted(path.stem for path in records)


@pytest.mark.parametrize("frames", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(64, 64), (48, 72)], ids=["built", "other"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_still_clip_has_the_logits_of_its_image(frames, size, stride):
    image = create_model("asmlp_t", num_frames=1, **SMALL)
    video = create_model("asmlp_t", num_frames=8, temporal_stride=stride, **SMALL)
    report = assert_still_clips_are_images(image, video, frames, size, seed=frames)
    assert report.inflated and not report.notes


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_the_law_at_every_published_size(name):
    depths = (1,) * len(VARIANTS[name]["depths"])
    image = create_model(name, num_frames=1, depths=depths)
    video = create_model(name, num_frames=4, depths=depths)
    assert_still_clips_are_images(image, video, 4, (64, 64))


def test_the_temporal_branch_learns_from_the_first_step():
    image = create_model("asmlp_t", num_frames=1, **SMALL)
    video = create_model("asmlp_t", num_frames=8, **SMALL)
    load_checkpoint(video, image.state_dict())
    names = [n for n, _ in video.named_parameters() if ".temporal_" in n]
    assert len(names) == 2 * sum(SMALL["depths"])
    assert not any(video.get_parameter(n).any() for n in names)
    assert_temporal_parameters_learn(video, 8, (64, 64), [*names, "patch_embed.proj.weight"])


def test_frames_in_another_order_change_the_logits():
    video = create_model("asmlp_xs", num_classes=5).eval()
    clip = torch.randn(1, 3, 8, 48, 48)
    with torch.no_grad():
        assert relative_error(video(clip.flip(2)), video(clip)) > 1e-3


def test_dilation_reads_further_away():
    """One block on a grid of 12x12: which input columns an output column depends on."""
    x = torch.randn(1, 1, 12, 12, 15)
    reach = {}
    for dilation in (1, 2):
        torch.manual_seed(0)
        model = ASMLP(5, 1, embed_dim=15, depths=(1,), dilation=dilation)
        conv = model.layers[0].blocks[0].axial_shift
        conv.norm1, conv.norm2 = torch.nn.Identity(), torch.nn.Identity()
        grid = x.clone().requires_grad_()
        conv(grid)[0, 0, 6, 6].sum().backward()
        reach[dilation] = grid.grad[0, 0, 6].abs().sum(-1).nonzero().flatten().tolist()
    assert reach == {1: [4, 5, 6, 7, 8], 2: [2, 4, 6, 8, 10]}


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match="shift size of 4"):
        create_model("asmlp_xs", shift_size=4)
    with pytest.raises(ConfigError, match="ASMLP has no class token"):
        create_model("asmlp_xs", cls_token=True)
    with pytest.raises(ConfigError, match="3 pixels high"):
        create_model("asmlp_xs")(torch.randn(1, 3, 2, 3, 48))
