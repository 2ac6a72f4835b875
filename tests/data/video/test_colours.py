"""Files whose right colours are known: every matrix and range, and what has none."""

import av
import numpy as np
import pytest

from videonet.data.decode import open_video
from videonet.data.preparing.prepare import Encoder
from videonet.data.video.colours import _FOLLOWS_MARKS

COLOURS = np.array([(200, 40, 40), (40, 200, 60), (30, 60, 220), (128, 128, 128)])
WEIGHTS = {"BT.601": (0.299, 0.114), "BT.709": (0.2126, 0.0722), "BT.2020": (0.2627, 0.0593)}
MARKS = {"BT.601": 6, "BT.709": 1, "BT.2020": 9}
WIDTH, HEIGHT = 64, 32


def coded(colour, matrix, full):
    """Y, Cb, Cr of an RGB colour (ITU-R BT.601, BT.709, BT.2020)."""
    red, blue = WEIGHTS[matrix]
    r, g, b = colour / 255
    y = red * r + (1 - red - blue) * g + blue * b
    chroma = [(b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))]
    if full:
        return [round(255 * y), *(round(128 + 255 * c) for c in chroma)]
    return [round(16 + 219 * y), *(round(128 + 224 * c) for c in chroma)]


def write(path, matrix, full, marked=True):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        if marked:
            stream.codec_context.colorspace = MARKS[matrix]
            stream.codec_context.color_range = 2 if full else 1
        values = np.array([coded(colour, matrix, full) for colour in COLOURS], np.uint8)
        planes = np.repeat(values, WIDTH // 4, axis=0).T  # (3, W)
        array = np.repeat(planes[:, None], HEIGHT, axis=1)
        for k in range(3):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="yuv444p")
            if marked:
                frame.colorspace, frame.color_range = MARKS[matrix], 2 if full else 1
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shown(path, backend="pyav"):
    with open_video(path, backend) as reader:
        frame = reader.frames_at([1])[0].numpy()
    return frame[frame.shape[0] // 2, WIDTH // 8 :: WIDTH // 4].astype(int)


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", sorted(WEIGHTS))
def test_matrix_and_range_are_followed(tmp_path, matrix, full):
    if matrix == "BT.2020" and not _FOLLOWS_MARKS:
        pytest.skip("PyAV before 17 does not know the matrix of BT.2020")
    path = write(tmp_path / "a.mkv", matrix, full)
    assert np.abs(shown(path) - COLOURS).max() <= 3
    target = tmp_path / "small.mp4"
    assert Encoder(HEIGHT, 4, 1)((str(path), str(target))) is None
    assert np.abs(shown(target) - COLOURS).max() <= 8  # its colours are at half the size


def test_without_marks_it_is_601_in_limited_range(tmp_path):
    path = write(tmp_path / "a.mkv", "BT.601", full=False, marked=False)
    assert np.abs(shown(path) - COLOURS).max() <= 3
