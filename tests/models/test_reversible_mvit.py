"""Reversible MViT and ViT: what training does without activations, against keeping them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks

import videonet.ops.reversible as reversible
from tests.models.families import small_model
from tests.models.invariants import (
    assert_everything_loaded,
    assert_still_clips_are_images,
    randomise,
    relative_error,
)
from videonet.checkpoint import load_checkpoint
from videonet.config import load_config, model_arguments
from videonet.errors import ConfigError
from videonet.models import create_model

OPTIONS = {
    "averages": {"transition_fusion": "avg", "cls_token": False, "mean_pooling": False},
    "sides": {"transition_fusion": "concat", "shortcut": "max", "separate_qkv": True},
    "learned": {"fusion": "ln+concat_linear_2_0.1", "mean_pooling": False},
    "one stream": {"fusion": "avg", "transition_fusion": "max", "pool_first": True},
    "sums": {"fusion": "min", "transition_fusion": "add", "mean_pooling": False},
}


def clip(batch=3, dtype=torch.float64, frames=4):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, 3, frames, 64, 64, generator=generator, dtype=dtype)


def model_of(name="averages", **more):
    return randomise(small_model("rev_mvit", **(OPTIONS[name] | more))).double()


@pytest.fixture
def kept(monkeypatch):
    """A context of patches in which activations are kept."""

    def keep():
        monkeypatch.setattr(reversible, "_recomputable", lambda *inputs: ())

    return keep


def gradients(model, clips, seed=5):
    model.zero_grad()
    torch.manual_seed(seed)
    clips = clips.clone().requires_grad_()
    logits = model.train()(clips)
    logits.square().sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), "clips": clips.grad, "drawn": torch.rand(2)} | found


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_and_random_numbers_are_those_of_kept_activations(name, kept):
    random = {"drop_path_rate": 0.4, "dropout": 0.1, "head_dropout": 0.3}
    model = model_of(name, **random)
    found = gradients(model, clip())
    kept()
    expected = gradients(model, clip())
    assert found.keys() == expected.keys() and len(found) > 50
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-8, atol=1e-10)


def test_memory_does_not_grow_with_the_number_of_blocks(kept):
    def saved(depth):
        model = small_model("rev_mvit", depth=depth, drop_path_rate=0.2).train()
        sizes = {}

        def pack(tensor):
            if not isinstance(tensor, torch.nn.Parameter):
                sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            model(clip(1, torch.float32))
        return sum(sizes.values())

    assert saved(13) == saved(5)
    kept()
    assert saved(13) > 1.5 * saved(5)


def test_the_second_derivative(kept):
    model, clips = model_of("learned", drop_path_rate=0.3), clip()

    def penalty():
        model.zero_grad()
        torch.manual_seed(0)
        probe = clips.clone().requires_grad_()
        (grad,) = torch.autograd.grad(model.train()(probe).sum(), probe, create_graph=True)
        grad.square().sum().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    found = penalty()
    kept()
    for name, value in penalty().items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-12)


def test_gradients_of_each_clip_by_vmap():
    model, clips = model_of("sides"), clip()
    parameters = dict(model.named_parameters())

    def loss(parameters, one):
        logits = torch.func.functional_call(model, parameters, one.unsqueeze(0))
        return logits.square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, clips)
    for k in range(len(clips)):
        model.zero_grad()
        loss(parameters, clips[k]).backward()
        for name, value in found.items():
            torch.testing.assert_close(value[k], model.get_parameter(name).grad)


def test_frozen_weights_keep_no_gradients_and_the_others_theirs():
    model = model_of()
    expected = gradients(model, clip())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".attn." not in name)
    found = gradients(model, clip())
    assert not any(".attn." in name for name in found)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])


def test_weights_changed_before_the_backward_pass_are_told():
    model = model_of()
    loss = model.train()(clip()).sum()
    with torch.no_grad():
        model.blocks[0].mlp.fc1.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("inside", [True, False])
def test_autocast(inside, kept):
    """The backward pass in the forward's precision; a region around both changes nothing."""
    model = small_model("rev_mvit", drop_path_rate=0.2).train()
    results = []
    for forget in (True, False):
        if not forget:
            kept()
        model.zero_grad()
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(clip(2, torch.float32)).float().square().mean()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        results.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert results[0].keys() == results[1].keys()
    for name, value in results[1].items():
        if value.abs().max() > 1e-4:
            assert relative_error(results[0][name], value) < 0.1, name


def test_hooks_and_half_precision_keep_activations(monkeypatch):
    """Hooks are called once a step, and streams in half precision are not taken apart."""
    monkeypatch.setattr(reversible._Reversible, "apply", None)
    model, called = small_model("rev_mvit").train(), []
    for block in (model.blocks[0], model.blocks[3].mlp.fc1):
        block.register_forward_hook(lambda m, i, o: called.append(m))
    model(clip(1, torch.float32)).sum().backward()
    assert len(called) == 2
    half = copy.deepcopy(small_model("rev_mvit")).to(torch.bfloat16).train()
    half(clip(1, torch.bfloat16)).sum().backward()
    with pytest.raises(TypeError):
        small_model("rev_mvit").train()(clip(1, torch.float32))


@pytest.mark.parametrize("name", OPTIONS)
def test_a_still_clip_has_the_logits_of_its_image(name):
    flat = {"patch_kernel": (1, 7, 7), "patch_stride": (1, 4, 4), "patch_padding": (0, 3, 3)}
    options = OPTIONS[name] | {"cls_key_log_frames": True}
    image = small_model("rev_mvit", num_frames=1, pool_kernel=(1, 3, 3), **flat, **options)
    video = small_model("rev_mvit", num_frames=8, sep_pos_embed=True, **options)
    for size in ((64, 64), (96, 64)):
        assert_still_clips_are_images(image, video, 8, size)


def test_features_of_each_stage_groups_and_a_new_head():
    model = small_model("rev_mvit").eval()
    maps = model.forward_intermediates(clip(2, torch.float32))
    assert [tuple(f.shape) for f in maps] == [(2, 32, 2, 16, 16), (2, 64, 2, 8, 8)]
    assert model.feature_info == ((32, (2, 4, 4)), (64, (2, 8, 8)))
    assert model.forward_features(clip(2, torch.float32)).shape == (2, 129, 64)
    names = [name for group in model.layer_groups() for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert len(model.layer_groups()) == 5 + 2
    model.reset_classifier(3)
    assert model(clip(2, torch.float32)).shape == (2, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["averages", "learned"])
def test_export_gives_the_same_numbers(name):
    model = small_model("rev_mvit", **OPTIONS[name]).eval()
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(model, (clip(2, torch.float32),), dynamic_shapes=shapes)
    for batch in (1, 3):
        clips = clip(batch, torch.float32)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(clips), model(clips))


def official(name: str) -> str:
    """A parameter's name in PySlowFast's reversible networks."""
    parts = name.split(".")
    ends = {"norm1": "F.norm", "norm2": "G.norm", "mlp": "G.mlp", "attn": "F.attn"}
    joins = {"mlp": "1", "norm": "0"}
    if parts[0] == "fuse":
        return ".".join(("fuse.fuse_fn", joins[parts[1]], *parts[2:]))
    if parts[0] != "blocks":
        return name
    if parts[2] == "fuse":
        inner = ("pre_q_fuse.fuse_fn", joins[parts[3]], *parts[4:])
    else:
        inner = (ends.get(parts[2], "res_proj"), *parts[3:])
    return ".".join(("rev_backbone.layers", parts[1], *inner))


def test_weights_of_pyslowfast_load_by_their_names():
    options = {"fusion": "ln+concat_linear"}
    model, other = model_of("learned", **options), model_of("learned", **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    state = {official(name): value for name, value in model.state_dict().items()}
    assert "rev_backbone.layers.2.pre_q_fuse.fuse_fn.1.fc1.weight" in state
    report = load_checkpoint(other, {"model_state": state})
    assert report.dialect == "pyslowfast, reversible"
    assert_everything_loaded(report, other, state)
    torch.testing.assert_close(other.eval()(clip()), model.eval()(clip()))
    plain = {n.replace("fuse_fn.1.", "fuse_fn."): v for n, v in state.items() if ".0." not in n}
    assert "fuse.fuse_fn.fc1.weight" in plain
    small = model_of("learned", fusion="concat_linear", transition_fusion="concat_linear_2")
    keep = {n: v for n, v in plain.items() if "fuse_fn" in n}
    report = load_checkpoint(small, {"model_state": state | keep}, strict=False)
    assert {"fuse.mlp.fc1.weight", "blocks.2.fuse.mlp.fc2.bias"} <= set(report.loaded)


CONFIG = """
MODEL: {MODEL_NAME: MViT, NUM_CLASSES: 5}
DATA: {NUM_FRAMES: 1, TRAIN_CROP_SIZE: 64, TEST_CROP_SIZE: 64, INPUT_CHANNEL_NUM: [3]}
MVIT:
  PATCH_2D: True
  CLS_EMBED_ON: False
  PATCH_KERNEL: [16, 16]
  PATCH_STRIDE: [16, 16]
  PATCH_PADDING: [0, 0]
  EMBED_DIM: 24
  NUM_HEADS: 3
  DEPTH: 3
  SEPARATE_QKV: True
  REV: {ENABLE: True, RESPATH_FUSE: concat, RES_PATH: conv, PRE_Q_FUSION: concat}
"""


def config(tmp_path, *overrides):
    (tmp_path / "rev.yaml").write_text(CONFIG, encoding="utf-8")
    return model_arguments(load_config(tmp_path / "rev.yaml", overrides))


def test_a_reversible_vit_by_the_equations(tmp_path):
    """Sec. 3.1: the streams x1, x2 of each block are x1 + F(x2), then x2 + G(that)."""
    name, arguments = config(tmp_path)
    model = randomise(create_model(name, **arguments))
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    p = dict(model.named_parameters())

    def norm(x, at):
        return F.layer_norm(x, x.shape[-1:], p[f"{at}.weight"], p[f"{at}.bias"], 1e-6)

    def linear(x, at):
        return F.linear(x, p[f"{at}.weight"], p[f"{at}.bias"])

    stem = p["patch_embed.proj.weight"].squeeze(2), p["patch_embed.proj.bias"]
    x = F.conv2d(image, *stem, stride=16).flatten(2).transpose(1, 2) + p["pos_embed"]
    x1 = x2 = x
    for block in ("blocks.0", "blocks.1", "blocks.2"):
        y = norm(x2, f"{block}.norm1")
        q, k, v = (
            linear(y, f"{block}.attn.{n}").unflatten(2, (3, 8)).transpose(1, 2) for n in "qkv"
        )
        weights = (q @ k.transpose(2, 3) / 8**0.5).softmax(-1)
        x1 = x1 + linear((weights @ v).transpose(1, 2).flatten(2), f"{block}.attn.proj")
        hidden = F.gelu(linear(norm(x1, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x2 = x2 + linear(hidden, f"{block}.mlp.fc2")
    pooled = norm(torch.cat((x1, x2), dim=-1), "norm").mean(dim=1)
    expected = linear(pooled, "head.projection")
    with torch.no_grad():
        assert relative_error(model(image), expected) < 1e-5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MVIT.DIM_MUL", "[[1, 2.0]]"), "block 1 strides or widens"),
        (("MVIT.POOL_Q_STRIDE", "[[1, 1, 2, 2]]"), "block 1 strides or widens"),
        (("MVIT.REV.BUFFER_LAYERS", "[2]"), "reversible block before, between and behind"),
        (("MVIT.REV.BUFFER_LAYERS", "[7]"), "of 3 blocks"),
        (("MVIT.REV.RES_PATH", "avg"), "shortcut is 'avg', expected conv or max"),
        (("MVIT.REV.RESPATH_FUSE", "mean"), "two streams are joined by 'mean'"),
        (("MVIT.REV.BUFFER_LAYERS", "[a]"), "must be a list of blocks"),
    ],
)
def test_what_cannot_be_built_is_said(overrides, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        name, arguments = config(tmp_path, *overrides)
        create_model(name, **arguments)
