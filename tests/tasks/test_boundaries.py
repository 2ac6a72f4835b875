"""Boundary IoU against the official code, and J and F of DAVIS by hand."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from videonet.data.masks import decode_masks, encode_masks
from videonet.errors import DataError
from videonet.tasks.boundaries import (
    boundary_iou,
    boundary_rles,
    boundary_width,
    contour_accuracy,
    mask_boundary,
    region_similarity,
)


def test_boundaries_are_the_official_ones(shared_dir):
    for file in sorted((shared_dir / "reference" / "boundary_iou").glob("*.safetensors")):
        tensors = load_file(file)
        given = next(value for name, value in tensors.items() if name.startswith("input"))
        for ratio in json.loads(file.with_suffix(".json").read_text())["constructor"][
            "dilation_ratio"
        ]:
            name = str(ratio).replace(".", "_")
            found = np.stack([mask_boundary(mask, ratio) for mask in given])
            assert np.array_equal(found, tensors[f"output.boundary.{name}"] > 0), (file, ratio)
            ious = [[boundary_iou(one, other, ratio) for other in given] for one in given]
            assert np.abs(np.array(ious) - tensors[f"output.boundary_iou.{name}"]).max() < 1e-6


def test_a_boundary_by_hand():
    mask = np.zeros((40, 30), dtype=np.uint8)  # diagonal 50: one pixel wide
    assert boundary_width(40, 30) == 1 and boundary_width(480, 640) == 16
    assert boundary_width(2, 2) == 1 and boundary_width(480, 640, 0.005) == 4
    mask[:4, 5:10] = 7  # at the upper border of the image
    expected = mask > 0
    expected[1:3, 6:9] = False
    assert np.array_equal(mask_boundary(mask), expected)
    assert not mask_boundary(np.zeros((40, 30))).any()
    one = np.zeros((40, 30))
    one[11, 7] = 1
    assert np.array_equal(mask_boundary(one), one > 0) and boundary_iou(one, one) == 1.0
    assert boundary_iou(one, mask) == 0.0 == boundary_iou(mask * 0, one * 0)


def test_erosion_is_that_of_every_pixel():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((19, 14)) < 0.93
        padded = np.pad(mask, 2)
        eroded = np.array(
            [[padded[y : y + 5, x : x + 5].all() for x in range(14)] for y in range(19)]
        )
        ratio = 2 / np.hypot(19, 14)
        assert np.array_equal(mask_boundary(mask, ratio), mask & ~eroded)


def test_boundaries_of_run_lengths():
    pytest.importorskip("pycocotools")
    bitmaps = np.random.default_rng(0).random((3, 30, 40)) < 0.9
    found = decode_masks(boundary_rles(encode_masks(bitmaps)), (30, 40)).numpy()
    assert np.array_equal(found, [mask_boundary(mask) for mask in bitmaps])


def square(top, left, side=10, size=(50, 60)):
    mask = np.zeros(size)
    mask[top : top + side, left : left + side] = 1
    return mask


def test_region_similarity_by_hand():
    empty = np.zeros((50, 60))
    assert region_similarity(square(10, 10), square(10, 15)) == pytest.approx(50 / 150)
    assert region_similarity(empty, empty) == 1.0
    assert region_similarity(square(1, 1), empty) == region_similarity(empty, square(1, 1)) == 0.0
    with pytest.raises(DataError, match=r"\(50, 60\) and \(50, 61\)"):
        region_similarity(empty, np.zeros((50, 61)))


def test_contour_accuracy_by_hand():
    one, empty = square(10, 10), np.zeros((50, 60))
    assert contour_accuracy(one, one) == 1.0 == contour_accuracy(empty, empty)
    assert contour_accuracy(one, empty) == contour_accuracy(empty, one) == 0.0
    # The contour has 40 pixels; one moved by 3 keeps what is within a pixel of it.
    assert contour_accuracy(one, square(10, 11), 1) == 1.0
    moved = contour_accuracy(one, square(10, 13), 1)
    assert 0 < moved < 1 and contour_accuracy(one, square(10, 13), 3) == 1.0
    assert contour_accuracy(one, square(30, 40), 1) == 0.0


def test_the_tolerance_is_a_disk():
    """A far point is right up to the radius, in every direction."""
    size = (40, 40)
    for down, right, inside in [(0, 5, True), (3, 4, True), (4, 4, False), (0, 6, False)]:
        first, second = np.zeros(size), np.zeros(size)
        first[20:22, 20:22], second[20 + down : 22 + down, 20 + right : 22 + right] = 1, 1
        ones = contour_accuracy(first, second, 5)
        assert (ones == 1.0) == inside, (down, right)
