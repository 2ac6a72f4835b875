"""Pictures of objects: what is drawn is where it should be."""

import numpy as np
import pytest
from PIL import Image

from videonet.data.masks import encode_masks
from videonet.tasks.dense_plots import (
    DrawnObject,
    colour_of,
    draw_labels,
    draw_objects,
    image_errors,
    plot_precision_recall,
    plot_worst,
)
from videonet.tasks.mask_scores import coco_scores


def frame(height=120, width=160):
    return np.full((height, width, 3), 100, dtype=np.uint8)


def test_boxes_and_masks_are_drawn_where_they_are():
    mask = np.zeros((120, 160), dtype=bool)
    mask[60:100, 40:90] = True
    plain = frame()
    found = draw_objects(plain, [DrawnObject((40, 60, 90, 100), "", mask, number=2)])
    assert (plain == 100).all() and found.dtype == np.uint8
    changed = (found != 100).any(axis=-1)
    assert np.array_equal(changed, mask)
    colour = np.array(colour_of(2))
    assert np.array_equal(found[60, 40], colour) and np.array_equal(found[99, 89], colour)
    assert np.abs(found[80, 60] - (100 + 0.45 * (colour - 100))).max() <= 0.5
    alone = draw_objects(plain, [DrawnObject((40, 60, 90, 100), number=2)])
    assert (alone[80, 60] == 100).all() and np.array_equal(alone[60, 40], colour)


def test_run_lengths_and_the_order_of_objects():
    pytest.importorskip("pycocotools")
    mask = np.zeros((1, 120, 160))
    mask[0, 10:20] = 1
    rle = encode_masks(mask)[0]
    found = draw_objects(frame(), [DrawnObject(mask=rle, number=n) for n in (0, 1)])
    below = draw_objects(frame(), [DrawnObject(mask=rle, number=1)])
    assert np.array_equal(found, draw_objects(below, [DrawnObject(mask=rle, number=0)]))


@pytest.mark.parametrize(
    "box", [(0, 0, 5, 5), (150, 110, 160, 120), (-9, -9, 400, 300), (3, 3, 3, 3)]
)
def test_texts_stay_within_the_frame(box):
    found = draw_objects(frame(), [DrawnObject(box, "a\nlong name\x1b 0.95")])
    assert found.shape == (120, 160, 3)
    assert (found != 100).any(axis=-1).sum() > 300
    assert draw_objects(frame(4, 3), [DrawnObject((0, 0, 3, 4), "name")]).shape == (4, 3, 3)


def test_label_maps_are_drawn_in_the_colours_of_their_classes():
    labels = np.zeros((120, 160), dtype=np.uint8)
    labels[:40], labels[100:] = 3, 255
    found = draw_labels(frame(), labels)
    assert (found[50] == 100).all() and (found[110] == 40).all()
    assert np.abs(found[10, 10] - (100 + 0.45 * (np.array(colour_of(2)) - 100))).max() <= 0.5


def test_errors_of_an_image_by_hand():
    pytest.importorskip("pycocotools")
    truth = [
        {"bbox": [0, 0, 10, 10], "category_id": 1},
        {"bbox": [50, 0, 10, 10], "category_id": 2},
    ]
    right = {"bbox": [0, 0, 10, 9], "category_id": 1, "score": 0.9}
    assert image_errors(truth, [right]) == pytest.approx(1 / 3)
    assert image_errors(truth, [right, right]) == pytest.approx(1 / 2)  # the second one is false
    assert image_errors(truth, [{**right, "category_id": 2}]) == 1.0
    assert image_errors(truth, [{**right, "score": 0.4}]) == 1.0 == image_errors([], [right])
    assert image_errors([], []) == 0.0 == image_errors([{**truth[0], "iscrowd": 1}], [])


def test_figures_are_written(tmp_path):
    pytest.importorskip("pycocotools")
    truth = {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": k} for k in range(1, 15)],
        "annotations": [
            {"image_id": 1, "category_id": k, "bbox": [5 * k, 0, 20, 20]} for k in range(1, 13)
        ],
    }
    found = [{**one, "score": 0.5} for one in truth["annotations"][:6]]
    scores = {"boxes": coco_scores(truth, found, "bbox"), "none": coco_scores(truth, [], "bbox")}
    names = [f"class {k} $" for k in range(14)]
    plot_precision_recall(scores, names, tmp_path / "curves.png")
    nothing = coco_scores({**truth, "annotations": []}, [], "bbox")
    plot_precision_recall({"boxes": nothing}, names, tmp_path / "empty.png")
    plot_worst([(f"{k}", frame(), frame(90, 200)) for k in range(0)], tmp_path / "no.png")
    plot_worst([(f"{k}", frame(), frame()) for k in range(4)], tmp_path / "worst.png")
    for name in ("curves", "empty", "no", "worst"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 200
