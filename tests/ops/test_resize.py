"""Resizing of pictures in OpenCV's integers."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from videonet.ops.resize import resize_antialiased, resize_bytes

SIZES = [
    ((32, 32), (64, 64)),
    ((48, 48), (100, 70)),
    ((64, 50), (33, 31)),
    ((17, 9), (9, 17)),
    ((64, 64), (32, 32)),
    ((1, 5), (7, 7)),
    ((64, 64), (16, 16)),
]


@pytest.mark.parametrize("before, after", SIZES)
def test_bytes_are_rounded_but_bilinear(before, after):
    image = torch.randint(0, 256, (2, 3, *before), dtype=torch.uint8)
    found = resize_bytes(image, after)
    exact = F.interpolate(image.double(), after, mode="bilinear")
    assert found.dtype is torch.uint8 and (found - exact).abs().max() <= 1
    assert torch.equal(resize_bytes(image, before), image)


PICTURE = [[90, 104, 7, 250, 31], [77, 3, 200, 18, 163], [0, 255, 60, 131, 9]]
KNOWN = [  # what cv2.resize of OpenCV 5.0 gives
    (
        [[90, 104], [77, 3]],
        [[90, 93, 100, 104], [87, 85, 81, 79], [80, 67, 41, 28], [77, 58, 21, 3]],
    ),
    (
        PICTURE,
        [
            [90, 98, 76, 7, 181, 156, 31],
            [82, 58, 66, 128, 111, 109, 113],
            [48, 76, 112, 148, 85, 80, 105],
            [0, 145, 199, 60, 111, 79, 9],
        ],
    ),
    (PICTURE, [[84, 55, 107], [77, 95, 66]]),
    (
        [[0, 1, 4, 9], [16, 25, 36, 49], [64, 81, 100, 121], [144, 169, 196, 225]],
        [[11, 25], [115, 161]],
    ),
]


@pytest.mark.parametrize("image, expected", KNOWN)
def test_bytes_are_those_of_opencv(image, expected):
    image, expected = (torch.tensor(rows, dtype=torch.uint8) for rows in (image, expected))
    assert torch.equal(resize_bytes(image, tuple(expected.shape)), expected)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("before, after", SIZES)
def test_antialiased_bytes_are_those_of_torchvision(before, after, mode):
    images = torch.randint(0, 256, (2, *before, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    expected = functional.resize(images, list(after), InterpolationMode(mode), antialias=True)
    for layout in (images, images.contiguous(), images.contiguous().expand(2, -1, -1, -1)):
        found = resize_antialiased(layout, after, mode)
        assert found.dtype is torch.uint8 and torch.equal(found, expected)
    assert torch.equal(resize_antialiased(images[:1], after, mode), expected[:1])


def test_processors_without_avx2_resize_too(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    images = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    exact = F.interpolate(images.float(), (9, 14), mode="bilinear", antialias=True)
    found = resize_antialiased(images, (9, 14))
    assert found.dtype is torch.uint8 and (found - exact).abs().max() <= 1
