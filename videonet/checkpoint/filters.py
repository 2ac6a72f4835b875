"""Global filters of the frequency domain for other clips than those they were learnt on."""

from __future__ import annotations

import re

from torch import Tensor

from videonet.checkpoint.fit import Fit, misfit
from videonet.checkpoint.report import INFLATED, INTERPOLATED, LOADED
from videonet.ops.global_filter import resize_filter
from videonet.ops.grid import as_grid

GLOBAL_FILTER = re.compile(r"(?:.*\.)?complex_weight")


def fit_filter(target: Tensor, source: Tensor) -> Fit:
    """A filter (C, t, h, w, 2) for other frequencies, as the operator itself resizes it.

    The filter of an image has one temporal frequency and becomes constant over all: a delta in
    time, so that a still clip is filtered like its image.
    """
    if source.dim() != 5 or (source.shape[0], source.shape[4]) != (target.shape[0], 2):
        return misfit(target, source)
    old, new = as_grid(source.shape[1:4]), as_grid(target.shape[1:4])
    if old == new:
        return Fit(source, LOADED)
    value = resize_filter(source.float(), new)
    if old == (1, *new[1:]):
        return Fit(value, INFLATED, f"constant over {new[0]} temporal frequencies")
    sizes = " -> ".join("x".join(map(str, size)) for size in (old, new))
    return Fit(value, INTERPOLATED, f"{sizes} frequencies")
