"""Masks as run lengths and polygons."""

import numpy as np
import pytest
import torch

from videonet.data.masks import (
    decode_masks,
    encode_masks,
    mask_areas,
    mask_boxes,
    mask_overlaps,
    to_rle,
)
from videonet.errors import DataError

pytest.importorskip("pycocotools")


def some_masks(count=5, height=11, width=17):
    return torch.rand(count, height, width) > 0.6


def test_bitmaps_come_back():
    bitmaps = some_masks()
    bitmaps[2] = False
    rles = encode_masks(bitmaps)
    assert rles[0]["size"] == [11, 17] and isinstance(rles[0]["counts"], str)
    assert torch.equal(decode_masks(rles, (11, 17)), bitmaps)
    assert mask_areas(rles).tolist() == bitmaps.sum(dim=(1, 2)).tolist()
    assert decode_masks([], (11, 17)).shape == (0, 11, 17)
    assert len(mask_areas([])) == len(mask_boxes([])) == 0


def test_boxes_go_around_masks():
    bitmap = torch.zeros(2, 11, 17)
    bitmap[0, 3:7, 5:6] = 1
    assert mask_boxes(encode_masks(bitmap)).tolist() == [[5, 3, 1, 4], [0, 0, 0, 0]]


def test_every_form_of_coco_gives_the_same_mask():
    bitmap = torch.zeros(1, 20, 30)
    bitmap[0, 4:12, 6:26] = 1
    packed = encode_masks(bitmap)[0]
    flat = bitmap[0].T.flatten().numpy()
    changes = np.flatnonzero(np.diff(np.concatenate(([0], flat)))).tolist()
    runs = np.diff([0, *changes, flat.size]).tolist()
    polygon = [[6, 4, 26, 4, 26, 12, 6, 12]]
    for form in (packed, {"size": [20, 30], "counts": runs}, polygon):
        assert to_rle(form, 20, 30) == packed
    assert to_rle({**packed, "counts": packed["counts"].encode()}, 20, 30) == packed
    halves = [[6, 4, 16, 4, 16, 12, 6, 12], [16, 4, 26, 4, 26, 12, 16, 12]]
    assert to_rle(halves, 20, 30) == packed


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ([], "expected polygons or runs"),
        ("abc", "expected polygons or runs"),
        ([[1, 2, 3, 4]], "three or more corners"),
        ([[1, 2, 3, 4, 5, "6"]], "no numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "no numbers"),
        ({"size": [3, 4], "counts": [12]}, r"size \[3, 4\], expected \[4, 3\]"),
        ({"size": [4, 3], "counts": [5, 6]}, "add up to 11, expected 4 x 3 = 12"),
        ({"size": [4, 3], "counts": [5, -6, 13]}, "expected a text or numbers"),
        ({"size": [4, 3]}, "counts None"),
    ],
)
def test_other_forms_are_refused(form, message):
    with pytest.raises(DataError, match=message):
        to_rle(form, 4, 3)


def test_a_part_of_a_crowd_is_enough():
    bitmaps = torch.zeros(2, 8, 8)
    bitmaps[0, :2, :2] = 1
    bitmaps[1, :4] = 1
    small, large = encode_masks(bitmaps)
    assert mask_overlaps([small], [large, large], [False, True]).tolist() == [[4 / 32, 1.0]]
    assert mask_overlaps([], [large], [False]).shape == (0, 1)
