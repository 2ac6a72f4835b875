"""The part of a report that compares classifiers on frozen features."""

from __future__ import annotations

from videonet.finetuning import page
from videonet.finetuning.probe_recipe import Compared, Comparison
from videonet.finetuning.statistics import wilson

NAMES = {
    "attentive": "attentive: looks for the parts of all frames that tell the classes apart",
    "statistics": "statistics: weighs what all parts of the frames are on average, and how much "
    "they change (logistic regression)",
    "linear": "linear: weighs the mean of a video's features (logistic regression)",
    "knn": "nearest neighbours: the most similar training videos vote",
}
SETTINGS = {
    "rate": "learning rate",
    "decay": "weight decay",
    "l2": "penalty on large weights",
    "regions": "regions along a side",
    "neighbours": "neighbours that vote",
}


def classifiers(comparison: Comparison) -> str:
    """What was compared, as a table with bars, and how to read it.

    Args:
        comparison: of the classifiers.
    """
    rows = [_row(one, comparison) for one in comparison.classifiers]
    head = ["classifier", "chosen setting", "unseen training videos", "", "held-out videos", ""]
    used = NAMES[comparison.used.method].partition(":")[0]
    return page.paragraph(
        "The backbone was not trained: it described every video once by numbers, its features. "
        "Classifiers were trained on these. "
        f"The {comparison.train} training videos were divided into {comparison.folds} parts; every "
        "part was judged by classifiers that were trained on the others. What was best there, of "
        f"settings and of classifiers, was trained again on all training videos: {used}. (Nearest "
        "neighbours are there to compare with: they would need all training videos in the model.)"
    ) + page.table(head, rows, numbers=(2, 4)) + page.paragraph(
        "An accuracy that was the best of many is a little flattering; that of the held-out videos "
        "is not, as they chose nothing. Where another classifier happens to be better on them, "
        "taking it for that reason would make that number flattering too. All settings that were "
        "tried: probe.csv in the folder of the run.",
        "note",
    )  # fmt: skip


def _row(one: Compared, comparison: Comparison) -> list[str]:
    name = page.text(NAMES.get(one.method, one.method))
    setting = ", ".join(f"{SETTINGS.get(k, k)} {v:g}" for k, v in one.setting.items())
    cells = [f'<span class="label">{name}</span> (in the model)' if one.used else name]
    right = round(one.held_out * comparison.train / 100)
    cells += [page.text(setting), *_share(right, comparison.train)]
    return [*cells, *_share(one.right, comparison.val)]


def _share(right: int, total: int) -> tuple[str, str]:
    if not total:
        return "not measured", ""
    mark = page.interval(right / total, *wilson(right, total))
    return f"{100 * right / total:.0f} % ({right} of {total})", mark
