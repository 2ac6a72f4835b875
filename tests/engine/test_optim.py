"""Schedule and parameter groups against values worked out from the formulas."""

import math

import pytest
import torch

import videonet
from videonet.config import load_config
from videonet.engine.optim import (
    build_optimizer,
    learning_rate,
    lr_factor,
    parameter_groups,
    set_learning_rate,
)
from videonet.errors import ConfigError


def k400(*overrides):
    return load_config("K400/MVITv2_S.yaml", overrides)


def test_schedule_of_the_paper():
    solver = k400().SOLVER
    assert learning_rate(solver, 0) == pytest.approx(1.6e-5)
    assert learning_rate(solver, 15) == pytest.approx((1.6e-5 + 1.6e-3) / 2)
    assert learning_rate(solver, 30) == pytest.approx(1.6e-3)
    assert learning_rate(solver, 115) == pytest.approx((1.6e-5 + 1.6e-3) / 2)
    expected = 1.6e-5 + (1.6e-3 - 1.6e-5) * (math.cos(math.pi * 100 / 170) + 1) / 2
    assert learning_rate(solver, 130) == pytest.approx(expected)
    assert learning_rate(solver, 200) == pytest.approx(1.6e-5)


def test_cosine_that_begins_at_epoch_zero():
    solver = k400("SOLVER.COSINE_AFTER_WARMUP", "False", "SOLVER.COSINE_END_LR", "0.0").SOLVER
    top = 1.6e-3 * (math.cos(math.pi * 30 / 200) + 1) / 2
    assert learning_rate(solver, 29.999999) == pytest.approx(top, rel=1e-4)
    assert learning_rate(solver, 100) == pytest.approx(0.8e-3)


def test_a_run_no_longer_than_its_warm_up():
    solver = k400("SOLVER.MAX_EPOCH", "30").SOLVER
    assert learning_rate(solver, 15) == pytest.approx((1.6e-5 + 1.6e-3) / 2)
    assert learning_rate(solver, 30) == pytest.approx(1.6e-3)


def test_rate_scales_with_the_clips_of_a_step():
    assert lr_factor(k400(), clips_per_step=32) == pytest.approx(1 / 16)
    assert lr_factor(k400("SOLVER.BASE_LR_CLIPS", "0"), clips_per_step=32) == 1.0


def small_model():
    return videonet.create_model("mvit_v2_xs", num_classes=3, embed_dim=16)


def test_vectors_positions_and_class_token_are_not_decayed():
    model = small_model()
    groups = parameter_groups(model, 0.05, no_decay=model.no_weight_decay())
    decay = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    assert len(decay) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        spared = parameter.dim() == 1 or "rel_pos" in name or name == "cls_token"
        assert decay[id(parameter)] == (0.0 if spared else 0.05), name


def test_layer_decay_counts_back_from_the_head():
    model = small_model()
    groups = parameter_groups(model, 0.0, layer_decay=0.5)
    scale = {id(p): g["lr_scale"] for g in groups for p in g["params"]}
    assert scale[id(model.head.projection.weight)] == 1.0
    assert scale[id(model.blocks[2].mlp.fc1.weight)] == 0.5
    assert scale[id(model.blocks[0].mlp.fc1.weight)] == 0.5**3
    assert scale[id(model.patch_embed.proj.weight)] == 0.5**4


@pytest.mark.parametrize(
    "by, exponents",
    [
        ("layers", {"downsample_layers.0.": 13, "stages.0.": 12, "stages.2.0.": 10, "norm.": 0}),
        ("stages", {"downsample_layers.0.": 7, "stages.0.": 6, "stages.3.": 3, "norm.": 0}),
    ],
)
def test_layers_of_published_recipes(by, exponents):
    """mmcv_custom/layer_decay_optimizer_constructor.py of HorNet's repository."""
    model = videonet.create_model(
        "hornet_t", base_dim=16, num_frames=1, crop_size=32, num_classes=2
    )
    groups = parameter_groups(model, 0.0, layer_decay=0.5, layers_by=by)
    scale = {id(p): g["lr_scale"] for g in groups for p in g["params"]}
    for start, exponent in exponents.items():
        found = {scale[id(p)] for name, p in model.named_parameters() if name.startswith(start)}
        assert found == {0.5**exponent}, start


def test_an_unknown_grouping_is_refused():
    with pytest.raises(ConfigError, match="layers are grouped by 'stages', expected"):
        parameter_groups(small_model(), 0.0, layers_by="stages")


def test_batch_norms_have_a_decay_of_their_own():
    class Net(torch.nn.Sequential):
        def layer_groups(self, by="blocks"):
            return [[name for name, _ in self.named_parameters()]]

    model = Net(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    groups = parameter_groups(model, 0.1, no_decay_1d=False, batch_norm_decay=0.3)
    decay = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    assert decay[id(model[1].weight)] == 0.3
    assert decay[id(model[0].bias)] == 0.1


@pytest.mark.parametrize("name, kind", [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_optimizer_of_the_config(name, kind):
    cfg = k400("SOLVER.OPTIMIZING_METHOD", name, "SOLVER.LAYER_DECAY", "0.5")
    optimizer = build_optimizer(cfg, small_model())
    assert type(optimizer) is kind
    set_learning_rate(optimizer, 0.1)
    assert {round(g["lr"] / 0.1, 6) for g in optimizer.param_groups} == {0.5**i for i in range(5)}


def test_steps_and_powers():
    """After the warm-up, which ends where the schedule is by then."""
    words = ["SOLVER.BASE_LR", "1.0", "SOLVER.MAX_EPOCH", "10", "SOLVER.WARMUP_EPOCHS", "2"]
    words += ["SOLVER.WARMUP_START_LR", "0.2", "MODEL.NAME", "vit_xs"]
    steps = ["SOLVER.SCHEDULE", "steps", "SOLVER.STEP_EPOCHS", "[4, 8.5]"]
    solver = load_config(None, words + steps).SOLVER
    rates = [learning_rate(solver, epoch) for epoch in (0, 1, 2, 3.9, 4, 8.4, 8.5, 10)]
    assert rates == pytest.approx([0.2, 0.6, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01])
    power = ["SOLVER.SCHEDULE", "poly", "SOLVER.POLY_POWER", "2.0"]
    solver = load_config(None, words + power).SOLVER
    rates = [learning_rate(solver, epoch) for epoch in (0, 2, 5, 10)]
    assert rates == pytest.approx([0.2, 0.64, 0.25, 0.0])
    solver = load_config(None, words + power + ["SOLVER.COSINE_END_LR", "0.1"]).SOLVER
    assert learning_rate(solver, 5) == pytest.approx(0.1 + 0.9 * 0.25)
    assert learning_rate(solver, 10) == pytest.approx(0.1)
    with pytest.raises(ConfigError, match="SOLVER.STEP_EPOCHS"):
        load_config(None, [*words, "SOLVER.STEP_EPOCHS", "[4, 3]"])
