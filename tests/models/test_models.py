"""What every registered model promises, driven by one table (families.py)."""

import pytest
import torch

import videonet
from tests.models.families import (
    ARCHITECTURES,
    FRAMES,
    SIDE,
    different_models,
    family_of,
    may_be_silent,
    small_model,
    smallest_of,
)
from tests.models.invariants import (
    assert_still_clips_are_images,
    assert_temporal_parameters_learn,
    randomise,
)
from videonet.checkpoint import load_checkpoint
from videonet.errors import ConfigError
from videonet.models import vit

NAMES = different_models()
# One model of each architecture; the reversible MViT has the stem of the other one.
SMALLEST = [smallest_of(pattern) for pattern in ARCHITECTURES if pattern != "rev_mvit"]


def clip(batch=1, frames=FRAMES, height=SIDE, width=SIDE):
    return torch.randn(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", NAMES)
def test_clips_and_images_of_several_sizes(name):
    model = small_model(name).eval()
    image = small_model(name, num_frames=1).eval()
    frame = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        assert model(clip(2)).shape == (2, 5)
        assert model(clip(1, 6, 96, 128)).shape == (1, 5)
        torch.testing.assert_close(image(frame), image(frame.unsqueeze(2)))


def test_every_name_builds_its_image_and_its_clip_model():
    with torch.device("meta"):
        for name in videonet.list_models():
            for frames in ({}, {"num_frames": 1}):
                model = videonet.create_model(name, **frames)
                assert model.num_classes == 400 and len(model.feature_info) >= 2, name


@pytest.mark.parametrize("name", NAMES)
def test_maps_shrink_by_stage(name):
    family, model = family_of(name), small_model(name).eval()
    with torch.no_grad():
        maps = model.forward_intermediates(clip())
    assert [m.shape[-1] for m in maps] == list(family.sides[: len(maps)])
    assert all(m.shape[2] == family.frames for m in maps)
    assert len({m.shape[0] for m in maps}) == 1


@pytest.mark.parametrize("frames", [1, FRAMES])
@pytest.mark.parametrize("name", NAMES)
def test_the_surface_agrees_with_forward(name, frames):
    model = small_model(name, num_frames=frames).eval()
    x = clip(2, frames)
    with torch.no_grad():
        logits, features = model(x), model.forward_features(x)
        pooled = model.forward_head(features, pre_logits=True)
        assert torch.equal(model.forward_head(features), logits)
        assert torch.equal(model.head(pooled), logits)
        assert pooled.shape == (2, model.num_features)
        maps = model.forward_intermediates(x)
        for info, found in zip(model.feature_info, maps, strict=True):
            cells = tuple(max(n // s, 1) for n, s in zip(x.shape[2:], info.strides, strict=True))
            assert found.shape == (2, info.channels, *cells)
        assert all(map(torch.equal, model.forward_intermediates(x, 1), maps[-1:]))
        some = model.forward_intermediates(x, (-1, 0))
        assert torch.equal(some[0], maps[-1]) and torch.equal(some[1], maps[0])
    with pytest.raises(ConfigError, match=f"has {len(maps)} maps"):
        model.forward_intermediates(x, [len(maps)])


@pytest.mark.parametrize("name", NAMES)
def test_without_classes_a_model_gives_what_its_head_would_read(name):
    bare, model = small_model(name, num_classes=0).eval(), small_model(name).eval()
    report = load_checkpoint(bare, model.state_dict())
    assert bare.num_classes == 0 and not report.fatal
    x = clip()
    with torch.no_grad():
        wanted = model.forward_head(model.forward_features(x), pre_logits=True)
        assert torch.equal(bare(x), wanted)
        model.reset_classifier(0)
        assert torch.equal(model(x), wanted)
        model.reset_classifier(3)
        assert model(x).shape == (1, 3)
    names = [n for group in bare.layer_groups() for n in group]
    assert sorted(names) == sorted(n for n, _ in bare.named_parameters())
    with pytest.raises(ConfigError, match="-1 classes"):
        bare.reset_classifier(-1)


@pytest.mark.parametrize("frames", [2, 4, 8])
@pytest.mark.parametrize("name", NAMES)
def test_a_still_clip_has_the_logits_of_its_image(name, frames):
    exact = family_of(name).exact
    image = small_model(name, num_frames=1, **exact)
    video = small_model(name, num_frames=frames, **exact)
    for size in ((SIDE, SIDE), (96, 64)):
        report = assert_still_clips_are_images(image, video, frames, size)
        assert not report.notes


@pytest.mark.parametrize("name", SMALLEST)
def test_centred_clips_have_no_colour_of_their_own(name):
    """Centring is what the model does first, so it obeys the law, and no colour is left to read."""
    exact = family_of(name).exact
    image = small_model(name, num_frames=1, centre_clips=True, **exact)
    video = small_model(name, centre_clips=True, **exact)
    assert_still_clips_are_images(image, video, FRAMES, (SIDE, SIDE))
    plain = small_model(name, **exact).eval()
    load_checkpoint(plain, video.state_dict())
    x = clip(2)
    colours = torch.tensor([[3.0, -1.0, 0.5], [-2.0, 0.0, 1.0]])[:, :, None, None, None]
    with torch.no_grad():
        expected = plain(x - x.mean(dim=(2, 3, 4), keepdim=True))
        torch.testing.assert_close(video(x), expected)
        torch.testing.assert_close(video(x + colours), expected, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(plain(x + colours), plain(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_what_an_inflated_model_has_for_time_learns_at_once(name):
    exact = family_of(name).exact
    image = small_model(name, num_frames=1, **exact)
    video = small_model(name, num_frames=8, **exact)
    load_checkpoint(video, randomise(image).state_dict())
    shapes = {n: p.shape for n, p in image.named_parameters()}
    names = [n for n, p in video.named_parameters() if shapes.get(n) != p.shape]
    names = sorted(set(names) - may_be_silent(name, video))
    assert_temporal_parameters_learn(video, 8, (SIDE, SIDE), names)
    for kernel in (video.get_parameter(n) for n in names):
        if kernel.dim() == 5:
            assert all(tap.any() for tap in kernel.grad.unbind(2))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    model = small_model(name)
    with torch.no_grad():
        for parameter in model.parameters():  # parts that start at zero hide what is before them
            parameter.add_(0.05 * torch.randn_like(parameter))
    model(clip(2)).square().sum().backward()
    silent = {
        n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    }
    assert silent <= may_be_silent(name, model)


@pytest.mark.parametrize("name", NAMES)
def test_groups_and_state_round_trip(name):
    model, other = small_model(name).eval(), small_model(name).eval()
    names = [n for group in model.layer_groups() for n in group]
    assert sorted(names) == sorted(n for n, _ in model.named_parameters())
    assert "head.projection.weight" in model.layer_groups()[-1]
    assert "head.projection.weight" not in model.layer_groups()[0]
    assert model.no_weight_decay() <= set(names)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        report = load_checkpoint(other, {"format": "videonet", "model_state": model.state_dict()})
        assert not report.fatal and not report.reinitialised
        torch.testing.assert_close(model(clip()), other(clip()))
        model.reset_classifier(7)
        assert model(clip()).shape == (1, 7)


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_changes_no_gradient(name):
    gradients = []
    for enabled in (False, True):
        model = small_model(name, drop_path_rate=0.0).eval()
        for module in model.modules():
            module.training = not isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
        model.set_grad_checkpointing(enabled)
        model(clip()).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_in_bfloat16(name):
    model = small_model(name)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(clip(2)).float().square().mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


class Maps(torch.nn.Module):
    """The maps of a model, to be compiled or exported."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, clip):
        return self.model.forward_intermediates(clip)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_surface_compiles_and_exports(name):
    model = small_model(name).eval()
    maps = Maps(model)
    program = torch.export.export(maps, (clip(2),))
    torch._dynamo.reset()
    with torch.no_grad():
        for found in (program.module()(clip(2)), torch.compile(maps, backend="eager")(clip(2))):
            for one, other in zip(found, maps(clip(2)), strict=True):
                torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        features = torch.compile(model.forward_features, backend="eager", fullgraph=True)
        torch.testing.assert_close(
            features(clip(2)), model.forward_features(clip(2)), atol=1e-5, rtol=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_export_gives_the_same_numbers(name):
    model = small_model(name).eval()
    program = torch.export.export(
        model, (clip(2),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    for batch in (1, 3):
        with torch.no_grad():
            found, expected = program.module()(clip(batch)), model(clip(batch))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_some_run_on_a_part_of_their_tokens():
    keep = torch.zeros(1, 1, dtype=torch.int64)
    for name in NAMES:
        model = small_model(name).eval()
        if not model.works_on_parts:
            with pytest.raises(ConfigError, match="works on whole grids"):
                model.forward_features(clip(), keep)
    whole = {name for name in NAMES if not small_model(name).works_on_parts}

    def of(*families):
        return {n for family in families for n in videonet.list_models(f"{family}_*")}

    others, joint = of("vjepa2", "hiera"), set(vit.MODELS) - of("timesformer", "vitdet")
    assert set(NAMES) - whole == set(NAMES) & (joint | others)


def test_the_former_name_of_pooling_warns():
    model = small_model("mvit_v2_s").eval()
    with torch.no_grad():
        (*_, last) = model.run_stages(clip(), model.run_block)
        with pytest.warns(FutureWarning, match="forward_head"):
            pooled = model.pool_tokens(last.x)
        assert torch.equal(model.head(pooled), model(clip()))


def test_wrong_names_and_arguments_are_named():
    with pytest.raises(ConfigError, match="did you mean mvit_v2_b"):
        videonet.create_model("mvit_v2b")
    with pytest.raises(ConfigError, match="mvit_v2_s has no argument 'num_class'"):
        videonet.create_model("mvit_v2_s", num_class=3)
    with pytest.raises(ConfigError, match="block 0 is 16 wide, which 3 heads do not divide"):
        videonet.create_model("mvit_v1_b", embed_dim=16, num_heads=3)
    with pytest.raises(ConfigError, match="2 pixels high"):
        small_model("mvit_v2_s")(torch.randn(1, 3, 4, 2, 64))


@pytest.mark.parametrize("name", NAMES)
def test_clips_of_another_layout_are_refused_in_a_sentence(name):
    model, frames = small_model(name).eval(), clip()
    for wrong, said in (
        (frames.transpose(1, 2), r"\(B, 3, T, H, W\).*clip\.transpose\(1, 2\)"),
        (frames.movedim(1, -1), r"clip\.movedim\(-1, 1\)"),
        (frames[0, 0], r"has the shape .* expected \(B, 3, T, H, W\)"),
        ((frames * 50).to(torch.uint8), r"torch\.uint8, expected floats"),
    ):
        with pytest.raises(ConfigError, match=said):
            model(wrong)
