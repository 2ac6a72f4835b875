"""The report accounts for every tensor, and strict loading refuses what does not fit."""

import pytest
import torch
from torchvision.models import resnet18, vit_b_16

from videonet.checkpoint import load_checkpoint, read_checkpoint, write_checkpoint
from videonet.checkpoint.report import DROPPED, PARTIAL, STATUSES, UNEXPECTED, USED
from videonet.errors import CheckpointError
from videonet.models import create_model


def tiny(seed=0, **changes):
    torch.manual_seed(seed)
    return create_model("mvit_v2_xs", **({"num_classes": 5} | changes)).eval()


def copy_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_unchanged(model, before):
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("suffix", [".pyth", ".safetensors"])
def test_saved_and_loaded_is_the_same_model(tmp_path, suffix):
    model, other = tiny(0), tiny(1)
    path = tmp_path / f"x{suffix}"
    write_checkpoint(path, {"model_state": model.state_dict(), "class_names": list("abcde")})
    report = load_checkpoint(other, path)
    assert report.loaded == list(model.state_dict()) and report.dialect == "videonet"
    clip = torch.randn(1, 3, 8, 48, 48)
    with torch.no_grad():
        assert torch.equal(model(clip), other(clip))


@pytest.mark.parametrize("wrap", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_put_in_front_by_wrappers_are_taken_off(wrap):
    model, other = tiny(0), tiny(1)
    wrapped = {wrap + name: value for name, value in model.state_dict().items()}
    load_checkpoint(other, {"state_dict": wrapped, "epoch": 3})
    assert_unchanged(other, copy_of(model))


def test_every_tensor_of_both_sides_is_in_the_report_once():
    source = tiny(num_frames=1, num_classes=9, cls_token=False, crop_size=64).state_dict()
    source |= {"head.extra": torch.zeros(2), "cfg": "no tensor"}
    model = tiny()
    report = load_checkpoint(model, source)
    assert [e.name for e in report.target] == list(model.state_dict())
    assert {e.name for e in report.source} == source.keys() - {"cfg"}
    assert len(report.source) == len(source) - 1
    assert {e.status for e in report.target} <= set(STATUSES)
    assert {e.status for e in report.source} <= {USED, DROPPED, UNEXPECTED}
    assert report.unexpected == ["head.extra"]  # of the head, so strict loading allows it
    for status in ("inflated", "interpolated", "reinitialised"):
        assert getattr(report, status)


def test_the_printed_report_is_a_short_table(tmp_path):
    path = tmp_path / "image.pyth"
    write_checkpoint(path, {"model_state": tiny(num_frames=1, num_classes=9).state_dict()})
    text = str(load_checkpoint(tiny(), path))
    lines = text.splitlines()
    assert str(path) in lines[0] and len(lines) <= 12
    for status in {*STATUSES, UNEXPECTED} - {PARTIAL}:
        assert any(line.split()[:1] == [status] for line in lines)
    assert "temporal kernel 1 -> 3" in text and "other classes" in text and "note:" in text


def test_strict_refuses_missing_unexpected_and_misshapen_tensors_by_name():
    state = tiny(1).state_dict()
    for name in ("0.norm1", "0.norm2", "1.norm1", "2.norm1"):
        del state[f"blocks.{name}.weight"]
    state["blocks.9.norm1.weight"] = torch.zeros(3)
    state["norm.weight"] = torch.zeros(3)
    model = tiny(0)
    before = copy_of(model)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, state)
    message = str(caught.value)
    assert "4 missing (blocks.0.norm1.weight, blocks.0.norm2.weight, " in message
    assert "blocks.2" not in message and "…" in message
    assert "1 of another shape (norm.weight: (96,) here, (3,) in the checkpoint)" in message
    assert "1 unexpected (blocks.9.norm1.weight)" in message
    assert "\n" not in message
    assert_unchanged(model, before)

    report = load_checkpoint(model, state, strict=False)
    assert len(report.missing) == 4 and report.unexpected == ["blocks.9.norm1.weight"]
    assert report.reinitialised == ["norm.weight"]
    assert torch.equal(model.norm.weight, before["norm.weight"])
    assert torch.equal(model.norm.bias, state["norm.bias"])


@pytest.mark.parametrize(
    "build, looks",
    [
        (resnet18, "looks like a ResNet: 0 of its 122 tensors fit this MViT"),
        (vit_b_16, "looks like a vision transformer: 0 of its 152 tensors fit this MViT"),
        (
            lambda: create_model("mvit_v2_s", num_frames=8),
            "looks like an MViT of another size: 0 of its",
        ),
        (lambda: torch.nn.Linear(2, 2), "is of another architecture: 0 of its 2 tensors"),
    ],
    ids=["resnet", "vit", "mvit", "linear"],
)
@pytest.mark.parametrize("strict", [True, False])
def test_another_architecture_gets_one_sentence(tmp_path, build, looks, strict):
    with torch.device("meta"):
        state = build().state_dict()
    path = tmp_path / "other.pth"
    torch.save({name: torch.zeros(value.shape) for name, value in state.items()}, path)
    model = tiny()
    before = copy_of(model)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, path, strict=strict)
    assert str(caught.value).startswith(f"{path} {looks}")
    assert_unchanged(model, before)


def test_a_dictionary_without_weights_is_refused():
    with pytest.raises(CheckpointError, match="no weights: its keys are epoch, cfg"):
        load_checkpoint(tiny(), {"epoch": 1, "cfg": "x"})


def test_training_state_of_the_project_loads(tmp_path):
    model = tiny(1)
    optimizer = torch.optim.AdamW(model.parameters())
    path = tmp_path / "checkpoint_epoch_00001.pyth"
    write_checkpoint(
        path,
        {
            "model_state": model.state_dict(),
            "optimizer_state": optimizer.state_dict(),
            "cfg": "MODEL: {NAME: mvit_v2_xs}",
            "class_names": None,
            "epoch": 1,
        },
    )
    other = tiny(0)
    assert load_checkpoint(other, path).origin == str(path)
    assert_unchanged(other, read_checkpoint(path)["model_state"])
