"""ViT as a video model: the static-clip law, learning of temporal parts, TimeSformer."""

import pytest
import torch

from tests.models.invariants import (
    TOLERANCE,
    assert_still_clips_are_images,
    assert_temporal_parameters_learn,
    randomise,
    relative_error,
    still_clip_logits,
)
from videonet.checkpoint import load_checkpoint
from videonet.errors import ConfigError
from videonet.models import create_model
from videonet.models.vit import MODELS

SIDE = 32
SMALL = {"embed_dim": 24, "depth": 3, "num_heads": 3, "patch_size": 8, "crop_size": SIDE}
SMALL |= {"num_classes": 7}
SIZES = pytest.mark.parametrize("size", [(SIDE, SIDE), (48, 40)], ids=["built", "other"])
FRAMES = pytest.mark.parametrize("frames", [2, 4, 8])
# Each obeys the law to the letter.
EXACT = {
    "mean of the cells": {"cls_token": False},
    "mean and registers": {"pooling": "avg", "num_registers": 3, "cls_key_log_frames": True},
    "class token": {"cls_key_log_frames": True},
    "class token without position": {"cls_key_log_frames": True, "embed_class": False},
    "joint positions": {"cls_token": False, "sep_pos_embed": False},
    "norms inside": {"cls_token": False, "qk_norm": True, "scale_mlp_norm": True},
    "divided": {"space_time": "divided"},
    "divided, one frame per tubelet": {"space_time": "divided", "tubelet_frames": 1},
    "divided, layer scale": {"space_time": "divided", "layer_scale": 0.5},
    "divided, mean": {"space_time": "divided", "cls_token": False},
    "divided, registers": {"space_time": "divided", "num_registers": 2},
    "space": {"space_time": "space"},
    "space, one frame per tubelet, registers": {
        "space_time": "space",
        "tubelet_frames": 1,
        "num_registers": 2,
    },
}


def pair(frames, name="vit_b", **options):
    """The image model and the clip model of the same options."""
    arguments = SMALL | options
    as_image = arguments | {"space_time": "joint", "tubelet_frames": None}
    image = create_model(name, num_frames=1, **as_image)
    return image, create_model(name, num_frames=frames, **arguments)


@FRAMES
@SIZES
@pytest.mark.parametrize("options", EXACT.values(), ids=EXACT)
def test_a_still_clip_has_the_logits_of_its_image(options, frames, size):
    report = assert_still_clips_are_images(*pair(frames, **options), frames, size, seed=frames)
    assert report.inflated and not report.notes


@FRAMES
def test_a_bare_class_token_breaks_the_law_and_is_reported(frames):
    image, clip, report = still_clip_logits(*pair(frames), frames, (SIDE, SIDE))
    # One tubelet of two frames is one frame of keys.
    assert (relative_error(clip, image) > TOLERANCE) == (frames > 2)
    assert any("class token's keys" in note for note in report.notes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, space_time",
    [(name, "joint") for name in sorted(MODELS)]
    # Windows and relative positions know joint attention alone.
    + [
        (name, space_time)
        for name in sorted(MODELS)
        if not name.startswith("vitdet")
        for space_time in ("divided", "space")
    ],
)
def test_the_law_at_published_width(name, space_time):
    arguments = {"depth": 2, "crop_size": 64, "patch_size": 16, "cls_key_log_frames": True}
    image = create_model(name, num_frames=1, **arguments)
    video = create_model(name, num_frames=4, space_time=space_time, **arguments)
    assert_still_clips_are_images(image, video, 4, (64, 64))


@pytest.mark.parametrize("space_time", ["joint", "divided", "space"])
def test_temporal_parts_learn_from_the_first_step(space_time):
    image, video = pair(8, space_time=space_time)
    load_checkpoint(video, randomise(image).state_dict())
    names = [n for n, _ in video.named_parameters() if "temporal_proj" in n]
    assert len(names) == (6 if space_time == "divided" else 0)
    names += ["pos_embed_temporal", "patch_embed.proj.weight"]
    assert_temporal_parameters_learn(video, 8, (SIDE, SIDE), names)
    taps = video.patch_embed.proj.weight.grad.abs().sum(dim=(0, 1, 3, 4))
    assert (taps > 0).all()


def test_a_divided_image_model_starts_as_attention_over_space_alone():
    image, divided = pair(4, space_time="divided")
    _, space = pair(4, space_time="space")
    clip = torch.randn(2, 3, 4, SIDE, SIDE)
    for video in (divided, space):
        load_checkpoint(video, randomise(image).state_dict())
    with torch.no_grad():
        assert relative_error(space.eval()(clip), divided.eval()(clip)) < TOLERANCE


def test_attention_over_time_learns_once_its_projection_has():
    image, video = pair(8, space_time="divided")
    load_checkpoint(video, randomise(image).state_dict())
    optimizer = torch.optim.SGD(video.parameters(), lr=1e-3)
    learns = []
    for _ in range(2):
        optimizer.zero_grad()
        video(torch.randn(2, 3, 8, SIDE, SIDE)).square().sum().backward()
        optimizer.step()
        learns.append(all(b.temporal_attn.qkv.weight.grad.any() for b in video.blocks))
    assert learns == [False, True]


def test_frames_that_are_too_few_or_too_small_are_named():
    _, video = pair(8)
    with pytest.raises(ConfigError, match="1 frames, but one tubelet of this model needs 2"):
        video(torch.randn(1, 3, 1, SIDE, SIDE))
    with pytest.raises(ConfigError, match="7 pixels high"):
        video(torch.randn(1, 3, 8, 7, SIDE))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"space_time": "both"}, "space_time is 'both', expected joint, divided or space"),
        ({"pooling": "mean"}, "pooling is 'mean', expected one of token, avg, max, avgmax"),
        ({"pooling": "token", "cls_token": False}, "reads the class token, but cls_token is False"),
        ({"activation": "tanh"}, "activation is 'tanh', expected one of gelu"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("vit_b", **(SMALL | options))


def small_timesformer():
    transformers = pytest.importorskip("transformers")
    config = transformers.TimesformerConfig(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=SIDE,
        patch_size=8,
        num_frames=4,
        num_labels=7,
    )
    return randomise(transformers.TimesformerForVideoClassification(config))


def official_names(state):
    """From transformers' names to those of the TimeSformer repository."""
    renamed = {}
    for name, tensor in state.items():
        for theirs, official in (
            ("timesformer.embeddings.cls_token", "model.cls_token"),
            ("timesformer.embeddings.position_embeddings", "model.pos_embed"),
            ("timesformer.embeddings.time_embeddings", "model.time_embed"),
            ("timesformer.embeddings.patch_embeddings.projection", "model.patch_embed.proj"),
            ("timesformer.encoder.layer.", "model.blocks."),
            ("timesformer.layernorm", "model.norm"),
            ("temporal_layernorm", "temporal_norm1"),
            ("temporal_dense", "temporal_fc"),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
            ("attention.attention", "attn"),
            ("attention.output.dense", "attn.proj"),
            ("intermediate.dense", "mlp.fc1"),
            ("output.dense", "mlp.fc2"),
            ("classifier", "model.head"),
        ):
            name = name.replace(theirs, official)
        renamed[name] = tensor
    return renamed


@pytest.mark.parametrize("official", [False, True], ids=["transformers", "its repository"])
def test_timesformer(official):
    peer = small_timesformer()
    state = official_names(peer.state_dict()) if official else peer.state_dict()
    _, model = pair(4, space_time="divided", tubelet_frames=1)
    report = load_checkpoint(model.eval(), state)
    assert report.dialect == ("timesformer" if official else "transformers timesformer")
    assert sorted(report.loaded) == sorted(model.state_dict())
    assert not report.unexpected and len(report.used) == len(state)
    clip = torch.randn(2, 3, 4, SIDE, SIDE)
    with torch.no_grad():
        expected = peer(clip.transpose(1, 2)).logits
        assert relative_error(model(clip), expected) <= TOLERANCE


@pytest.mark.parametrize("arguments", [{}, {"num_registers": 2}, {"embed_class": False}], ids=str)
def test_a_vit_on_a_part_of_its_tokens(arguments):
    """All of them are the clip, in any order; a part is what attention among that part gives."""
    torch.manual_seed(0)
    model = create_model(
        "vit_xs", num_classes=5, num_frames=4, crop_size=24, cls_key_log_frames=True, **arguments
    )
    model = randomise(model)
    x = torch.randn(2, 3, 4, 24, 24)
    with torch.no_grad():
        whole = model.forward_features(x)
        cells = whole.shape[1] - model.num_prefix_tokens
        order = torch.stack([torch.randperm(cells) for _ in range(2)])
        mixed = model.forward_features(x, order)
        places = order.argsort(dim=1).unsqueeze(2).expand(-1, -1, whole.shape[2])
        back = torch.cat(
            (
                mixed[:, : model.num_prefix_tokens],
                mixed[:, model.num_prefix_tokens :].gather(1, places),
            ),
            dim=1,
        )
        torch.testing.assert_close(back, whole, atol=1e-4, rtol=1e-4)
        mask = torch.zeros(2, cells, dtype=torch.bool).scatter(1, order[:, :7], True)
        part = model.forward_features(x, mask)
        assert part.shape == (2, model.num_prefix_tokens + 7, whole.shape[2])
        assert torch.equal(part, model.forward_features(x, order[:, :7].sort(dim=1).values))
        assert model.forward_head(part).shape == (2, 5)
        changed = x.clone()  # what is left out has no effect
        frames, rows, columns = (
            torch.repeat_interleave(torch.arange(n), p) for n, p in ((2, 2), (4, 6), (4, 6))
        )
        cell = (frames[:, None, None] * 4 + rows[None, :, None]) * 4 + columns[None, None, :]
        for row in range(2):
            changed[row][:, ~mask[row][cell]] = 9.0
        torch.testing.assert_close(model.forward_features(changed, mask), part)


def test_a_still_clip_in_tubes_is_the_part_of_its_image():
    """The static-clip law holds for the tokens that are kept in every frame."""
    image = randomise(create_model("vit_xs", num_classes=5, num_frames=1, crop_size=24))
    video = create_model(
        "vit_xs", num_classes=5, num_frames=4, crop_size=24, cls_key_log_frames=True
    ).eval()
    load_checkpoint(video, image.state_dict())
    picture, tube = torch.randn(1, 3, 1, 24, 24), torch.tensor([[0, 3, 5, 6, 12]])
    with torch.no_grad():
        flat = image.forward_head(image.forward_features(picture, tube))
        clip = picture.expand(-1, -1, 4, -1, -1)
        keep = torch.cat((tube, tube + 16), dim=1)
        deep = video.forward_head(video.forward_features(clip, keep))
    assert relative_error(deep, flat) <= 1e-4


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (torch.tensor([[True] * 3 + [False] * 29, [True] * 4 + [False] * 28]), "3 to 4 tokens"),
        (torch.tensor([[32], [0]]), "numbers 0 to 32, but the grid has 32 cells"),
        (torch.ones(2, 31, dtype=torch.bool), r"\(2, 31\), expected torch.int64 \(2, K\)"),
        (torch.zeros(1, 3, dtype=torch.int64), r"\(1, 3\), expected"),
        (torch.zeros(2, 32), "torch.float32"),
    ],
)
def test_a_part_that_is_none_is_refused(keep, message):
    model = create_model("vit_xs", num_classes=5, num_frames=4, crop_size=24)
    with pytest.raises(ConfigError, match=message):
        model.forward_features(torch.randn(2, 3, 4, 24, 24), keep)
    divided = create_model("vit_xs", num_frames=4, crop_size=24, space_time="divided")
    with pytest.raises(
        ConfigError, match="attention within frames, windows and relative positions work on"
    ):
        divided.embed(torch.randn(2, 3, 4, 24, 24), torch.zeros(2, 1, dtype=torch.int64))
