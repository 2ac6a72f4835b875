"""Arguments of models: whatever they are, a model is built or one sentence says why not."""

import pytest
import torch

from videonet.errors import ConfigError
from videonet.models import create_model
from videonet.models.arguments import constructor_hints
from videonet.models.registry import FAMILIES

SMALL = {  # a model of each family
    "mvit": ("mvit_v2_xs", {}),
    "rev_mvit": ("rev_mvit", {"depth": 3, "transitions": (1,), "embed_dim": 16, "num_heads": 2}),
    "swin": ("swin_xs", {}),
    "vit": ("vit_xs", {}),
    "cvt": ("cvt_xs", {}),
    "cyclemlp": ("cyclemlp_xs", {}),
    "asmlp": ("asmlp_xs", {}),
    "hrnet": ("hrnet_xs", {}),
    "dilateformer": ("dilateformer_xs", {}),
    "hornet": ("hornet_xs", {}),
    "hiera": ("hiera_xs", {}),
    "vjepa2": ("vjepa2_xs", {}),
}
VALUES = (12, -1, 1.5, True, "x", None, (1,), (1, 2, 3, 4, 5), [2, 2], {1: 2.0}, {"a": "b"})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_argument_is_used_or_explained(family):
    name, arguments = SMALL[family]
    hints = constructor_hints(FAMILIES[family][0])
    assert {"num_classes", "num_frames", "crop_size", "drop_path_rate", "head_dropout"} <= set(
        hints
    )
    for argument in hints:
        for value in VALUES:
            with torch.device("meta"):
                try:
                    create_model(name, **(arguments | {argument: value}))
                except ConfigError as error:
                    assert len(str(error)) < 300
                except Exception as error:
                    pytest.fail(f"{name}, {argument}={value!r}: {type(error).__name__}: {error}")


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("swin_b", {"window_size": 12}, "swin_b: window_size is 12, expected 3 whole numbers"),
        (
            "mvit_v2_s",
            {"patch_kernel": (7, 7)},
            "patch_kernel .* expected 3 whole numbers .t, h, w",
        ),
        ("vit_b", {"patch_size": "16"}, "expected a whole number from 0 or 2 whole numbers"),
        ("mvit_v2_s", {"pool_q_stride": (1, 2, 2)}, "a mapping from whole numbers to tuples of 3"),
        ("mvit_v2_s", {"dim_mul": {1: "2"}}, "a mapping from whole numbers to numbers"),
        ("swin_t", {"depths": 2}, "depths is 2, expected a list of whole numbers"),
        ("hrnet_w18", {"stages": [(1, "basic", (1,))]}, "rows of 4 .num_modules, block"),
        ("hrnet", {}, "model hrnet needs the argument 'stages'"),
        ("vit_b", {"num_heads": 5}, "a width of 768 is no multiple of its 5 heads"),
        ("vit_b", {"drop_path_rate": float("nan")}, "expected a number from 0"),
        ("mvit_v2_s", {"pool_mode": "sum"}, "pool_mode is 'sum'"),
        ("vit_b", {"qkv_bias": 1}, "qkv_bias is 1, expected True or False"),
        ("rev_mvit", {"depthh": 3}, "has no argument 'depthh'"),
    ],
)
def test_the_sentence_says_what_is_wanted(name, arguments, message):
    with pytest.raises(ConfigError, match=message), torch.device("meta"):
        create_model(name, **arguments)


def test_lists_are_as_good_as_tuples():
    tuples = {"window_size": (2, 3, 3), "depths": (1, 1), "num_heads": (1, 2)}
    lists = {name: list(value) for name, value in tuples.items()}
    one, two = (create_model("swin_xs", embed_dim=8, **sizes) for sizes in (tuples, lists))
    assert str(one) == str(two)


def test_a_former_name_warns():
    with pytest.warns(FutureWarning, match="pool_leading will go: use pool_include_prefix"):
        model = create_model("vit_xs", pooling="avg", pool_leading=True)
    assert model.pool_include_prefix
