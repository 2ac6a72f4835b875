"""Records of videos: their tracks put together, and the figures of perfect and of no results."""

from dataclasses import replace

import pytest

from videonet.data.datasets.coco import read_objects
from videonet.tasks.object_scores import (
    davis_scores,
    image_tables,
    object_scores,
    record_of,
    video_tables,
)

pytest.importorskip("pycocotools")


def perfect(annotation, frames, first=0):
    """A record whose found tracks are the true ones, with scores of frames."""
    record = record_of(annotation, frames, [])
    scores = tuple(0.5 + 0.01 * (first + k) for k in range(len(frames)))
    found = [replace(track, scores=scores, area=None) for track in record.truth if not track.crowd]
    return replace(record, found=tuple(found))


@pytest.fixture(scope="module")
def davis(shared_dir):
    return read_objects(shared_dir / "data/davis16/instances.json", split="val")


def test_perfect_results_score_one(davis):
    records = [perfect(row, range(16)) for row in davis.annotations.rows]
    scores = object_scores(records, 4)
    assert sorted(scores) == ["boundary", "box", "mask", "video"]
    assert all(found.average() == 1.0 for found in scores.values())
    assert davis_scores(records) == {"J": 1.0, "F": 1.0, "J&F": 1.0}


def test_nothing_found_scores_zero(davis):
    records = [record_of(row, range(0, 16, 4), []) for row in davis.annotations.rows]
    scores = object_scores(records, 4)
    assert all(found.average() == 0.0 for found in scores.values())
    assert davis_scores(records)["J"] < 0.3  # some frames are empty


def test_parts_of_a_video_are_put_together(shared_dir, davis):
    file = shared_dir / "data/davis16/instances.json"
    pieces = read_objects(file, split="val", pieces=6).annotations.rows
    parts = [perfect(row, range(len(row.seen)), row.start) for row in pieces]
    whole = [perfect(row, range(16)) for row in davis.annotations.rows]
    assert [part.start for part in parts[:3]] == [0, 6, 12]
    mine, theirs = video_tables(parts[::-1], 4), video_tables(whole, 4)
    for one in (*mine[1], *theirs[1]):
        one["score"] = round(one["score"], 6)
    assert mine[0]["videos"] == theirs[0]["videos"] and mine[1] == theirs[1]
    assert mine[0]["annotations"] == theirs[0]["annotations"]


def test_images_keep_their_crowds_and_areas(shared_dir):
    rows = read_objects(shared_dir / "data/coco_instances/instances.json").annotations.rows
    records = [perfect(row, [0]) for row in rows[:12]]
    truth, found = image_tables(records, 80)
    assert len(truth["images"]) == 12 and all("segmentation" in one for one in found)
    assert len(truth["annotations"]) - len(found) == sum(
        one["iscrowd"] for one in truth["annotations"]
    )
    assert {one["area"] for one in truth["annotations"]} <= {a for row in rows for a in row.areas}
    scores = object_scores(records, 80)
    assert "video" not in scores and scores["mask"].average() == scores["box"].average() == 1.0


def test_boxes_alone_have_no_mask_scores(shared_dir):
    rows = read_objects(shared_dir / "data/animal_tracks/instances_dev.json").annotations.rows
    records = [perfect(row, range(0, 30, 10)) for row in rows]
    scores = object_scores(records, 2)
    assert list(scores) == ["box"] and scores["box"].average() == 1.0
