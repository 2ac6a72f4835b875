"""Weights and scores that are not finite numbers are refused wherever they would be written."""

import io
import json

import pytest
import torch
from torch import nn

import videonet
from videonet.config import load_config
from videonet.data.feature_store import FeatureWriter
from videonet.errors import CheckpointError, ScoreError
from videonet.inference import Predictor
from videonet.inference import export as exporting
from videonet.inference.export import ExportError, export_model
from videonet.inference.extraction import extract_features
from videonet.inference.result_files import open_results
from videonet.inference.run import Options, predict_videos
from videonet.inference.sources import Source


class Overflowing(nn.Module):
    """A model around another one that gives NaN for dark clips."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str):
        return super().__getattr__(name) if name == "inner" else getattr(self.inner, name)

    def forward_features(self, clip):
        blue = clip.mean(dim=(3, 4)).argmax(dim=1).eq(2).all(dim=1)  # (N,)
        features = self.inner.forward_features(clip)
        return features.masked_fill(blue.view(-1, *[1] * (features.ndim - 1)), torch.nan)

    def forward(self, clip):
        return self.inner.forward_head(self.forward_features(clip))


@pytest.fixture
def videos(make_colours, tmp_path):
    names = ("red", "blue", "green")
    return [Source(str(make_colours(tmp_path / f"{n}.mp4", [(n, 12)]))) for n in names]


@pytest.mark.parametrize("sliding", [False, True])
def test_a_video_whose_scores_overflow_fails_alone(colour_predictor, videos, tmp_path, sliding):
    predictor = colour_predictor()
    predictor.model = Overflowing(predictor.model)
    with open_results(tmp_path / "r.jsonl", None, io.StringIO()) as writer:
        failed = predict_videos(predictor, videos, writer, Options(sliding=sliding), progress=False)
    assert failed == 1
    records = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    (error,) = (record for record in records if "error" in record)
    assert error["video"] == videos[1].path and "not finite" in error["error"]
    assert videos[1].path in error["error"] and "NaN" not in (tmp_path / "r.jsonl").read_text()
    with FeatureWriter(tmp_path / "f", {"classes": []}) as writer:
        options = Options(sliding=sliding)
        assert extract_features(predictor, videos, writer, options, progress=False) == 1


def test_weights_are_looked_at_first(tmp_path):
    cfg = load_config("DEMO/MVITv2_XS.yaml", ["DATA.TEST_CROP_SIZE", "32", "DEVICE", "cpu"])
    model = videonet.create_model("mvit_v2_xs", num_classes=8, num_frames=8, crop_size=48)
    state = model.state_dict()
    state["head.projection.weight"][3, 5] = torch.nan
    names = [f"class {k}" for k in range(8)]
    path = tmp_path / "nan.pyth"
    torch.save({"model_state": state, "cfg": cfg.dump(), "class_names": names}, path)
    with pytest.raises(CheckpointError, match="nan.pyth.*head.projection.weight"):
        Predictor.from_checkpoint(path)


def test_an_export_that_gives_nan_is_refused(colour_predictor, tmp_path, monkeypatch):
    def write(model, clip, about, path):
        path.write_text("a file")
        return lambda clips: model(clips) * torch.nan

    monkeypatch.setitem(exporting.WRITERS, "pt2", write)
    with pytest.raises(ExportError, match="not finite"):
        export_model(colour_predictor(), "pt2", tmp_path / "m.pt2")
    assert not list(tmp_path.iterdir())


def test_a_head_that_gives_nan(colour_predictor):
    predictor = colour_predictor()
    head = nn.Linear(3, 3)
    nn.init.constant_(head.weight, torch.nan)
    head.levels = 1
    predictor.video_head = head
    with pytest.raises(ScoreError, match="not finite"):
        predictor.aggregate(torch.rand(2, 3), torch.rand(2, 3), "attention")
