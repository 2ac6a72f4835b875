"""Boxes, masks and label maps of uploads, beside what the predictor says and writes."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.serving.conftest import make_predictor
from tests.tasks.drawn import CLASSES, SIZE
from videonet.data.masks import decode_masks
from videonet.errors import ConfigError
from videonet.inference.dense_files import predict_dense
from videonet.inference.sources import Source
from videonet.serving import dense
from videonet.serving.server import load_models, open_search


@pytest.mark.parametrize("room", [2**25, 1], ids=["one step", "steps of a piece"])
def test_objects_are_those_that_predict_writes(
    room, dense_server, dense_models, shapes, tmp_path, monkeypatch
):
    monkeypatch.setattr(dense, "CHUNK_BYTES", room)
    monkeypatch.chdir(shapes.parent)
    path = tmp_path / "found.json"
    assert not predict_dense(
        dense_models["objects"], [Source("shapes.mp4")], output=path, least_score=0.2,
        progress=False,
    )  # fmt: skip
    answer = dense_server.ask(
        "/api/predict", shapes.read_bytes(), name="shapes.mp4", model="objects", min_score=0.2
    )
    assert answer.status == 200, answer.body
    (result,) = answer.json["results"]
    file = dense_server.ask(result["coco"])
    assert file.headers["content-type"] == "application/json"
    expected = json.loads(path.read_text())
    assert file.json == expected
    assert result["times"] == pytest.approx([t / 10 for t in range(7)])
    assert (result["windows"], result["jsonl"], result["csv"]) == ([], "", "")
    assert len(result["objects"]) == len(expected["annotations"]) > 0
    for found, one in zip(result["objects"], expected["annotations"], strict=True):
        assert (found["number"], found["score"]) == (one["track_id"], one["score"])
        assert found["label"] == CLASSES[one["category_id"] - 1]
        assert found["boxes"] == one["bboxes"]
        assert found["masks"] == [m and m["counts"] for m in one["segmentations"]]
        assert [score > 0 for score in found["scores"]] == [
            box is not None for box in one["bboxes"]
        ]
    assert [top["label"] for top in result["top"]] == [o["label"] for o in result["objects"][:5]]


def test_label_maps_are_a_mask_for_each_class(dense_server, dense_models, shapes):
    answer = dense_server.ask("/api/predict", shapes.read_bytes(), model="maps", name="x.mp4")
    (result,) = answer.json["results"]
    maps = dense_models["maps"](shapes).label_maps  # (T, H, W)
    names = ["background", *CLASSES]
    assert result["classes"] == names
    painted = torch.full_like(maps, -1)
    for found in result["objects"]:
        for t, counts in enumerate(found["masks"]):
            if counts is not None:
                mask = decode_masks([{"size": list(SIZE), "counts": counts}], SIZE)[0]
                assert found["scores"][t] == pytest.approx(float(mask.float().mean()), abs=1e-4)
                painted[t][mask] = found["number"]
    assert torch.equal(painted, maps)
    content = dense_server.ask(result["coco"]).json
    (video,) = content["videos"]
    assert (video["file_name"], video["length"], video["height"]) == ("x.mp4", 7, SIZE[0])
    for one in content["annotations"]:
        assert set(one) == {"id", "video_id", "category_id", "segmentations"}


def test_pictures_and_several_models(dense_server):
    file = io.BytesIO()
    picture = np.zeros((40, 64, 3), np.uint8)
    picture[8:30, 5:30] = (230, 60, 40)
    Image.fromarray(picture).save(file, "PNG")
    answer = dense_server.ask(
        "/api/predict", file.getvalue(), model=["plain", "objects"], min_score=0, name="x.png"
    )
    plain, objects = answer.json["results"]
    assert plain["top"][0]["label"] == "red" and plain["objects"] == [] and plain["coco"] == ""
    assert objects["times"] == [0] and objects["objects"]
    content = dense_server.ask(objects["coco"]).json
    assert content["images"] == [{"id": 1, "file_name": "x.png", "height": 40, "width": 64}]
    assert all(len(one["bbox"]) == 4 for one in content["annotations"])


@pytest.mark.parametrize(
    ("place", "parameters", "said"),
    [
        ("predict", {"model": "objects"}, "x.mp4 has 30 frames, more than 8, the limit of this"),
        ("explain", {"model": "maps"}, "maps labels no videos"),
        ("predict", {"min_score": 2}, "min_score: "),
    ],
)
def test_what_cannot_be_answered(place, parameters, said, dense_server, videos):
    body = videos["red"].read_bytes()
    answer = dense_server.ask(f"/api/{place}", body, name="x.mp4", **parameters)
    assert answer.status == 422
    assert said in answer.error and "\n" not in answer.error


def test_large_frames_and_many_masks_are_refused(dense_server, shapes, monkeypatch):
    file = io.BytesIO()
    Image.new("RGB", (80, 70)).save(file, "PNG")
    answer = dense_server.ask("/api/predict", file.getvalue(), name="x.png")
    assert answer.status == 422 and "frames of 5,600 pixels, more than 4,096" in answer.error
    monkeypatch.setattr(dense, "KEPT_BYTES", 10)
    answer = dense_server.ask("/api/predict", shapes.read_bytes(), model="maps", name="x.mp4")
    assert answer.status == 422 and "the masks of x.mp4 take more than" in answer.error
    assert list(dense_server.service.folder.iterdir()) == []


def test_models_are_loaded_by_their_task(dense_server, dense_models, index):
    given = [f"{name}={model.origin}" for name, model in dense_models.items()]
    models = load_models(given)
    assert [type(model) for model in models.values()] == [type(dense_models["maps"])] * 2
    info = dense_server.ask("/api/info").json
    finds = {model["name"]: model["finds"] for model in info["models"]}
    assert finds == {"objects": "objects", "maps": "label_maps", "plain": "labels"}
    with pytest.raises(ConfigError, match="is searched with the model that made it"):
        open_search(index.folder, models)
    with pytest.raises(ConfigError, match="with other weights than"):
        open_search(index.folder, {**models, "sharp": make_predictor(3.0)})
