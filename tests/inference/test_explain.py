"""Explanations: on every architecture, and at the right place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import videonet
from tests.models.families import FRAMES, SIDE, different_models, small_model
from videonet.data.loading.build import clip_sampler
from videonet.errors import ConfigError
from videonet.inference.explain import grad_cam, grids_of
from videonet.inference.rollout import attention_rollout, roll_out
from videonet.ops.attention import attention
from videonet.ops.attention_maps import RecordAttention

ROOT = Path(__file__).resolve().parents[2]


class Around:
    """What an explanation needs of a predictor."""

    def __init__(self, model, cfg):
        self.model, self.cfg, self.device = model.eval(), cfg, torch.device("cpu")


@pytest.mark.parametrize("weights", ["cell", "grid"])
@pytest.mark.parametrize("name", different_models())
def test_every_model_can_be_explained(name, weights, colour_predictor):
    if weights == "grid" and not name.endswith(("_xs", "_b", "b1", "w18")):
        pytest.skip("one size of a family is enough")
    around = Around(small_model(name), colour_predictor().cfg)
    with torch.no_grad():
        around.model.head.projection.weight.normal_(std=1.0)
    clips = torch.randint(0, 256, (2, 3, FRAMES, SIDE, SIDE), dtype=torch.uint8)
    heat = grad_cam(around, clips, torch.tensor([0, 1]), weights)
    assert heat.shape == (2, FRAMES, SIDE, SIDE)
    assert heat.min() >= 0 and heat.isfinite().all() and heat.amax() == pytest.approx(1.0)
    assert heat.std() > 0


def test_the_map_is_of_the_class_and_the_place(colour_predictor):
    """A red box in the upper left of the later frames, a blue one in the lower right."""
    predictor = colour_predictor()
    clips = torch.full((1, 3, 4, 16, 16), 128, dtype=torch.uint8)
    clips[0, :, 2:, :8, :8] = torch.tensor([250, 60, 60], dtype=torch.uint8).view(3, 1, 1, 1)
    clips[0, :, 2:, 8:, 8:] = torch.tensor([60, 60, 250], dtype=torch.uint8).view(3, 1, 1, 1)
    for label, box in ((0, np.s_[2:, :8, :8]), (2, np.s_[2:, 8:, 8:])):
        heat = grad_cam(predictor, clips, label)[0]
        share = heat[box].sum() / heat.sum()
        assert share > 0.5  # chance is 2/4 of the frames times 1/4 of each: 0.125


def test_a_class_token_is_explained_by_the_cells_that_it_was_made_of():
    model = small_model("mvit_v2_s").eval()
    logits, grids = grids_of(model, torch.randn(1, 3, FRAMES, SIDE, SIDE))
    last, before = (
        torch.autograd.grad(logits[0, 0], cells.values, retain_graph=True, allow_unused=True)[0]
        for cells in grids[:2]
    )
    assert grids[0].grid == grids[1].grid
    assert last is None or not grids[0].as_map(last).any()
    assert grids[1].as_map(before).any()


def test_recorded_attention_is_the_fused_one():
    torch.manual_seed(0)
    grid, key_grid = (2, 4, 4), (2, 2, 2)
    q = torch.randn(2, 3, 1 + 32, 8)
    k, v = torch.randn(2, 2, 3, 1 + 8, 8)
    tables = tuple(torch.randn(2 * n - 1, 8) for n in (2, 4, 4))
    arguments = {"q_grid": grid, "k_grid": key_grid, "tables": tables, "num_prefix_tokens": 1}
    fused = attention(q, k, v, **arguments)
    with RecordAttention() as record:
        open_ = attention(q, k, v, **arguments)
    assert torch.allclose(fused, open_, atol=1e-5)
    (weights,) = record.weights
    assert weights.shape == (2, 33, 9) and torch.allclose(weights.sum(-1), torch.ones(2, 33))
    mask = torch.zeros(33, 9, dtype=torch.bool)
    mask[:, ::2] = True
    with RecordAttention() as record:
        masked = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert torch.allclose(masked, scaled_dot_product_attention(q, k, v, attn_mask=mask), atol=1e-5)
    assert (record.weights[0][:, :, 1::2] == 0).all()


def test_rolling_out_by_hand():
    # One block over two cells: the mean over cells of (A + 1) / 2.
    a = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]])
    flow = roll_out([a], [(1, 1, 2)])
    assert torch.allclose(flow, torch.tensor([[(0.375 + 0.5) / 2, (0.625 + 0.5) / 2]]))
    # With a class token: its row of A, and what stays in it is left out.
    a = torch.tensor([[[0.2, 0.3, 0.5]] * 3])
    assert torch.allclose(roll_out([a], [(1, 1, 2)]), torch.tensor([[0.15, 0.25]]))
    # Pooled keys stand for the cells that they were pooled from.
    a = torch.tensor([[[0.2, 0.8]] * 4])
    flow = roll_out([a], [(1, 1, 4)])
    assert torch.allclose(flow, torch.tensor([[0.1, 0.1, 0.4, 0.4]]) / 2 + 0.125)
    # And so do pooled queries, for the block before.
    flow = roll_out([torch.eye(4)[None], torch.tensor([[[0.2, 0.8]] * 2])], [(1, 1, 4), (1, 1, 2)])
    assert torch.allclose(flow, torch.tensor([[0.1, 0.1, 0.4, 0.4]]) / 2 + 0.125)


@pytest.mark.parametrize("name", ["mvit_v2_s", "mvit_v1_b"])
def test_rollout_of_a_model(name, colour_predictor):
    around = Around(small_model(name), colour_predictor().cfg)
    clips = torch.randint(0, 256, (2, 3, FRAMES, SIDE, SIDE), dtype=torch.uint8)
    heat = attention_rollout(around, clips)
    assert heat.shape == (2, FRAMES, SIDE, SIDE) and heat.min() >= 0 and heat.std() > 0
    assert torch.allclose(heat.amax(dim=(1, 2, 3)), torch.ones(2))


def test_a_model_without_attention_is_refused(colour_predictor):
    with pytest.raises(ConfigError, match="no attention"):
        attention_rollout(colour_predictor(), torch.zeros(1, 3, 4, 16, 16, dtype=torch.uint8))


@pytest.mark.slow
def test_maps_of_the_demo_lie_on_the_moving_shape():
    """Needs `make demo`: the mass of the maps inside the shape's boxes, against their area."""
    if not (ROOT / "runs/demo/checkpoints").is_dir() or not (ROOT / "data/demo").is_dir():
        pytest.skip("run `make demo` before")
    predictor = videonet.Predictor.from_checkpoint(ROOT / "runs/demo")
    shares, areas = mass_in_boxes(predictor, ROOT / "data/demo", videos=40)
    assert np.mean(shares) > 1.5 * np.mean(areas)
    assert np.mean(shares > areas) > 0.8


def mass_in_boxes(predictor, data: Path, videos: int) -> tuple[np.ndarray, np.ndarray]:
    """Of validation clips the share of the map inside the boxes, and the boxes' share of it."""
    boxes = json.loads((data / "boxes.json").read_text())
    paths = [line.split()[0] for line in (data / "val.csv").read_text().splitlines()][:videos]
    frames = len(boxes[paths[0]])
    views = predictor.cfg.TEST.NUM_ENSEMBLE_VIEWS
    chosen = clip_sampler(predictor.cfg, "test").uniform(frames, 15.0, views)[views // 2]
    factor = (
        predictor.cfg.DATA.TEST_CROP_SIZE / json.loads((data / "demo.json").read_text())["size"]
    )
    shares, areas = [], []
    for path in paths:
        prediction = predictor(data / path)
        heat = grad_cam(predictor, prediction.clip[None], int(prediction.scores.argmax()))[0]
        mask = torch.zeros_like(heat)
        for t, box in enumerate(np.array(boxes[path])[chosen] * factor):
            x0, y0, x1, y1 = (*np.floor(box[:2]).astype(int), *np.ceil(box[2:]).astype(int))
            mask[t, y0:y1, x0:x1] = 1
        shares.append(((heat * mask).sum() / heat.sum()).item())
        areas.append(mask.mean().item())
    return np.array(shares), np.array(areas)
