"""Names of other projects, there and back."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models.video.mvit import MSBlockConfig
from torchvision.models.video.mvit import MViT as TorchvisionMViT

from tests.models.invariants import randomise
from videonet.checkpoint import load_checkpoint, read_checkpoint, write_checkpoint
from videonet.checkpoint.convert import convert_checkpoint
from videonet.checkpoint.names import Row, compile_template
from videonet.errors import CheckpointError
from videonet.models import create_model

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "depth": 2,
    "embed_dim": 12,
    "dim_mul": {1: 2.0},
    "head_mul": {1: 2.0},
    "crop_size": 32,
    "num_frames": 8,
    "num_classes": 5,
    "pool_q_stride": {0: (1, 1, 1), 1: (1, 2, 2)},
    "pool_kv_stride_adaptive": (1, 8, 8),
}
BLOCKS = {  # torchvision's table for SMALL: widths grow in the attention (v2) or in the MLP (v1)
    "mvit_v2_xs": [(1, 12, 12), (2, 12, 24)],
    "mvit_v1_b": [(1, 12, 24), (2, 24, 24)],
}


def small(name, **changes):
    return create_model(name, **(SMALL | changes)).eval()


def torchvision_peer(name):
    kernel, strides = [3, 3, 3], ([1, 1, 1], [1, 2, 2])
    v2 = name == "mvit_v2_xs"
    blocks = [
        MSBlockConfig(heads, dim, dim_out, kernel, kernel, q, kv)
        for (heads, dim, dim_out), q, kv in zip(
            BLOCKS[name], strides, ([1, 8, 8], [1, 4, 4]), strict=True
        )
    ]
    if not v2:
        blocks[0].kernel_q = blocks[0].stride_q = []
    return TorchvisionMViT(
        spatial_size=(32, 32),
        temporal_size=8,
        block_setting=blocks,
        residual_pool=v2,
        residual_with_cls_embed=False,
        rel_pos_embed=v2,
        proj_after_attn=v2,
        num_classes=5,
    ).eval()


def ours(name):
    return small(name) if name == "mvit_v2_xs" else small(name, pool_q_stride={1: (1, 2, 2)})


@pytest.mark.parametrize("name", BLOCKS)
def test_torchvision_runs_what_is_written_for_it(tmp_path, name):
    model, peer = ours(name), torchvision_peer(name)
    write_checkpoint(tmp_path / "own.pyth", {"model_state": model.state_dict(), "epoch": 3})
    found = convert_checkpoint(tmp_path / "own.pyth", tmp_path / "theirs.pth", "torchvision")
    assert found == ("pyslowfast", len(model.state_dict()))
    peer.load_state_dict(torch.load(tmp_path / "theirs.pth", weights_only=True))
    clip = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(peer(clip), model(clip), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("suffix", [".pyth", ".safetensors"])
def test_there_and_back_changes_nothing(tmp_path, name, suffix):
    own, there, back = (tmp_path / f"{step}{suffix}" for step in ("own", "there", "back"))
    state = ours(name).state_dict()
    write_checkpoint(own, {"model_state": state, "class_names": list("abcde"), "cfg": "x: 1\n"})
    for to, dialect in (("torchvision", "torchvision"), ("pyslowfast", "pyslowfast")):
        convert_checkpoint(own, there, to)
        assert convert_checkpoint(there, back, "videonet")[0] == dialect
        found = read_checkpoint(back)["model_state"]
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)
    convert_checkpoint(own, back, "videonet")
    content = read_checkpoint(back)
    assert content["class_names"] == list("abcde") and content["cfg"] == "x: 1\n"


def test_an_image_model_gets_the_flat_stem_of_pyslowfast(tmp_path):
    state = small("mvit_v2_xs", num_frames=1).state_dict()
    write_checkpoint(tmp_path / "own.pyth", {"model_state": state})
    convert_checkpoint(tmp_path / "own.pyth", tmp_path / "there.pyth", "pyslowfast")
    there = read_checkpoint(tmp_path / "there.pyth")["model_state"]
    assert there["patch_embed.proj.weight"].shape == (12, 3, 7, 7)
    assert there["blocks.0.attn.pool_q.weight"].shape == (12, 1, 1, 3, 3)
    report = load_checkpoint(small("mvit_v2_xs", num_frames=1), there)
    assert report.loaded == list(state) and report.dialect == "mvit"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_frames": 1}, "is of images, which torchvision has no model for"),
        ({"use_abs_pos": True}, "no place for pos_embed"),
        ({"norm_stem": True}, "no place for norm_stem.weight"),
        ({"cls_token": False}, "needs pos_encoding.class_token"),
    ],
)
def test_what_torchvision_cannot_express_is_refused(tmp_path, changes, message):
    path = tmp_path / "own.pyth"
    write_checkpoint(path, {"model_state": small("mvit_v2_xs", **changes).state_dict()})
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(path, tmp_path / "there.pth", "torchvision")
    assert not (tmp_path / "there.pth").exists()


VIT = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch_size": 8, "crop_size": 16}
VIT |= {"num_classes": 5}


def test_transformers_runs_a_videomae_that_is_written_for_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    grid = {"num_frames": 4, "sine_grid": (2, 2, 2)}
    model = create_model("videomae_b", **VIT, **grid, norm_eps=1e-12, last_norm_eps=1e-5)
    model = randomise(model)
    own, folder = tmp_path / "own.pyth", tmp_path / "hub"
    write_checkpoint(own, {"model_state": model.state_dict()})
    folder.mkdir()
    found = convert_checkpoint(own, folder / "model.safetensors", "transformers-videomae")
    assert found[0] == "videomae"
    transformers.VideoMAEConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=16,
        patch_size=8,
        num_frames=4,
        num_labels=5,
    ).save_pretrained(folder)
    peer, report = transformers.VideoMAEForVideoClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys"))
    clip = torch.randn(2, 3, 4, 16, 16)
    with torch.no_grad():
        theirs = peer.eval()(clip.transpose(1, 2)).logits
        torch.testing.assert_close(theirs, model(clip), rtol=1e-4, atol=1e-4)


def test_timm_runs_a_vit_that_is_written_for_it(tmp_path):
    vision_transformer = pytest.importorskip("timm.models.vision_transformer")
    options = {"num_registers": 2, "layer_scale": 0.1, "qk_norm": True}
    model = randomise(create_model("vit_b", num_frames=1, **VIT, **options))
    write_checkpoint(tmp_path / "own.pyth", {"model_state": model.state_dict()})
    convert_checkpoint(tmp_path / "own.pyth", tmp_path / "there.pth", "timm-vit")
    sizes = {"img_size": 16, "patch_size": 8, "num_classes": 5, "embed_dim": 24, "depth": 2}
    peer = vision_transformer.VisionTransformer(
        **sizes, num_heads=3, reg_tokens=2, init_values=0.1, qk_norm=True
    )
    peer.load_state_dict(torch.load(tmp_path / "there.pth", weights_only=True))
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(peer.eval()(image), model(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("to", ["videomae", "transformers-videomae"])
def test_a_videomae_there_and_back(tmp_path, to):
    own, there, back = (tmp_path / f"{step}.pyth" for step in ("own", "there", "back"))
    options = {"layer_scale": 0.1, "cos_attn": True} if to == "videomae" else {}
    model = create_model("videomae_b", num_frames=4, **VIT, **options)
    state = randomise(model).state_dict()
    write_checkpoint(own, {"model_state": state})
    convert_checkpoint(own, there, to)
    assert convert_checkpoint(there, back, "videonet")[0] == to.replace("-", " ")
    report = load_checkpoint(create_model("videomae_b", num_frames=4, **VIT, **options), back)
    assert sorted(report.loaded) == sorted(state)


@pytest.mark.parametrize(
    ("name", "options", "to", "message"),
    [
        ("vit_b", {"num_frames": 4}, "timm-vit", "is of clips, which timm-vit has no model for"),
        ("videomae_b", {"num_frames": 4, "layer_scale": 0.1}, "transformers-videomae", "no place"),
        ("vit_b", {"num_frames": 4, "cls_token": False}, "videomae", "no place for pos_embed_sp"),
        ("videomae_b", {"num_frames": 1}, "videomae", "is of images"),
    ],
)
def test_a_vit_that_a_project_does_not_have_is_refused(tmp_path, name, options, to, message):
    model = create_model(name, **VIT, **options)
    write_checkpoint(tmp_path / "own.pyth", {"model_state": model.state_dict()})
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(tmp_path / "own.pyth", tmp_path / "there.pth", to)


def test_separate_projections_are_fused_and_split():
    fused, separate = small("mvit_v2_xs"), small("mvit_v2_xs", separate_qkv=True)
    clip = torch.randn(1, 3, 8, 32, 32)
    for source, target in ((separate, fused), (fused, separate)):
        torch.manual_seed(0)
        source.reset_classifier(5)
        report = load_checkpoint(target, source.state_dict())
        assert sorted(report.used) == sorted(source.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(target.eval()(clip), source.eval()(clip))


def test_pytorchvideo_weights_do_not_go_into_a_model_that_pools_first():
    state = small("mvit_v1_b", separate_qkv=True, pool_q_stride={1: (1, 2, 2)}).state_dict()
    state["norm_embed.weight"] = state.pop("norm.weight")  # the mark of that project
    with pytest.raises(CheckpointError, match="pytorchvideo.*pool_first=False"):
        load_checkpoint(small("mvit_v1_b", pool_first=True), state)


def test_rows_translate_whole_names_both_ways():
    row = Row("blocks.{n}.attn.project.0.{leaf}", "blocks.{n}.attn.proj.{leaf}")
    assert row.to_ours("blocks.12.attn.project.0.bias") == "blocks.12.attn.proj.bias"
    assert row.to_theirs("blocks.12.attn.proj.bias") == "blocks.12.attn.project.0.bias"
    assert row.to_ours("x.blocks.12.attn.project.0.bias") is None
    assert row.to_ours("blocks.12.attn.project.1.bias") is None
    assert compile_template("a.{n}").fullmatch("aX1") is None  # a dot is a dot


@pytest.fixture
def run(monkeypatch, capsys):
    """The tool as its command line: arguments -> exit code, stdout, stderr."""

    def run_tool(*arguments):
        monkeypatch.setattr(sys, "argv", ["convert_checkpoint.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(ROOT / "tools" / "convert_checkpoint.py"), run_name="__main__")
        return exit_.value.code, *capsys.readouterr()

    return run_tool


def test_the_tool_converts_and_explains(tmp_path, run):
    own, there = tmp_path / "own.pyth", tmp_path / "there.pth"
    write_checkpoint(own, {"model_state": ours("mvit_v2_xs").state_dict()})
    code, out, _ = run(own, there, "--to", "torchvision")
    assert code == 0 and str(there) in out and "pyslowfast" in out
    assert "conv_proj.weight" in torch.load(there, weights_only=True)

    missing = tmp_path / "nothing.pyth"
    assert run(missing, there) == (1, "", f"error: checkpoint {missing} does not exist\n")
    assert run(own)[0] == 2
