"""What the tests of all models know about each family; a new family adds one entry."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field

import torch

import videonet
from videonet.models import registry

FRAMES, SIDE = 4, 64


@dataclass(frozen=True)
class Family:
    """How to drive a family's models on a CPU in a moment.

    Args:
        small: constructor arguments that make every size of the family small.
        sides: side of each stage's feature map at 64 pixels.
        frames: frames in the feature maps of a clip of 4.
        silent: patterns of parameters that rightly get no gradient (their effect cancels).
        by_model: further arguments for single models.
        exact: arguments with which a still clip has the logits of its image, where the published
            image and video models differ in more than time.
    """

    small: dict
    sides: tuple[int, ...]
    frames: int
    silent: tuple[str, ...] = ()
    by_model: dict[str, dict] = field(default_factory=dict)
    exact: dict = field(default_factory=dict)


MVIT_DEPTHS = {"mvit_v2_b": 7, "mvit_v2_l": 10}
SMALL_VIT = {"embed_dim": 24, "depth": 4, "num_heads": 3, "patch_size": 16}
FAMILIES = {
    "cyclemlp_*": Family(
        small={
            "layers": (1, 2, 1, 1),
            "embed_dims": (12, 16, 24, 32),
            "mlp_ratios": (2, 2, 2, 2),
        },
        sides=(16, 8, 4, 2),
        frames=2,
        by_model={
            "cyclemlp_xs": {"layers": (1, 2), "embed_dims": (12, 16), "mlp_ratios": (2, 2)},
        },
    ),
    "asmlp_*": Family(
        small={"embed_dim": 10, "depths": (1, 2, 1, 1)},
        sides=(16, 8, 4, 2),
        frames=2,
        by_model={"asmlp_xs": {"depths": (1, 2)}},
    ),
    "hrnet_*": Family(
        small={
            "stages": (
                (1, "bottleneck", (1,), (6,)),
                (1, "basic", (1, 1), (6, 8)),
                (2, "basic", (1, 1, 1), (6, 8, 10)),
                (1, "basic", (1, 1, 1, 1), (6, 8, 10, 12)),
            ),
            "stem_width": 8,
            "head_channels": (4, 5, 6, 7),
            "final_channels": 16,
            # With fewer frames than taps torch's bfloat16 convolutions on the CPU get the gradient
            # of the kernel wrong (2.15, 1 < frames < taps).
            "temporal_stride": 1,
        },
        sides=(16, 8, 4, 2),
        frames=4,
        by_model={
            "hrnet_xs": {
                "stages": ((1, "bottleneck", (1,), (6,)), (2, "basic", (1, 1), (6, 8))),
                "head_channels": (4, 5),
            },
        },
    ),
    "dilateformer_*": Family(
        small={"embed_dim": 12, "depths": (1, 1, 2, 1), "num_heads": (3, 3, 6, 6)},
        sides=(16, 8, 4, 2),
        frames=2,
        by_model={"dilateformer_xs": {"depths": (1, 1), "num_heads": (3, 3)}},
    ),
    "hornet_*": Family(
        small={"base_dim": 8, "depths": (1, 1, 2, 1)},
        sides=(16, 8, 4, 2),
        frames=2,
        by_model={"hornet_xs": {"depths": (1, 1)}},
    ),
    "hiera_*": Family(
        small={"embed_dim": 8, "depths": (1, 2, 1, 1)},
        sides=(16, 8, 4, 2),
        frames=2,
        by_model={"hiera_xs": {"depths": (1, 1, 1)}},
    ),
    "mvit_*": Family(
        small={"embed_dim": 16},
        sides=(16, 8, 4, 2),
        frames=2,
        silent=(
            # A constant on all keys cancels in the softmax.
            r".*norm_k\.bias",
            # The head reads the class token alone: the other queries of the last block are unread.
            r"last\.attn\.(rel_pos_[hwt]|pool_q\.weight)",
        ),
        by_model={
            **{f"mvit_v2_{size}": {"depth": 5} for size in "ts"},
            **{name: {"depth": depth} for name, depth in MVIT_DEPTHS.items()},
            "mvit_v2_h": {"depth": 14, "embed_dim": 24},  # three heads
            "mvit_v1_b": {"depth": 5},
        },
        exact={
            "cls_token": False,
            "pool_kv_stride_adaptive": (1, 4, 4),
            "dim_mul_in_att": False,
        },
    ),
    "rev_mvit": Family(  # described by its arguments alone
        small={
            "embed_dim": 16,
            "depth": 5,
            "dim_mul": {2: 2.0},
            "head_mul": {2: 2.0},
            "pool_q_stride": {0: (1, 1, 1), 2: (1, 2, 2)},
            "pool_kv_stride_adaptive": (1, 4, 4),
            "transitions": (2,),
            "transition_fusion": "ln+concat_linear_2",
            "cls_token": True,
            "mean_pooling": True,
        },
        sides=(16, 8),
        frames=2,
        silent=(r".*norm_k\.bias",),  # a constant on all keys cancels in the softmax
    ),
    "swin_*": Family(
        small={"embed_dim": 24},
        sides=(16, 8, 4, 2),
        frames=2,
        by_model={f"swin_{size}": {"depths": (2, 1, 2, 1)} for size in "tsbl"},
    ),
    "timesformer_*": Family(
        small=SMALL_VIT,
        sides=(4, 4, 4, 4),
        frames=4,
        # Behind a projection that is zero in a model inflated from an image.
        silent=(r"blocks\.\d+\.temporal_(norm1|attn)\..*",),
    ),
    "videomae_*": Family(
        small=SMALL_VIT,
        sides=(4, 4, 4, 4),
        frames=2,
        exact={"sine_grid": None},  # fixed positions number the cells of all frames
    ),
    "vitdet_*": Family(
        small=SMALL_VIT | {"window_size": (2, 3, 3), "global_blocks": (1, 3)},
        sides=(4, 4, 4, 4),
        frames=2,
    ),
    "vjepa2_*": Family(
        small={
            "embed_dim": 36,
            "depth": 4,
            "num_heads": 3,
            "patch_size": 16,
            "pooler_blocks": 1,
            "pooler_heads": 3,
        },
        sides=(4, 4, 4, 4),
        frames=2,
        exact={"rotate_time": False},
    ),
    **{
        pattern: Family(
            small=SMALL_VIT, sides=(4, 4, 4, 4), frames=2, exact={"cls_key_log_frames": True}
        )
        for pattern in ("vit_*", "vivit_*", "mae_*", "dinov2_*")
    },
    "cvt_*": Family(
        small={"depths": (1, 1, 2), "embed_dims": (16, 32, 48), "num_heads": (1, 2, 3)},
        sides=(16, 8, 4),
        frames=4,
        silent=(
            # A constant on all keys cancels in the softmax.
            r".*\.proj_k\.bias",
            r".*\.conv_proj_k\.bn\.bias",
            # The head reads the class token alone: the other queries of the last block are unread.
            # (In cvt_xs it averages all tokens.)
            r"stage2\.blocks\.1\.attn\.conv_proj_q\..*",
        ),
        by_model={
            "cvt_xs": {"depths": (1, 2), "embed_dims": (16, 32), "num_heads": (1, 2)},
        },
        exact={"cls_key_log_frames": True},
    ),
}


# Families of ViTs with other options, for which "vit_*" stands in tests that take long.
OPTIONS_OF_VIT = ("timesformer_*", "vitdet_*", "vivit_*", "mae_*", "dinov2_*")
ARCHITECTURES = [pattern for pattern in FAMILIES if pattern not in OPTIONS_OF_VIT]


def smallest_of(pattern: str) -> str:
    """The name of a family's smallest model, or of any where all are made small alike."""
    names = videonet.list_models(pattern) or [pattern]
    return next((name for name in names if name.endswith("_xs")), names[0])


def family_of(name: str) -> Family:
    """The entry whose pattern fits the model's name."""
    return next(f for pattern, f in FAMILIES.items() if fnmatch.fnmatchcase(name, pattern))


def small_arguments(name: str) -> dict:
    """Constructor arguments that make the model of this name narrow and shallow."""
    family = family_of(name)
    arguments = {"num_classes": 5, "num_frames": FRAMES, "crop_size": SIDE}
    return arguments | family.small | family.by_model.get(name, {})


def small_model(name: str, **overrides):
    """A narrow and shallow model of this name: five classes, 4 frames of 64x64."""
    torch.manual_seed(0)
    return videonet.create_model(name, **small_arguments(name) | overrides)


def different_models() -> list[str]:
    """Names of all models, but of those that are the same when they are small only the first."""
    found = {}
    for name in videonet.list_models():
        architecture, builders = next(f for f in registry.FAMILIES.values() if name in f[1])
        rows = builders[name].args[1:]  # arguments of clips, and of images
        small = small_arguments(name)
        same = architecture, *(repr(sorted((dict(row) | small).items(), key=str)) for row in rows)
        found.setdefault(same, name)
    return sorted(found.values())


def may_be_silent(name: str, model) -> set[str]:
    """Parameters that need no gradient; `last.` in a pattern stands for the last block."""
    names = [n for n, _ in model.named_parameters()]
    blocks = [m[0] for n in names if (m := re.match(r"blocks\.\d+\.", n))]
    last = re.escape(blocks[-1]) if blocks else ""
    patterns = [p.replace(r"last\.", last) for p in family_of(name).silent]
    return {n for n in names if any(re.fullmatch(p, n) for p in patterns)}
