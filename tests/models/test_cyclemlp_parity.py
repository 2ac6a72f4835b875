"""CycleMLP: the official numbers, and what a clip adds."""

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
from videonet.models.cyclemlp import VARIANTS, CycleMLP

RECORDS = ["b_style", "eps_probe", "rect_bias"]
SMALL = {"layers": (1, 2, 1, 1), "embed_dims": (12, 16, 24, 32), "mlp_ratios": (4, 4, 2, 2)}


def official(constructor):
    """Our image model for the official ``CycleNet(**constructor)``."""
    arguments = dict(constructor)
    output_norms = arguments.pop("fork_feat", False)
    return CycleMLP(num_frames=1, output_norms=output_norms, **arguments)


def load_record(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "cyclemlp" / variant)
    model = official(record["constructor"])
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, {"model": state})
    assert report.dialect == "cyclemlp"
    assert_everything_loaded(report, model, state, ignored=(".offset",))
    return model, record, tensors


@pytest.mark.parametrize("variant", RECORDS)
def test_official_numbers(shared_dir, variant):
    model, record, tensors = load_record(shared_dir, variant)
    assert_same_as_recorded(model, record, tensors, convert=lambda found, _: found.squeeze(1))


def test_normed_maps_for_dense_tasks(shared_dir):
    model, _, tensors = load_record(shared_dir, "fork_feat")
    with torch.no_grad():
        maps = model.eval()(tensors["input"])
    assert len(maps) == 4
    for i, found in enumerate(maps):
        assert relative_error(found.squeeze(2), tensors[f"output.{i}"]) <= 1e-4
    with pytest.raises(ConfigError, match="feature maps, not classes"):
        model.reset_classifier(3)


def test_every_record_is_tested(shared_dir):
    records = (shared_dir / "reference" / "cyclemlp").glob("*.json")
    assert sorted([*RECORDS, "fork_feat"]) == sorted(path.stem for path in records)


@pytest.mark.parametrize("frames", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(64, 64), (56, 88)], ids=["built", "other"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_still_clip_has_the_logits_of_its_image(frames, size, stride):
    image = create_model("cyclemlp_b1", num_frames=1, **SMALL)
    video = create_model("cyclemlp_b1", num_frames=8, temporal_stride=stride, **SMALL)
    report = assert_still_clips_are_images(image, video, frames, size, seed=frames)
    assert report.inflated and not report.notes


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_the_law_at_every_published_size(name):
    stages = len(VARIANTS[name].get("layers"))
    image = create_model(name, num_frames=1, layers=(1,) * stages)
    video = create_model(name, num_frames=4, layers=(1,) * stages)
    assert_still_clips_are_images(image, video, 4, (64, 64))


def test_the_temporal_branch_learns_from_the_first_step():
    image = create_model("cyclemlp_b1", num_frames=1, **SMALL)
    video = create_model("cyclemlp_b1", num_frames=8, **SMALL)
    load_checkpoint(video, image.state_dict())
    names = [n for n, _ in video.named_parameters() if ".temporal_" in n]
    assert len(names) == 2 * sum(SMALL["layers"])
    assert not any(video.get_parameter(n).any() for n in names)
    assert_temporal_parameters_learn(video, 8, (64, 64), [*names, "patch_embed.proj.weight"])


def test_frames_in_another_order_change_the_logits():
    video = create_model("cyclemlp_xs", num_classes=5).eval()
    clip = torch.randn(1, 3, 8, 48, 48)
    with torch.no_grad():
        assert relative_error(video(clip.flip(2)), video(clip)) > 1e-3


def test_stages_of_equal_width_need_no_transition():
    arguments = {"layers": (1, 1), "mlp_ratios": (2, 2), "transitions": (False, True)}
    model = CycleMLP(5, 1, embed_dims=(16, 16), **arguments)
    features = model.forward_intermediates(torch.randn(1, 3, 64, 64))
    assert [f.shape[-1] for f in features] == [16, 16]
    with pytest.raises(ConfigError, match="16 and 24 wide"):
        CycleMLP(5, 1, embed_dims=(16, 24), **arguments)


def test_there_is_no_class_token():
    with pytest.raises(ConfigError, match="CycleMLP has no class token"):
        create_model("cyclemlp_xs", cls_token=True)


def test_stages_that_disagree_are_named():
    with pytest.raises(ConfigError, match="have 4, 2 and 2 entries"):
        create_model("cyclemlp_xs", layers=(1, 1, 1, 1))


def test_the_stem_can_cut_patches_with_a_norm():
    stem = {"patch_kernel": 8, "patch_stride": 8, "patch_padding": 0, "patch_norm": True}
    image = create_model("cyclemlp_b1", num_frames=1, num_classes=5, **SMALL, **stem)
    video = create_model("cyclemlp_b1", num_frames=4, num_classes=5, **SMALL, **stem)
    assert [info.strides for info in video.feature_info] == [
        (2, 8 * 2**i, 8 * 2**i) for i in range(4)
    ]
    tokens, grid = video.patch_embed(torch.randn(2, 3, 4, 64, 48))
    assert grid == (2, 8, 6)
    torch.testing.assert_close(tokens.mean(dim=2), torch.zeros(2, 96), rtol=0, atol=1e-5)
    assert_still_clips_are_images(image, video, 4, (64, 96))
    with pytest.raises(ConfigError, match="7 pixels high, but one patch of this model needs 8"):
        video(torch.randn(1, 3, 4, 7, 64))
