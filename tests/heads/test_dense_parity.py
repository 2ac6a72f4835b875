"""Necks and semantic heads: the official numbers, with the official names."""

import pytest
import torch
from torch import nn

from tests.models.invariants import (
    TOLERANCE,
    module_outputs,
    read_record,
    relative_error,
)
from tests.models.test_hrnet_parity import official as official_hrnet
from videonet.checkpoint import load_checkpoint
from videonet.checkpoint.recognition import without_wrappers
from videonet.heads.fpn import FPN
from videonet.heads.hor_fpn import HorFPN
from videonet.heads.hrfpn import HRFPN
from videonet.heads.semantic import SemanticFPNHead, hrnet_head
from videonet.heads.simple_pyramid import SimplePyramid
from videonet.heads.uper import UPerHead
from videonet.models.segmenter import SemanticSegmenter

NORMS = {"BN": "batch", "BatchNorm2d": "batch", "GN": "group", "LN": "layer", None: None, "": None}
EXTRA = {"on_input": "input", "on_lateral": "lateral", "on_output": "output", True: "input"}
SYSTEMS = ["fpn", "hor_fpn", "hrfpn", "hrnet_seg", "uper_head", "semantic_fpn"]


def norm_of(config):
    """Our name of the norm in a configuration of mmcv."""
    config = config if isinstance(config, dict) else {"type": config}
    groups = f":{config['num_groups']}" if "num_groups" in config else ""
    return None if config["type"] is None else NORMS[config["type"]] + groups


def fpn(in_channels, out_channels, **theirs):
    """Our arguments for ``FPN(in_channels, out_channels, **theirs)`` of mmdet."""
    arguments = {"in_channels": in_channels, "out_channels": out_channels}
    arguments["num_outs"] = theirs.pop("num_outs", None)
    arguments["start_level"] = theirs.pop("start_level", 0)
    if (end := theirs.pop("end_level", -1)) != -1:
        arguments["end_level"] = end
    if extra := theirs.pop("add_extra_convs", False):
        arguments["extra"] = EXTRA[extra]
    arguments["relu_before_extra"] = theirs.pop("relu_before_extra_convs", False)
    arguments["norm"] = norm_of(theirs.pop("norm_cfg", None))
    arguments["norm_on_laterals"] = not theirs.pop("no_norm_on_lateral", False)
    arguments["relu"] = theirs.pop("act_cfg", None) is not None
    arguments["upsample"] = theirs.pop("upsample_cfg", {"mode": "nearest"})["mode"]
    assert not theirs
    return arguments


def torchvision_fpn(in_channels_list, out_channels, extra_blocks=None, norm_layer=None):
    """Our arguments for torchvision's ``FeaturePyramidNetwork``."""
    levels = len(in_channels_list)
    extra = {}
    if extra_blocks == "LastLevelMaxPool":
        extra = {"num_outs": levels + 1}
    elif extra_blocks == "LastLevelP6P7":
        same = in_channels_list[-1] == out_channels
        extra = {
            "num_outs": levels + 2,
            "extra": "output" if same else "input",
            "relu_before_extra": True,
            "norm_on_extra": False,
        }
    return extra | {
        "in_channels": in_channels_list,
        "out_channels": out_channels,
        "norm": NORMS[norm_layer],
    }


def gated(config, square):
    """Kernel, order and filter of a ``GNConvModule``; `square`: filters are ``h × (h//2 + 1)``."""
    height = config.get("h", 32)
    width = height // 2 + 1 if square else config.get("w", 17)
    return {
        "kernel": config.get("kernel_size", 3 if square else 7),
        "order": config.get("order", 2),
        "filter_size": (1, height, width) if config["type"] == "gngf" else None,
        "project": config.get("proj_out", False),
        "ratio": config.get("dim_ratio", 1),
    }


def hor_fpn(gn_conv_cfg, **theirs):
    options = gated(gn_conv_cfg, square=False)
    ratio = options.pop("ratio")
    return fpn(**theirs) | options | {"width_ratio": ratio}


def uper(in_channels, channels, num_classes, conv_cfg=None, **theirs):
    """Our arguments for ``UPerHead`` of mmseg or ``GNUPerHead`` of HorNet."""
    options = {}
    if conv_cfg is not None:
        gates = gated(conv_cfg, square=True)
        ratio = gates.pop("ratio")
        options = {"gates": gates | {"width": channels * ratio}}
    options |= {
        "in_channels": in_channels,
        "channels": channels,
        "num_classes": num_classes,
        "indices": theirs.pop("in_index"),
        "dropout": theirs.pop("dropout_ratio"),
        "norm": norm_of(theirs.pop("norm_cfg")),
        "align_corners": theirs.pop("align_corners"),
        "pool_scales": theirs.pop("pool_scales", (1, 2, 3, 6)),
    }
    assert not theirs
    return options


def hrfpn(in_channels, out_channels, num_outs=5, pooling_type="AVG", **theirs):
    stride = theirs.pop("stride", 1)
    assert not theirs
    return HRFPN(
        in_channels, out_channels, num_outs=num_outs, pooling=pooling_type.lower(), stride=stride
    )


class NeckAndHead(nn.Module):
    """A segmentation without its backbone."""

    def __init__(self, neck, decode_head):
        super().__init__()
        d = decode_head
        self.neck = FPN(**fpn(**neck))
        self.decode_head = SemanticFPNHead(
            d["in_channels"],
            d["num_classes"],
            d["channels"],
            strides=d["feature_strides"],
            norm=NORMS[d["norm"]],
            align_corners=d["align_corners"],
        )

    def forward(self, maps):
        return self.decode_head(self.neck(maps))


def hrnet_segmenter(MODEL, DATASET):
    corners, extra = MODEL["ALIGN_CORNERS"], MODEL["EXTRA"]
    stages = {name: plan for name, plan in extra.items() if name.startswith("STAGE")}
    backbone = official_hrnet(
        {"MODEL": {"EXTRA": stages}},
        num_classes=0,
        fuse_upsample="bilinear",
        fuse_align_corners=corners,
    )
    head = hrnet_head(
        [info.channels for info in backbone.feature_info],
        DATASET["NUM_CLASSES"],
        align_corners=corners,
        conv_bias=True,
        classifier_kernel=extra["FINAL_CONV_KERNEL"],
    )
    return SemanticSegmenter(backbone, head)


BUILDERS = {
    "FPN": lambda **theirs: FPN(**fpn(**theirs)),
    "FeaturePyramidNetwork": lambda **theirs: FPN(**torchvision_fpn(**theirs)),
    "GNFPN": lambda **theirs: HorFPN(**hor_fpn(**theirs)),
    "HRFPN": hrfpn,
    "UPerHead": lambda **theirs: UPerHead(**uper(**theirs)),
    "GNUPerHead": lambda **theirs: UPerHead(**uper(**theirs)),
    "FPN + FPNHead": NeckAndHead,
    "HighResolutionNet": hrnet_segmenter,
}


def assert_everything_loaded(report, model, state):
    """Every tensor here is loaded unchanged, and every one there is used."""
    assert sorted(report.loaded) == sorted(map(without_wrappers, model.state_dict()))
    assert sorted(report.used) == sorted(state) and not report.unexpected


def records(shared_dir, system):
    paths = sorted((shared_dir / "reference" / system).glob("*.json"))
    assert paths
    return {path.stem: read_record(path) for path in paths}


def assert_maps(found, tensors, name="output"):
    """Our maps (B, C, 1, H, W) and the recorded ``name.*``, or the only one, ``name``."""
    keys = [key for key in tensors if key.split(".")[0] == name]
    found = found if isinstance(found, list) else [found]
    for key, x in zip(sorted(keys), found, strict=True):
        assert x.shape[2] == 1 and x.squeeze(2).shape == tensors[key].shape, key
        error = relative_error(x.squeeze(2), tensors[key])
        assert error <= TOLERANCE, f"{key}: {error:.1e}"


@pytest.mark.parametrize("system", SYSTEMS)
def test_official_numbers(shared_dir, system):
    for record, tensors, state in records(shared_dir, system).values():
        model = BUILDERS[record["official"]["class"]](**record["constructor"]).eval()
        assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
        assert_everything_loaded(load_checkpoint(model, state), model, state)
        inside = dict(model.named_modules())
        modules = {key: feature["module"] for key, feature in record["features"].items()}
        features = module_outputs(model, {k: m for k, m in modules.items() if m in inside})
        with torch.no_grad():
            if "input" in tensors:
                clip = tensors["input"].unsqueeze(2)
                maps = model.forward_maps(clip)
                assert_maps(maps, tensors, "feature")
                found = model.decode_head(maps)
            else:
                count = sum(key.startswith("input.") for key in tensors)
                found = model([tensors[f"input.{i}"].unsqueeze(2) for i in range(count)])
        assert_maps(found, tensors)
        for key, x in features.items():
            assert relative_error(x.squeeze(2), tensors[key]) <= TOLERANCE, key


def test_hrnet_in_the_form_of_mmsegmentation(shared_dir):
    record, tensors, state = read_record(shared_dir / "reference" / "bpr_hrnet" / "plain")
    stages = {
        name: {key.upper(): value for key, value in plan.items()}
        for name, plan in record["constructor"]["extra"].items()
    }
    cfg = {"MODEL": {"EXTRA": stages}}
    backbone = official_hrnet(cfg, num_classes=0, fuse_upsample="bilinear")
    head = record["constructor"]["decode_head"]
    decode_head = hrnet_head(head["in_channels"], head["num_classes"])
    model = SemanticSegmenter(backbone, decode_head).eval()
    assert_everything_loaded(load_checkpoint(model, state), model, state)
    with torch.no_grad():
        found = model(tensors["input"])  # at the size of the image
    assert_maps(found, tensors)


def test_the_names_of_hrnets_own_detectors(shared_dir):
    record, tensors, state = read_record(shared_dir / "reference" / "hrfpn" / "avg")
    maps = [tensors[f"input.{i}"].unsqueeze(2) for i in range(4)]
    theirs = {
        name.replace("reduction_conv.conv", "reduction_conv.0")
        .replace("fpn_convs", "fpn_conv")
        .replace("conv.weight", "weight")
        .replace("conv.bias", "bias"): x
        for name, x in state.items()
    }
    model = hrfpn(**record["constructor"]).eval()
    report = load_checkpoint(model, theirs)
    assert report.dialect == "hrnet_detection_hrfpn"
    assert_everything_loaded(report, model, theirs)
    assert_maps(model(maps), tensors)
    one = {name: x for name, x in theirs.items() if not name.startswith("fpn_conv")}
    one |= {f"fpn_conv.{leaf}": theirs[f"fpn_conv.0.{leaf}"] for leaf in ("weight", "bias")}
    shared = HRFPN([5, 10, 20, 40], 12, shared=True).eval()
    assert_everything_loaded(load_checkpoint(shared, one), shared, one)
    torch.testing.assert_close(shared(maps)[0], model(maps)[0])


def test_names_of_the_other_projects_are_recognised(shared_dir):
    expected = {
        "fpn": {"mmdet_pyramid", "torchvision_fpn"},
        "hrfpn": {"mmdet_hrfpn"},
        "uper_head": {"mmdet_pyramid"},
    }
    for system, dialects in expected.items():
        found = set()
        for record, _, state in records(shared_dir, system).values():
            model = BUILDERS[record["official"]["class"]](**record["constructor"])
            found.add(load_checkpoint(model, state).dialect)
        assert found == dialects


@pytest.mark.parametrize("variant", ["fpn", "fpn_norm_avg"])
def test_detectron2_pyramids(shared_dir, variant):
    path = shared_dir / "reference" / "det_mvit" / variant
    record, tensors, state = read_record(path)
    state = {name: x for name, x in state.items() if not name.startswith("bottom_up.")}
    maps = [tensors[f"feature.scale{i}"].unsqueeze(2) for i in (2, 3, 4, 5)]
    options = record["constructor"]["FPN"]
    model = FPN(
        [x.shape[1] for x in maps],
        options["out_channels"],
        num_outs=5,
        norm=NORMS[options["norm"]],
        fuse=options["fuse_type"],
    ).eval()
    report = load_checkpoint(model, state)
    assert report.dialect == "detectron2_fpn"
    assert_everything_loaded(report, model, state)
    assert_maps(model(maps), tensors)


def test_the_simple_pyramid_of_vitdet(shared_dir):
    path = shared_dir / "reference" / "det_vit" / "simple_pyramid"
    record, tensors, state = read_record(path)
    state = {name: x for name, x in state.items() if name.startswith("simfp_")}
    last = tensors["feature.last_feat"].unsqueeze(2)
    options = record["constructor"]["SimpleFeaturePyramid"]
    model = SimplePyramid(
        [last.shape[1]],
        options["out_channels"],
        scales=options["scale_factors"],
        norm=NORMS[options["norm"]],
        num_outs=5,
    ).eval()
    report = load_checkpoint(model, state)
    assert report.dialect == "detectron2_simple_pyramid"
    assert_everything_loaded(report, model, state)
    assert_maps(model([last]), tensors)


@pytest.mark.parametrize("same_width", [False, True])
def test_torchvision_with_levels_of_a_retinanet(same_width):
    from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

    widths = [4, 6, 8 if same_width else 10]
    peer = FeaturePyramidNetwork(widths, 8, LastLevelP6P7(widths[-1], 8)).eval()
    model = FPN(**torchvision_fpn(widths, 8, "LastLevelP6P7")).eval()
    former = {  # of torchvision 0.12, without sequences
        name.replace("blocks.0.0", "blocks.0").replace("blocks.1.0", "blocks.1"): x
        for name, x in peer.state_dict().items()
    }
    former = {name.replace("blocks.2.0", "blocks.2"): x for name, x in former.items()}
    for state in (former, peer.state_dict()):
        report = load_checkpoint(model, state)
        assert report.dialect == "torchvision_fpn" and not report.unexpected
    maps = {str(i): torch.randn(1, c, 17 - 4 * i, 13 - 4 * i) for i, c in enumerate(widths)}
    expected = list(peer(maps).values())
    for ours, theirs in zip(model([x.unsqueeze(2) for x in maps.values()]), expected, strict=True):
        torch.testing.assert_close(ours.squeeze(2), theirs)
