"""Reduced official HorNets with random weights: the same logits."""

import pytest
import torch

import videonet
from tests.models.invariants import assert_everything_loaded, assert_same_as_recorded, read_record
from videonet.checkpoint import load_checkpoint
from videonet.errors import ConfigError

RECORDS = ["conv7x7", "eps_probe", "gf", "gf_resized_rect"]
GATED_CONV = {"order": 5, "s": 1.0, "gflayer": None, "h": 14, "w": 8}  # the official defaults


def arguments_of(constructor):
    """Our arguments for the official ``HorNet(**constructor)``."""
    arguments = dict(constructor)
    stages = arguments.pop("gnconv", {})
    stages = stages if isinstance(stages, list) else [stages] * 4
    stages = [GATED_CONV | stage for stage in stages]
    assert {stage["gflayer"] for stage in stages} <= {None, "GlobalLocalFilter"}
    arguments.pop("uniform_init", None)  # random weights are not compared
    arguments["depths"] = arguments.get("depths", (3, 3, 9, 3))
    arguments["base_dim"] = arguments.get("base_dim", 96)
    arguments["in_channels"] = arguments.pop("in_chans", 3)
    arguments["layer_scale_init"] = arguments.pop("layer_scale_init_value", 1e-6)
    return arguments | {
        "orders": [stage["order"] for stage in stages],
        "scale": [stage["s"] for stage in stages],
        "global_filter": [stage["gflayer"] is not None for stage in stages],
        "filter_sizes": [(stage["h"], stage["w"]) for stage in stages],
    }


@pytest.mark.parametrize("variant", RECORDS)
def test_official_hornet(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "hornet" / variant)
    arguments = arguments_of(record["constructor"])
    model = videonet.create_model("hornet", num_frames=1, **arguments)
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, {"model": state})
    assert report.dialect == "hornet"
    assert_everything_loaded(report, model, state)
    assert_same_as_recorded(model, record, tensors)


def test_every_record_is_tested(shared_dir):
    folder = shared_dir / "reference" / "hornet"
    assert sorted(RECORDS) == sorted(path.stem for path in folder.glob("*.json"))


def test_filters_of_another_size_are_interpolated_at_load_as_at_run_time(shared_dir):
    record, tensors, state = read_record(shared_dir / "reference" / "hornet" / "gf_resized_rect")
    arguments = arguments_of(record["constructor"]) | {"filter_sizes": None}
    height, width = record["input"]["shape"][2:]
    model = videonet.create_model("hornet", num_frames=1, crop_size=(height, width), **arguments)
    report = load_checkpoint(model, state)
    assert report.interpolated == [
        f"stages.{stage}.0.gnconv.dwconv.complex_weight" for stage in (2, 3)
    ]
    assert model.stages[2][0].gnconv.dwconv.complex_weight.shape[1:4] == (1, 4, 4)
    assert_same_as_recorded(model, record, tensors)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"cls_token": True}, "no class token"),
        ({"orders": (2, 3, 4)}, "one entry per stage"),
        ({"temporal_kernel": 2}, "has no centre"),
        ({"base_dim": 4, "orders": (4, 4)}, "order 4 does not fit width 4"),
        ({"base_dim": 5, "global_filter": (True, True)}, "halves its channels, but there are 7"),
    ],
)
def test_contradictions_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        videonet.create_model("hornet_xs", **arguments)


def test_frames_that_vanish_on_the_way_are_refused():
    model = videonet.create_model("hornet_xs", num_classes=3)
    with pytest.raises(ConfigError, match="6 pixels wide"):
        model(torch.randn(1, 3, 8, 48, 6))


def test_a_downsampling_belongs_to_the_block_before_it():
    model = videonet.create_model("hornet_t", depths=(1, 2, 1, 1), base_dim=8, num_classes=3)
    groups = model.layer_groups()
    assert [sorted({name.split(".")[1] for name in group}) for group in groups[:1]] == [["0"]]
    weights = [f"downsample_layers.{i}.1.weight" for i in (1, 2, 3)]
    assert [next(i for i, group in enumerate(groups) if w in group) for w in weights] == [1, 3, 4]
