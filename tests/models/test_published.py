"""The tables of published weights: every entry builds its model; names and shapes load."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import videonet
import videonet.models.weights as tables
from videonet.errors import CheckpointError, ConfigError
from videonet.models.weights import Weights, all_weights, fetch_weights

NAMES = videonet.list_weights()
MANIFESTS = {
    "mvit_v1_b.in1k": "mvitv1_b_16_image",
    "mvit_v1_b.k400": "mvitv1_b_16x4_k400",
    "mvit_v1_b.k400_torchvision": "torchvision_mvit_v1_b",
    "mvit_v2_b.k400": "mvitv2_b_32x3_k400",
    "mvit_v2_l.k400_from_in21k": "mvitv2_l_40x3_312_k400",
    "mvit_v2_s.k400": "mvitv2_s_16x4_k400",
    "mvit_v2_s.k400_torchvision": "torchvision_mvit_v2_s",
    "mvit_v2_s.ssv2": "mvitv2_s_16x4_ssv2",
    **{f"mvit_v2_{size}.in1k": f"mvitv2_{size}_image" for size in "tsbl"},
    **{f"swin_{size}.in1k": f"swin_{size}" for size in "tsb"},
    "swin_l.in1k_from_in22k": "swin_l",
    **{f"swin_{size}.k400": f"video_swin_{size}_k400" for size in "tsb"},
    "timesformer_b.k400": "hf_timesformer_base",
    "videomae_b.k400": "hf_videomae_base",
    "vivit_b.k400": "hf_vivit_b_16x2",
    "vjepa2_l.ssv2": "hf_vjepa2_vit_l_16x256",
    "hiera_b.in1k": "hiera_base_224",
    "hiera_b.k400": "hiera_base_16x224",
    "hiera_l.k400": "hiera_large_16x224",
    "cvt_13.in1k": "cvt_13",
    "cvt_21.in1k": "cvt_21",
    "cvt_w24.in1k_384_from_in22k": "cvt_w24",
    **{f"cyclemlp_b{size}.in1k": f"cyclemlp_b{size}" for size in range(1, 6)},
    **{f"asmlp_{size}.in1k": f"asmlp_{size}" for size in "tsb"},
    **{f"hrnet_w{width}.in1k": f"hrnet_w{width}" for width in (18, 32, 48)},
    **{f"dilateformer_{w[0]}.in1k": f"dilateformer_{w}" for w in ("tiny", "small", "base")},
    **{f"hornet_{w[0]}.in1k": f"hornet_{w}_7x7" for w in ("tiny", "small", "base")},
    **{f"hornet_gf_{w[0]}.in1k": f"hornet_{w}_gf" for w in ("tiny", "small", "base")},
}


def loaded(name: str, shapes: dict[str, list[int]]) -> videonet.LoadReport:
    """The report of loading random tensors of these shapes into the model of an entry."""
    weights = videonet.get_weights(name)
    with torch.device("meta"):  # nothing is computed, so nothing needs to be initialised
        model = videonet.create_model(weights.model, **weights.model_arguments())
    state = {key: torch.rand(()).expand(shape) for key, shape in shapes.items()}
    return videonet.load_checkpoint(model.to_empty(device="cpu"), state)


def assert_complete(report: videonet.LoadReport) -> None:
    assert not report.missing and not report.unexpected, str(report)
    assert not report.interpolated and not report.inflated, str(report)
    assert not [name for name in report.reinitialised if not name.startswith("head.")]


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_builds_its_model_and_states_its_preprocessing(name):
    weights = videonet.get_weights(name)
    with torch.device("meta"):
        model = videonet.create_model(weights.model, **weights.model_arguments())
    assert sum(p.numel() for p in model.parameters()) > 10**6
    assert weights.num_frames >= 1 and weights.size >= 192
    assert weights.short_side == 0 or weights.short_side > weights.size
    assert len(weights.mean) == len(weights.std) == 3
    assert all(0 <= value < 1 for value in weights.mean)
    assert all(0 < value <= 1 for value in weights.std)
    assert weights.interpolation in ("bilinear", "bicubic")
    assert weights.sampling in ("dense", "segments")
    told = weights.stride > 1 or weights.sampling == "segments" or weights.num_frames == 1
    assert told or "distance between frames is not stated" in weights.note
    assert weights.url or weights.page or weights.hub
    assert weights.source and weights.checked in ("", "manifest", "timm", "torchvision")
    names = weights.class_names
    assert names is None or len(names) == weights.num_classes


def test_names_are_readable_and_hashes_have_a_kind():
    for name, weights in all_weights().items():
        assert name == f"{weights.model}.{weights.tag}" and name == name.lower()
        kind, _, value = weights.hash.partition(":")
        assert (kind, value) == ("", "") or (kind in ("sha256", "md5") and int(value, 16))


def test_checked_by_a_manifest_means_that_there_is_one():
    claimed = {name for name, weights in all_weights().items() if weights.checked == "manifest"}
    assert claimed == set(MANIFESTS)


@pytest.mark.parametrize("name", sorted(MANIFESTS.keys() & set(NAMES)))
def test_names_and_shapes_of_the_official_network_load(name, shared_dir):
    path = shared_dir / f"reference/manifests/{MANIFESTS[name]}.json"
    manifest = json.loads(path.read_text())
    shapes = dict(manifest["parameters"])
    shapes |= {buffer[0]: buffer[1] for buffer in manifest["buffers"]}
    assert_complete(loaded(name, shapes))


OF_MAE = {  # whose fine-tuned networks are timm's
    "mae_b.in1k": "vit_base_patch16_224",
    "mae_l.in1k": "vit_large_patch16_224",
    "mae_h.in1k": "vit_huge_patch14_224",
}


def of_package(package: str) -> list[str]:
    return [name for name in NAMES if videonet.get_weights(name).checked == package]


@pytest.mark.slow
@pytest.mark.parametrize("name", of_package("timm"))
def test_names_and_shapes_of_timm_load(name):
    timm = pytest.importorskip("timm")
    weights = videonet.get_weights(name)
    own, options = weights.hub.removeprefix("timm/"), {"num_classes": weights.num_classes}
    if name in OF_MAE:
        own, options = OF_MAE[name], {**options, "global_pool": "avg"}
    with torch.device("meta"):
        model = timm.create_model(own, **options)
    assert_complete(loaded(name, {key: t.shape for key, t in model.state_dict().items()}))


@pytest.mark.slow
@pytest.mark.parametrize("name", of_package("torchvision"))
def test_names_and_shapes_of_torchvision_load(name):
    from torchvision.models import get_model, get_model_weights, list_models

    weights = videonet.get_weights(name)
    kind = weights.source.removeprefix("torchvision ").partition(".")[0]
    names = [n for n in list_models() if get_model_weights(n).__name__ == kind]
    size = {"image_size": weights.size} if names[0].startswith("vit") else {}
    with torch.device("meta"):
        network = get_model(names[0], **size)
    assert_complete(loaded(name, {key: t.shape for key, t in network.state_dict().items()}))


def test_names_are_found_and_near_ones_are_told():
    assert "mvit_v2_s.k400" in videonet.list_weights("mvit*")
    assert videonet.list_weights("*.nothing") == []
    with pytest.raises(ConfigError, match="no weights .k40., only .*did you mean .k400."):
        videonet.create_model("mvit_v2_s", weights="k40")
    with pytest.raises(ConfigError, match="did you mean mvit_v2_s.k400"):
        videonet.get_weights("mvit_v2s.k400")
    with pytest.raises(ConfigError, match="are weights of mvit_v2_s, expected those of swin_b"):
        videonet.create_model("swin_b", weights="mvit_v2_s.k400")


def test_image_weights_for_clips_get_windows_over_time():
    weights = videonet.get_weights("swin_b.in1k_384")
    assert weights.model_arguments()["window_size"] == [1, 12, 12]
    assert weights.model_arguments(num_frames=32)["window_size"] == [8, 12, 12]


@pytest.fixture
def small(monkeypatch, tmp_path) -> Weights:
    """An entry for videonet's own smallest model, whose file lies in the cache."""
    names = [f"class {index}" for index in range(5)]
    entry = Weights(
        "mvit_v2_xs.toys",
        {"num_frames": 4, "crop_size": 32},
        num_classes=5,
        size=32,
        interpolation="bilinear",
        source="a test",
        classes="toys",
        short_side=40,
        stride=2,
        page="https://somewhere.example/page",
        licence="CC-BY-NC-4.0",
    )
    monkeypatch.setenv("VIDEONET_HOME", str(tmp_path))
    monkeypatch.setattr(tables, "all_weights", lambda: {entry.name: entry})
    monkeypatch.setattr(tables, "names_of", lambda classes: names if classes else None)
    return entry


def put(weights: Weights, folder: Path) -> torch.Tensor:
    """Write a file for an entry, as somebody does who fetched it by hand; its classifier."""
    torch.manual_seed(0)
    model = videonet.create_model(weights.model, **weights.model_arguments())
    (folder / "weights").mkdir()
    torch.save({"model_state": model.state_dict()}, folder / "weights" / f"{weights.name}.pyth")
    return model.head.projection.weight.detach()


def test_weights_without_a_link_say_where_they_belong(small, tmp_path):
    with (
        pytest.warns(UserWarning, match="CC-BY-NC-4.0, which forbids commercial use"),
        pytest.raises(CheckpointError, match="https://somewhere.example/page") as caught,
    ):
        videonet.create_model("mvit_v2_xs", weights="toys")
    assert str(tmp_path / "weights" / "mvit_v2_xs.toys.pth") in str(caught.value)


@pytest.mark.filterwarnings("ignore:the weights mvit_v2_xs.toys")
def test_a_name_brings_weights_arguments_and_a_head(small, tmp_path):
    rows = put(small, tmp_path)
    for weights in ("toys", "mvit_v2_xs.toys"):
        model = videonet.create_model("mvit_v2_xs", weights=weights)
        assert torch.equal(model.head.projection.weight, rows)
        assert model(torch.zeros(1, 3, 4, 32, 32)).shape == (1, 5)
    model = videonet.create_model("mvit_v2_xs", weights="toys", num_classes=3)
    assert model.head.projection.weight.shape[0] == 3
    model = videonet.create_model("mvit_v2_xs", weights="toys", class_names=["new", "Class_3"])
    assert torch.equal(model.head.projection.weight[1], rows[3])
    assert not torch.equal(model.head.projection.weight[0], rows[0])


@pytest.mark.filterwarnings("ignore:the weights mvit_v2_xs.toys")
def test_a_file_with_another_hash_is_refused(small, tmp_path, monkeypatch):
    put(small, tmp_path)
    entry = replace(small, hash="sha256:00000000")
    monkeypatch.setattr(tables, "all_weights", lambda: {entry.name: entry})
    with pytest.raises(CheckpointError, match="is not the published file: its sha256 begins"):
        fetch_weights("mvit_v2_xs.toys")


@pytest.mark.parametrize(
    ("licence", "said"),
    [("", "come without a licence"), ("SWAG", "a licence of their own: SWAG")],
)
def test_licences_that_are_not_permissive_are_told(small, monkeypatch, licence, said):
    entry = replace(small, licence=licence)
    monkeypatch.setattr(tables, "all_weights", lambda: {entry.name: entry})
    with pytest.warns(UserWarning, match=said), pytest.raises(CheckpointError):
        fetch_weights("mvit_v2_xs.toys")


def test_permissive_ones_are_not(small, monkeypatch, recwarn):
    entry = replace(small, licence="MIT")
    monkeypatch.setattr(tables, "all_weights", lambda: {entry.name: entry})
    with pytest.raises(CheckpointError):
        fetch_weights("mvit_v2_xs.toys")
    assert not [w for w in recwarn if "weights" in str(w.message)]
