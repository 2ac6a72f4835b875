"""Frame tables as a manifest holds them: short texts, from anybody."""

import numpy as np
import pytest

from videonet.data.video.info import FrameTable, pack_table, times_of, unpack_table
from videonet.errors import DecodeError


@pytest.mark.parametrize("pts", [[0], [0, 1, 2, 3, 4, 5], [0, 40, 80, 160, 161], [7, 9, 14]])
def test_what_is_packed_comes_back(pts):
    stamps, keys = np.array(pts), np.array([0])
    table = FrameTable(stamps, times_of(stamps, 0.01, 25), keys, True, False, counted=True)
    found = unpack_table(pack_table(table), 0.01, 25, size=1000)
    assert found.pts.tolist() == pts and found.keys.tolist() == [0]
    assert found.times == pytest.approx(table.times)
    assert found.stamped and not found.open_gop


@pytest.mark.parametrize(
    "text",
    [
        *("", ";;", "11;0;", "2;0;0", "11;0;0,1x0", "11;0;0,1x-5", "11;1;0,1", "11;0;0,0"),
        *("11;0;0,1x99999999", "11;0,1x99999999;0,1", "11;0;0" + ",1x99" * 50),  # beyond the file
        *("11;0;" + "9" * 30, "11;0;" + "9" * 9999, "11;0;a", "\x1b"),
    ],
)
def test_another_text_is_refused(text):
    with pytest.raises(DecodeError, match="table of its frames cannot be used"):
        unpack_table(text, 0.01, 25, size=1000)
