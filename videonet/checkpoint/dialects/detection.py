"""The heads of two-stage detectors in the names of torchvision, detectron2 and mmdetection.

They stand beside a backbone whose names are of a dialect of their own, so their names are
translated whatever that is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from videonet.checkpoint.dialects import dense

Rename = Callable[[re.Match[str]], str]
# roi_head of mmdetection; neither where there are the heads alone
ROI = r"(?P<roi>roi_heads?\.)?"
STAGE = r"(?:\.(?P<stage>\d+))?"  # of a cascade; mmdetection numbers its mask heads too
PARTS = {
    **{"cls_logits": "objectness", "objectness_logits": "objectness", "rpn_cls": "objectness"},
    **{"bbox_pred": "deltas", "anchor_deltas": "deltas", "rpn_reg": "deltas", "fc_reg": "deltas"},
    **{"cls_score": "scores", "fc_cls": "scores"},
    **{"conv5_mask": "deconv", "upsample": "deconv", "deconv": "deconv"},
    **{"mask_fcn_logits": "logits", "predictor": "logits", "conv_logits": "logits"},
}
CONV_OR_NORM = {"0": "conv", "1": "norm", "conv": "conv", "bn": "norm", "norm": "norm"}


def _roi(match: re.Match[str], kind: str) -> str:
    """The beginning of our name of a box or mask head."""
    roi = "roi_heads." if match["roi"] else ""
    return f"{roi}{kind}_heads.{match['stage'] or 0}"


def _conv(match: re.Match[str], kind: str, first: int) -> str:
    part = CONV_OR_NORM[match["part"]] if match["part"] else "conv"
    return f"{_roi(match, kind)}.convs.{int(match['n']) - first}.{part}.{match['leaf']}"


def _fc(match: re.Match[str], first: int) -> str:
    return f"{_roi(match, 'box')}.fcs.{int(match['n']) - first}.{match['leaf']}"


def _part(match: re.Match[str], kind: str) -> str:
    return f"{_roi(match, kind)}.{PARTS[match['part']]}.{match['leaf']}"


def _rpn_conv(match: re.Match[str]) -> str:
    return f"rpn.convs.{match['n'] or 0}.conv.{match['leaf']}"


def _rpn_part(match: re.Match[str]) -> str:
    return f"rpn.{PARTS[match['part']]}.{match['leaf']}"


LEAF = r"(?P<leaf>weight|bias)"
ANY_LEAF = r"(?P<leaf>weight|bias|running_mean|running_var|num_batches_tracked)"
NO_STAGE = r"(?P<stage>)"
RULES: tuple[tuple[re.Pattern[str], Rename], ...] = tuple(
    (re.compile(pattern), rename)
    for pattern, rename in (
        # torchvision; its older files have one convolution without a number
        (rf"rpn\.head\.conv\.(?:(?P<n>\d+)\.0\.)?{LEAF}", _rpn_conv),
        (rf"rpn\.head\.(?P<part>cls_logits|bbox_pred)\.{LEAF}", _rpn_part),
        (rf"{ROI}box_head{NO_STAGE}\.fc(?P<n>[67])\.{LEAF}", lambda m: _fc(m, 6)),
        (
            rf"{ROI}(?P<kind>box|mask)_head{NO_STAGE}\.(?P<n>\d+)\.(?P<part>[01])\.{ANY_LEAF}",
            lambda m: _conv(m, m["kind"], 0),
        ),
        (
            rf"{ROI}mask_predictor{NO_STAGE}\.(?P<part>conv5_mask|mask_fcn_logits)\.{LEAF}",
            lambda m: _part(m, "mask"),
        ),
        # detectron2
        (rf"proposal_generator\.rpn_head\.conv\.(?:conv(?P<n>\d+)\.)?{LEAF}", _rpn_conv),
        (
            rf"proposal_generator\.rpn_head\.(?P<part>objectness_logits|anchor_deltas)\.{LEAF}",
            _rpn_part,
        ),
        (
            rf"{ROI}box_head{STAGE}\.conv(?P<n>\d+)\.(?:(?P<part>norm)\.)?{ANY_LEAF}",
            lambda m: _conv(m, "box", 1),
        ),
        (rf"{ROI}box_head{STAGE}\.fc(?P<n>\d+)\.{LEAF}", lambda m: _fc(m, 1)),
        (
            rf"{ROI}box_predictor{STAGE}\.(?P<part>cls_score|bbox_pred)\.{LEAF}",
            lambda m: _part(m, "box"),
        ),
        (
            rf"{ROI}mask_head{NO_STAGE}\.mask_fcn(?P<n>\d+)\.(?:(?P<part>norm)\.)?{ANY_LEAF}",
            lambda m: _conv(m, "mask", 1),
        ),
        (
            rf"{ROI}mask_head{NO_STAGE}\.(?P<part>deconv|predictor)\.{LEAF}",
            lambda m: _part(m, "mask"),
        ),
        # mmdetection
        (rf"rpn_head\.rpn_conv\.(?:(?P<n>\d+)\.conv\.)?{LEAF}", _rpn_conv),
        (rf"rpn_head\.(?P<part>rpn_cls|rpn_reg)\.{LEAF}", _rpn_part),
        (
            rf"{ROI}bbox_head{STAGE}\.shared_convs\.(?P<n>\d+)\.(?P<part>conv|bn)\.{ANY_LEAF}",
            lambda m: _conv(m, "box", 0),
        ),
        (rf"{ROI}bbox_head{STAGE}\.shared_fcs\.(?P<n>\d+)\.{LEAF}", lambda m: _fc(m, 0)),
        (
            rf"{ROI}bbox_head{STAGE}\.(?P<part>fc_cls|fc_reg)\.{LEAF}",
            lambda m: _part(m, "box"),
        ),
        (
            rf"{ROI}mask_head{STAGE}\.convs\.(?P<n>\d+)\.(?P<part>conv|bn)\.{ANY_LEAF}",
            lambda m: _conv(m, "mask", 0),
        ),
        (
            rf"{ROI}mask_head{STAGE}\.(?P<part>upsample|conv_logits)\.{LEAF}",
            lambda m: _part(m, "mask"),
        ),
    )
)
# torchvision counts the linear layers of such a box head among its convolutions
COUNTED_FC = re.compile(rf"{ROI}box_head{NO_STAGE}\.(?P<n>\d+)\.{LEAF}")


def rename_parts_on_top(names: Iterable[str]) -> dict[str, str]:
    """The names of what stands on a backbone in detectors -> our names; others are left out.

    A pyramid has no prefix of its own in torchvision and detectron2; one that is there alone is not
    renamed.
    """
    names = list(names)
    renamed = _rename_heads(names)
    pyramid = _rename_pyramid(names)
    return renamed | pyramid if len(pyramid) < len(names) else renamed


def _rename_heads(names: Sequence[str]) -> dict[str, str]:
    renamed: dict[str, str] = {}
    counted: dict[str, re.Match[str]] = {}
    for name in names:
        if match := COUNTED_FC.fullmatch(name):
            counted[name] = match
            continue
        for pattern, rename in RULES:
            if match := pattern.fullmatch(name):
                renamed[name] = rename(match)
                break
    places = sorted({int(match["n"]) for match in counted.values()})
    for name, match in counted.items():
        order = places.index(int(match["n"]))
        renamed[name] = f"{_roi(match, 'box')}.fcs.{order}.{match['leaf']}"
    return renamed


def _rename_pyramid(names: Sequence[str]) -> dict[str, str]:
    """The names of torchvision's and detectron2's pyramids -> our names."""
    bare = {name.removeprefix("fpn."): name for name in names}
    short = list(bare)
    found = {
        **dense.name_torchvision_levels(short),
        **dense.name_detectron_levels(short),
        **dense.name_simple_levels(short),
    }
    return {bare[name]: f"neck.{new}" for name, new in found.items()}
