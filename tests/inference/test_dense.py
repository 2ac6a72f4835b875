"""Objects and label maps of every frame of videos and images."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.inference.conftest import write_model
from tests.tasks.conftest import INSTANCES, SEMANTICS, clips, images, small  # noqa: F401
from tests.tasks.drawn import CLASSES, SIZE, scene
from videonet import DensePredictor, Predictor
from videonet.cli import main
from videonet.data import build_loader
from videonet.data.masks import decode_masks
from videonet.data.video.writer import new_video
from videonet.engine.distributed import Process
from videonet.engine.evaluate import evaluate
from videonet.errors import ConfigError, DecodeError, ScoreError

LENGTH = 7


@pytest.fixture(scope="module")
def objects(small, clips, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("objects")
    words = [*INSTANCES, "MODEL.NAME", "mvit_v2_xs", "TEST.EVERY_FRAME", True]
    words += ["MODEL.ARGUMENTS", "{patch_stride: [1, 4, 4], embed_dim: 16}"]
    return write_model(small(clips, folder, "youtube_vis", 2, *words), folder / "model.pyth")


@pytest.fixture(scope="module")
def maps(small, images, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("maps")
    return write_model(small(images, folder, "coco", 1, *SEMANTICS), folder / "model.pyth")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with new_video(path, 10.0) as writer:
        for t, picture in enumerate(scene(3, LENGTH)[0]):
            writer.add(picture, t / 10)
    return path


def test_frames_of_a_folder_as_an_evaluation_sees_them(objects, clips):  # noqa: F811
    predictor = DensePredictor.from_checkpoint(objects)
    loader = build_loader(predictor.cfg, "val", annotate=predictor.task.annotate)
    data, process = predictor.cfg.DATA, Process(0, 1, torch.device("cpu"))
    found = evaluate(
        predictor.model, loader, process, predictor.task, mean=data.MEAN, std=data.STD, max_clips=4
    )
    first = [record for record in found.records if record.video == 105]
    pieces = list(predictor.pieces(str(clips / "frames/105")))
    assert [len(piece.frames) for piece in pieces] == [2, 2, 1] == [r.length for r in first]
    for record, piece in zip(first, pieces, strict=True):
        assert piece.start == record.start and len(record.found) > 3
        assert [t.masks for t in piece.tracks] == [t.masks for t in record.found]
        assert [t.number for t in piece.tracks] == [t.number for t in record.found]


def test_json_of_a_video_and_an_image(objects, video, images, tmp_path):  # noqa: F811
    image = images / "images/val_7.png"
    out, drawn = tmp_path / "out/found.json", tmp_path / "drawn"
    words = ["predict", str(video), str(image), "--task", "instances", "--checkpoint", str(objects)]
    words += ["--output", str(out), "--overlay", str(drawn), "--min-score", "0.2", "--quiet"]
    assert main(words) == 0
    content = json.loads(out.read_text())
    assert [one["name"] for one in content["categories"]] == list(CLASSES)
    (entry,), (picture,) = content["videos"], content["images"]
    assert (entry["length"], entry["height"], entry["width"]) == (LENGTH, *SIZE)
    ids = [one["id"] for one in content["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    tracks = [one for one in content["annotations"] if one.get("video_id") == entry["id"]]
    assert len({one["track_id"] for one in tracks}) == len(tracks) > 0
    for track in tracks:
        assert len(track["bboxes"]) == len(track["segmentations"]) == LENGTH
        masks = [rle for rle in track["segmentations"] if rle is not None]
        assert decode_masks(masks, SIZE).shape == (len(masks), *SIZE)
        assert 0.2 <= track["score"] <= 1
    found = [one for one in content["annotations"] if one.get("image_id") == picture["id"]]
    assert found and all(len(one["bbox"]) == 4 for one in found)
    assert {path.suffix for path in drawn.iterdir()} == {".mp4", ".png"}
    shown = next(DensePredictor.from_checkpoint(objects).pieces(next(drawn.glob("*.mp4"))))
    assert shown.frames.shape[1:] == (*SIZE, 3)


def test_tracks_of_a_video_from_python(objects, video):
    predictor = DensePredictor.from_checkpoint(objects)
    found = predictor(video, least_score=0.0)
    assert (found.length, found.height, found.width, found.fps) == (LENGTH, *SIZE, 10.0)
    assert len(found.tracks) > 2 and found.names == list(CLASSES)
    scores = [track.score for track in found.tracks]
    assert scores == sorted(scores, reverse=True)
    frames = np.stack([frame for piece in predictor.pieces(video) for frame in piece.frames])
    again = predictor(frames, fps=10.0, least_score=0.0)
    assert again.annotations() == found.annotations()


def test_label_maps_as_pictures(maps, video, tmp_path):
    out, drawn = tmp_path / "maps", tmp_path / "drawn.mp4"
    words = ["predict", str(video), "--task", "semantics", "--checkpoint", str(maps)]
    assert main([*words, "--output", str(out), "--overlay", str(drawn), "--quiet"]) == 0
    assert json.loads((out / "classes.json").read_text()) == ["background", *CLASSES]
    files = sorted(out.glob("*/*.png"))
    assert [file.name for file in files] == [f"{t:06d}.png" for t in range(LENGTH)]
    found = DensePredictor.from_checkpoint(maps)(video).label_maps
    assert found.shape == (LENGTH, *SIZE) and found.max() < 3
    for file, labels in zip(files, found, strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), labels.numpy())
    assert drawn.stat().st_size > 0


def test_other_models_and_files_are_refused(objects, maps, video, tmp_path):
    with pytest.raises(ConfigError, match="DensePredictor"):
        Predictor.from_checkpoint(objects)
    base = ["predict", str(video), "--quiet"]
    for words, message in (
        (["--task", "semantics", "--checkpoint", str(objects), "--output", "x"], "instance_segm"),
        (["--task", "instances", "--checkpoint", str(objects)], "--output or --overlay"),
        (["--task", "instances", "--checkpoint", str(objects), "--output", "x.txt"], ".json file"),
        (["--task", "semantics", "--checkpoint", str(maps), "--output", "x.json"], "a folder"),
        (["--task", "instances", "--checkpoint", str(objects), "--overlay", "x.png"], ".mp4"),
    ):
        with pytest.raises(ConfigError, match=message):
            main([*base, *words])


def test_frames_of_several_sizes_and_numbers_that_are_not_finite(objects):
    predictor = DensePredictor.from_checkpoint(objects)
    frames = [np.zeros((48, 64, 3), np.uint8), np.zeros((40, 64, 3), np.uint8)]
    with pytest.raises(DecodeError):
        predictor([Image.fromarray(frame) for frame in frames], fps=5.0)
    with torch.no_grad():
        next(iter(predictor.model.parameters())).fill_(float("nan"))
    with pytest.raises(ScoreError, match="not finite"):
        predictor(np.stack(frames[:1]), fps=5.0)
