"""The heads that read all tokens of a backbone, by the names that ``MODEL.HEAD`` has for them."""

from __future__ import annotations

from videonet.heads.attentive import AttentiveHead
from videonet.heads.classification import TokenHead
from videonet.heads.statistics import StatisticsHead

TOKEN_HEADS: dict[str, type[TokenHead]] = {
    "attentive": AttentiveHead,
    "statistics": StatisticsHead,
}
