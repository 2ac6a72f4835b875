"""CycleMLP in the names of the official repository."""

from __future__ import annotations

import re

from videonet.checkpoint.dialect import Dialect
from videonet.checkpoint.names import Row

OUTPUT_NORM = re.compile(r"norm(\d+)\.(.+)")


def count_output_norms(names: list[str]) -> dict[str, str]:
    """Norms of the outputs (``fork_feat``), which are called after their place in ``network``."""
    found = {name: match for name in names if (match := OUTPUT_NORM.fullmatch(name))}
    places = sorted({int(match[1]) for match in found.values()})
    return {
        name: f"output_norms.{places.index(int(match[1]))}.{match[2]}"
        for name, match in found.items()
    }


DIALECTS = (
    Dialect(
        "cyclemlp",
        ("network.0.0.attn.sfc_h.weight",),
        (Row("head.{leaf}", "head.projection.{leaf}"),),
        prepare=count_output_norms,
        constants=("{any}.offset",),  # of the deformable convolution that stands for the shift
    ),
)
