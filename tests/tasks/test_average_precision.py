"""COCO's and YouTube-VIS's average precision: equal to the official programs."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest

from videonet.errors import DataError
from videonet.tasks.mask_scores import KINDS, coco_scores
from videonet.tasks.video_instances import track_overlaps, video_scores

pytest.importorskip("pycocotools")


def sets_of(shared_dir, system):
    for folder in sorted((shared_dir / "reference" / system).iterdir()):
        names = ("groundtruth", "results", "official")
        yield [json.loads((folder / f"{name}.json").read_text()) for name in names]


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_masks_and_boundaries_are_the_official_ones(shared_dir, kind):
    for truth, results, official in sets_of(shared_dir, "mask_eval"):
        found = coco_scores(truth, results, kind).stats()
        assert found == pytest.approx(official["stats"][kind], abs=1e-12)


def test_videos_are_the_official_ones(shared_dir):
    for truth, results, official in sets_of(shared_dir, "vis_eval"):
        found = video_scores(truth, results)
        assert found.stats() == pytest.approx(official["stats"], abs=1e-12)
        names = {category["id"]: category["name"] for category in truth["categories"]}
        of_names = {names[k]: None if v < 0 else v for k, v in found.per_category().items()}
        assert of_names == pytest.approx(official["ap_per_category"], abs=1e-12)
        for key, ious in official["video_ious"].items():
            video, category = map(int, key.split(","))
            mine = [
                [one for one in part if (one["video_id"], one["category_id"]) == (video, category)]
                for part in (results, truth["annotations"])
            ]
            mine[0].sort(key=lambda one: -one["score"])
            overlaps = track_overlaps(*([one["segmentations"] for one in part] for part in mine))
            assert np.abs(overlaps - np.reshape(ious, overlaps.shape)).max(initial=0) < 1e-12


def shifted_detections(truth, seed=0):
    """The objects of a data set as boxes and polygons that are a little off, some twice or not."""
    rng, found = np.random.default_rng(seed), []
    for one in truth["annotations"]:
        for _ in range(rng.integers(0, 3)):
            x, y, width, height = one["bbox"]
            left, top = x + width * rng.normal(0, 0.1), y + height * rng.normal(0, 0.1)
            right, bottom = left + width * rng.uniform(0.8, 1.2), top + height
            corners = [left, top, right, top, right, bottom, left, bottom]
            found.append(
                {
                    "image_id": one["image_id"],
                    "category_id": one["category_id"],
                    "score": round(rng.random(), 2),  # ties
                    "bbox": [left, top, right - left, bottom - top],
                    "segmentation": [[float(value) for value in corners]],
                }
            )
    return found


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_real_images_are_scored_as_pycocotools_does(shared_dir, kind):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = json.loads((shared_dir / "data/coco_instances/instances.json").read_text())
    assert sum(one["iscrowd"] for one in truth["annotations"]) == 4
    results = shifted_detections(truth)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO()
        theirs.dataset = copy.deepcopy(truth)
        theirs.createIndex()
        kept = ("bbox",) if kind == "bbox" else ("segmentation",)
        names = ("image_id", "category_id", "score", *kept)
        plain = [{name: one[name] for name in names} for one in results]
        if kind == "segm":
            for one in plain:
                image = theirs.imgs[one["image_id"]]
                one["segmentation"] = theirs.annToRLE(one | {"id": 1}) if image else None
        evaluation = COCOeval(theirs, theirs.loadRes(plain), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    found = coco_scores(truth, results, kind)
    assert np.array_equal(found.precision, evaluation.eval["precision"])
    assert np.array_equal(found.recall, evaluation.eval["recall"])
    assert list(found.stats().values()) == evaluation.stats.tolist()
    assert 0.05 < found.average() < 0.9


def test_the_truth_scores_one(shared_dir):
    truth = json.loads((shared_dir / "data/coco_instances/instances.json").read_text())
    perfect = [
        {**one, "score": 0.5}
        for one in truth["annotations"]
        if not one["iscrowd"] and one["image_id"] % 4 == 0
    ]
    truth["images"] = [image for image in truth["images"] if image["id"] % 4 == 0]
    truth["annotations"] = [one for one in truth["annotations"] if one["image_id"] % 4 == 0]
    present = {one["category_id"] for one in perfect}
    truth["categories"] = [{"id": number} for number in present]
    for kind in KINDS:
        found = coco_scores(truth, perfect, kind)
        assert found.average() == 1.0 and found.stats()["AR100"] == 1.0
        assert np.array_equal(found.curve(0.5), np.ones(101))


def image(number, width=100, height=100):
    return {"id": number, "width": width, "height": height}


def box(number, left, side=20, **more):
    return {"image_id": number, "category_id": 3, "bbox": [left, 10, side, side], **more}


def test_average_precision_by_hand():
    """Two objects; the best detection misses, the second hits, so precision is 1/2 up to 1/2."""
    truth = {
        "images": [image(1), image(2)],
        "categories": [{"id": 3, "name": "a"}, {"id": 4, "name": "b"}],
        "annotations": [box(1, 10), box(2, 10)],
    }
    found = coco_scores(truth, [box(1, 60, score=0.9), box(1, 10, score=0.8)], "bbox")
    assert found.stats()["AP"] == pytest.approx(51 / 101 * 0.5)
    assert found.per_category() == {3: found.average(), 4: -1.0}
    assert found.curve(0.5, 3)[[0, 50, 51]].tolist() == [0.5, 0.5, 0.0]
    assert (found.curve(0.75, 4) == -1).all()
    assert found.stats()["APs"] == found.average() and found.stats()["APl"] == -1.0
    assert coco_scores(truth, [], "bbox").average() == 0.0
    nothing = {**truth, "annotations": []}
    assert coco_scores(nothing, [], "bbox").average() == -1.0


@pytest.mark.parametrize(
    ("detection", "kind", "message"),
    [
        (box(7, 1, score=1.0), "bbox", "detection 0: there is no image 7"),
        ({**box(1, 1), "bbox": None, "score": 1.0}, "segm", "there is no segmentation"),
        (box(1, 1, score=1.0, segmentation=[[1, 2]]), "segm", "detection 0: a polygon"),
        (box(1, 1, score=1.0), "area", "scores of 'area', expected one of bbox"),
    ],
)
def test_what_cannot_be_scored_is_named(detection, kind, message):
    truth = {"images": [image(1)], "categories": [{"id": 3}], "annotations": []}
    with pytest.raises(DataError, match=message):
        coco_scores(truth, [detection], kind)


def test_tracks_of_another_length_are_named():
    truth = {
        "videos": [{"id": 1, "length": 3, "height": 4, "width": 4}],
        "categories": [{"id": 1}],
        "annotations": [],
    }
    track = {"video_id": 1, "category_id": 1, "score": 1.0, "segmentations": [None, None]}
    with pytest.raises(DataError, match="detection 0: it has 2 masks, expected 3"):
        video_scores(truth, [track])
    absent = {**track, "segmentations": [None] * 3}
    assert video_scores(truth, [absent]).average() == -1.0
