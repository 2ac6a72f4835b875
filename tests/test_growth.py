"""The measurements of growth run, on numbers that are small."""

import pytest

from tests.growth import MEASURES


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURES)
def test_what_is_measured_does_what_it_says(name, tmp_path):
    steps = list(MEASURES[name](tmp_path, 230, 20))
    assert len([step for step in steps if step]) >= 3
