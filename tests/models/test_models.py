"""What every registered model promises, driven by one list."""

import pytest
import torch

import videonet
from videonet.errors import ConfigError

# Small enough for a CPU: depth and width are the model's own where it is small already.
SMALL = {
    "mvit_v1_b": {"depth": 5, "embed_dim": 16, "crop_size": 64, "num_frames": 4},
    "mvit_v2_xs": {"embed_dim": 16, "crop_size": 64, "num_frames": 4},
    "mvit_v2_t": {"depth": 5, "embed_dim": 16, "crop_size": 64, "num_frames": 4},
    "mvit_v2_s": {"depth": 5, "embed_dim": 16, "crop_size": 64, "num_frames": 4},
    "mvit_v2_b": {"depth": 7, "embed_dim": 16, "crop_size": 64, "num_frames": 4},
    "mvit_v2_l": {"depth": 10, "embed_dim": 16, "crop_size": 64, "num_frames": 4},
    "mvit_v2_h": {"depth": 14, "embed_dim": 24, "crop_size": 64, "num_frames": 4},
}


def small(name, **overrides):
    torch.manual_seed(0)
    return videonet.create_model(name, **{"num_classes": 5, **SMALL[name], **overrides})


def test_every_model_is_driven_through_these_tests():
    assert sorted(SMALL) == videonet.list_models()
    assert videonet.list_models("mvit_v1*") == ["mvit_v1_b"]


@pytest.mark.parametrize("name", sorted(SMALL))
def test_clips_and_images_of_several_sizes(name):
    model = small(name).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 3, 4, 64, 64)).shape == (2, 5)
        assert model(torch.randn(1, 3, 6, 48, 80)).shape == (1, 5)
    image = small(name, num_frames=1).eval()
    frame = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(image(frame), image(frame.unsqueeze(2)))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_features_shrink_by_stage_and_agree_with_the_forward(name):
    model = small(name).eval()
    clip = torch.randn(1, 3, 4, 64, 64)
    features = model.forward_features(clip)
    sides = [f.shape[-1] for f in features]
    assert sides == [16 // 2**i for i in range(len(features))]
    assert all(f.shape[2] == 2 for f in features)
    assert features[-1].shape[1] == model.num_features


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_parameter_gets_a_gradient(name):
    model = small(name)
    model(torch.randn(2, 3, 4, 64, 64)).square().sum().backward()
    # The head reads the class token alone: the other queries of the last block lead nowhere.
    last = f"blocks.{len(model.blocks) - 1}.attn."
    dead_ends = {last + n for n in ("rel_pos_h", "rel_pos_w", "rel_pos_t", "pool_q.weight")}
    # A constant on all keys cancels in the softmax.
    dead_ends |= {n for n, _ in model.named_parameters() if n.endswith("norm_k.bias")}
    silent = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    }
    assert silent <= dead_ends


@pytest.mark.parametrize("name", sorted(SMALL))
def test_groups_and_state_round_trip(name):
    model, other = small(name), small(name)
    names = [n for group in model.layer_groups() for n in group]
    assert sorted(names) == sorted(n for n, _ in model.named_parameters())
    assert model.layer_groups()[0][0].startswith(("cls_token", "pos_embed", "patch_embed"))
    assert "head.projection.weight" in model.layer_groups()[-1]
    assert model.no_weight_decay() <= set(names)
    other.load_state_dict(model.state_dict())
    clip = torch.randn(1, 3, 4, 64, 64)
    torch.testing.assert_close(model.eval()(clip), other.eval()(clip))
    model.reset_classifier(7)
    assert model(clip).shape == (1, 7)


def test_checkpointing_changes_no_gradient():
    gradients = []
    for enabled in (False, True):
        model = small("mvit_v2_s")
        model.set_grad_checkpointing(enabled)
        torch.manual_seed(1)
        model(torch.randn(1, 3, 4, 64, 64)).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_wrong_names_and_arguments_are_named():
    with pytest.raises(ConfigError, match="did you mean mvit_v2_b"):
        videonet.create_model("mvit_v2b")
    with pytest.raises(ConfigError, match="mvit_v2_s has no argument 'num_class'"):
        videonet.create_model("mvit_v2_s", num_class=3)
    with pytest.raises(ConfigError, match="2 pixels high"):
        small("mvit_v2_s")(torch.randn(1, 3, 4, 2, 64))
