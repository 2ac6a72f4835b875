"""The report of a fine-tuning: ``report.html``, one file that opens without a network."""

from __future__ import annotations

import json
import logging
import math
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from videonet.data.decode import open_video
from videonet.engine.metric_logger import read_log
from videonet.engine.results import RESULTS
from videonet.errors import DecodeError
from videonet.files import replacing_text
from videonet.finetuning import page
from videonet.finetuning.advice import Outcome, next_steps, verdict
from videonet.finetuning.curve import CURVE, REST, SHARES, Point, read_curve
from videonet.finetuning.probe_recipe import UNSEEN, Comparison, read_comparison
from videonet.finetuning.probe_report import classifiers
from videonet.finetuning.state import State
from videonet.finetuning.statistics import (
    Judged,
    confused_pairs,
    doubtful,
    judged,
    suspects,
    wilson,
    worst,
)
from videonet.inference.display import film_strip
from videonet.tasks.class_scores import ClassScores
from videonet.tasks.class_tables import read_scores

logger = logging.getLogger(__name__)

REPORT = "report.html"
SHOWN = 6  # videos of each kind
SUSPECTS = 12
STRIP = 150  # pixels, height of a frame
FRAMES = 4  # of a video
LISTED = 40  # rows of a table that are shown at once


@dataclass(frozen=True)
class _Results:
    """What was measured on held-out videos.

    Attributes:
        scores: of the held-out videos; None where there are none.
        videos: the same, one by one.
        rest: training videos as judged by a model that was not trained with them.
        failed: videos that could not be read in the test.
        points: of the curve over shares of the data.
        comparison: of classifiers on frozen features; None after a training.
    """

    scores: ClassScores | None
    videos: Sequence[Judged]
    rest: Sequence[Judged]
    failed: Sequence[str]
    points: Sequence[Point]
    comparison: Comparison | None = None


def write_report(folder: Path, state: State) -> str:
    """Write ``report.html`` of what a run has left in its folder.

    Args:
        folder: of the run.
        state: what was chosen.

    Returns:
        How good the model is, in a sentence.

    Raises:
        DataError: a table of the run cannot be read.
        WriteError: the report cannot be written.
    """
    results = _read_results(folder, state)
    outcome = _outcome(folder, state, results)
    name = Path(state.asked.place).stem
    sections = [
        _head(name, state, outcome),
        page.section("What to do next", page.listing(next_steps(outcome))),
        _use(folder, state),
        *_accuracy(folder, outcome, results),
        *_videos(state, results),
        _learning(folder, results),
        _data(state),
        _choices(folder, state),
    ]
    with replacing_text(folder / REPORT) as file:
        file.write(page.page(f"{name}: report", sections).encode("utf-8", "replace").decode())
    return verdict(outcome)


def _read_results(folder: Path, state: State) -> _Results:
    place = folder / CURVE / str(SHARES[-1]) / REST / "scores.csv"
    rest: list[Judged] = []
    points, comparison = read_curve(state, folder), read_comparison(folder)
    if comparison is not None:
        rest = judged(*read_scores(folder / UNSEEN / "scores.csv"))
    elif points and place.is_file():
        rest = judged(*read_scores(place))
    path = folder / RESULTS
    if not path.is_file():
        return _Results(None, [], rest, [], points, comparison)
    paths, scores = read_scores(folder / "scores.csv")
    failed = json.loads(path.read_text(encoding="utf-8"))["failed"]
    return _Results(scores, judged(paths, scores), rest, failed, points, comparison)


def _outcome(folder: Path, state: State, results: _Results) -> Outcome:
    count = len(state.classes)
    train = Counter(clip.label for clip in state.of_part("train"))
    val: Sequence[int] = [0] * count
    right: Sequence[int] = val
    pairs, calibration = [], None
    if results.scores is not None:
        val, right = (numbers.tolist() for numbers in results.scores.class_counts())
        pairs = confused_pairs(results.scores.confusion(), 8)
        calibration = results.scores.calibration_error()
    losses = [r["loss"] for r in _log(folder) if r["kind"] == "train"][-10:]
    return Outcome(
        classes=state.classes,
        train=[train[label] for label in range(count)],
        val=val,
        right=right,
        loss=sum(losses) / len(losses) if losses else None,
        calibration=calibration,
        pairs=pairs,
        suspects=len(suspects([*results.videos, *results.rest], SUSPECTS)),
        damaged=len(state.left_out),
        grouped=any(clip.group for clip in state.clips),
        weights=state.config.get("TRAIN", {}).get("CHECKPOINT_FILE_PATH", ""),
        points=results.points,
        frozen=results.comparison is not None,
    )


def _log(folder: Path) -> list[dict]:
    path = folder / "log.jsonl"
    return read_log(path) if path.is_file() else []


def _head(name: str, state: State, outcome: Outcome) -> str:
    total, right = sum(outcome.val), sum(outcome.right)
    parts = [f"<h1>{page.text(name)}: a model for {len(state.classes)} classes</h1>"]
    if total:
        low, high = wilson(right, total)
        parts += [
            f'<div class="big">{100 * right / total:.0f} %</div>',
            page.interval(right / total, low, high),
        ]
    parts.append(page.paragraph(verdict(outcome), "lead"))
    split = next(c for c in state.choices if c.what.startswith("held out"))
    parts.append(
        page.paragraph(
            f"Held out: {split.value}. {_sentence(split.why)} Nothing was chosen by their results"
            + ("." if outcome.frozen else ", and the model is that of the last epoch."),
            "note",
        )
        if total
        else ""
    )
    return "\n".join(parts)


def _sentence(phrase: str) -> str:
    return f"{phrase[:1].upper()}{phrase[1:]}." if phrase else ""


def _use(folder: Path, state: State) -> str:
    model = str((folder / "model").absolute())
    video = next((clip.path for clip in state.of_part("val")), state.clips[0].path)
    return page.section(
        "How to use it",
        page.paragraph("On the command line, for a file, a folder or a list:"),
        page.code(
            [
                f"videonet predict {shlex.quote(video)} --checkpoint {shlex.quote(model)}",
                f"videonet predict FOLDER --checkpoint {shlex.quote(model)} --output labels.csv",
            ]
        ),
        page.paragraph("In Python:"),
        page.code(
            [
                "import videonet",
                "",
                f"predictor = videonet.Predictor.from_pretrained({model!r})",
                f"print(predictor({video!r}))",
            ]
        ),
        page.paragraph("The folder of the model can be moved and sent on; it needs nothing else."),
    )


def _accuracy(folder: Path, outcome: Outcome, results: _Results) -> list[str]:
    if results.scores is None:
        return []
    names = outcome.classes
    confused = [
        f"{n} of {outcome.val[true]} of {names[true]!r} are taken for {names[guess]!r}"
        for true, guess, n in outcome.pairs
    ]
    error = 100 * (outcome.calibration or 0)
    confident = results.scores.best[0].mean().item()
    right = results.scores.accuracy()
    way = "more" if confident > right else "less"
    return [
        page.section(
            "Every class",
            page.paragraph(
                "With the range in which each accuracy lies, with 95 % certainty.", "note"
            ),
            _classes(outcome),
        ),
        page.section(
            "What is taken for what",
            page.listing(confused) or page.paragraph("Nothing is: all are recognised."),
            page.picture_file(
                folder / "confusion.png",
                "confusion matrix, a row per true class",
                "medium" if len(names) <= 20 else "",
            ),
        ),
        page.section(
            "Can the scores be trusted?",
            page.paragraph(
                f"A score of 0.8 should be right in 80 % of the cases. Here scores are off by "
                f"{error:.0f} points on average (expected calibration error); the model is {way} "
                f"sure ({100 * confident:.0f} %) than it is right ({100 * right:.0f} %)."
            ),
            page.picture_file(folder / "reliability.png", "accuracy over the score", "small"),
        ),
        page.section("Not read in the test", page.listing(results.failed)),
    ]


def _classes(outcome: Outcome) -> str:
    rows = []
    columns = zip(outcome.classes, outcome.train, outcome.val, outcome.right, strict=True)
    for name, train, total, right in sorted(columns, key=lambda c: c[3] / c[2] if c[2] else 2):
        low, high = wilson(right, total)
        shown = f"{100 * right / total:.0f} % ({right} of {total})" if total else "not measured"
        mark = page.interval(right / total, low, high) if total else ""
        rows.append([page.text(name), shown, mark, str(train)])
    head = ["class", "recognised", "", "trained with"]
    first = page.table(head, rows[:LISTED], numbers=(1, 3))
    if len(rows) <= LISTED:
        return first
    more = page.table(head, rows[LISTED:], numbers=(1, 3))
    return first + page.folded(f"{len(rows) - LISTED} more classes", more)


def _videos(state: State, results: _Results) -> list[str]:
    wrong = worst(results.videos, SHOWN)
    unsure = doubtful([v for v in results.videos if v not in wrong], SHOWN)
    suspected = suspects([*results.videos, *results.rest], SUSPECTS)
    where = _judged_too(results)
    return [
        page.section("The worst mistakes", _clips(state, wrong)),
        page.section(
            "The most doubtful videos",
            page.paragraph("Their two highest scores are next to equal.", "note") if unsure else "",
            _clips(state, unsure),
        ),
        page.section(
            "Labels to look at",
            page.paragraph(
                "The model is sure of another class. It, or the label, is wrong. " + where
                if suspected
                else f"No label of {'a video' if results.comparison else 'a held-out video'} is "
                f"in doubt. {where}"
            ),
            _clips(state, suspected),
        )
        if results.videos or results.rest
        else "",
    ]


def _judged_too(results: _Results) -> str:
    """Which training videos were judged, in words."""
    if results.comparison is not None:
        return "The training videos were judged too, each by a classifier that had not seen it."
    if results.rest:
        return "Half of the training videos were judged too, by the model trained on the others."
    return (
        "Training videos are not judged: the model has learnt their labels. With --data-curve half "
        "of them are, by a model that has not."
    )


def _clips(state: State, videos: Sequence[Judged]) -> str:
    found = "".join(_clip(state, video) for video in videos)
    return f'<div class="clips">{found}</div>' if found else ""


def _clip(state: State, video: Judged) -> str:
    rows = "".join(
        f"<span{_marked(number == video.label)}>{page.text(state.classes[number])}</span>"
        f"{page.bar(score)}<span>{score:.2f}</span>"
        for number, score in _with_label(video)
    )
    name = os.path.relpath(video.path, _root(state.asked.place))
    return (
        f"<figure>{_strip(video.path)}<div>labelled "
        f'<span class="label">{page.text(state.classes[video.label])}</span></div>'
        f'<div class="scores">{rows}</div><figcaption>{page.text(name)}</figcaption></figure>'
    )


def _with_label(video: Judged) -> list[tuple[int, float]]:
    """The highest scores, and that of the label."""
    known = {number for number, _ in video.top}
    return [*video.top, *([] if video.label in known else [(video.label, video.score)])]


def _marked(is_label: bool) -> str:
    return ' class="label"' if is_label else ""


def _root(place: str) -> str:
    return place if os.path.isdir(place) else os.path.dirname(place)


def _strip(path: str) -> str:
    """Frames of a video; a sentence where it cannot be read any more."""
    try:
        with open_video(path, "pyav", STRIP, allow_larger=True) as reader:
            count = reader.info.frames
            shown = sorted({round(k * (count - 1) / (FRAMES - 1)) for k in range(FRAMES)})
            frames = reader.frames_at(shown)  # (T, H, W, 3)
    except DecodeError as error:
        return page.paragraph(error, "note")
    strip = film_strip(frames.permute(3, 0, 1, 2), kind="JPEG", height=STRIP)
    return page.picture(strip, "jpeg", "frames of the video, from its start to its end")


def _learning(folder: Path, results: _Results) -> str:
    curve, points, comparison = "", results.points, results.comparison
    each = "of the same kind" if comparison else "trained for as many steps"
    if points:
        rows = []
        for point in points:
            low, high = wilson(point.right, point.total)
            share = point.right / point.total
            rows.append(
                [
                    f"{point.videos} ({point.share} %)",
                    f"{100 * share:.0f} % ({point.right} of {point.total})",
                    page.interval(share, low, high),
                ]
            )
        curve = page.table(["training videos", "recognised", ""], rows, numbers=(0, 1))
        curve = page.paragraph(f"What more videos bring (each model {each}):") + curve
    else:
        curve = page.paragraph(
            "The same command with --data-curve also trains on 25 and 50 % of the videos, and "
            "shows here what more of them would bring.",
            "note",
        )
    if comparison is not None:
        return page.section("The classifiers", classifiers(comparison), curve)
    return page.section(
        "How it learnt",
        page.picture_file(
            folder / "learning_curve.png", "training loss and validation over the steps"
        ),
        curve,
    )


def _data(state: State) -> str:
    parts = {part: Counter(c.label for c in state.of_part(part)) for part in ("train", "val")}
    largest = max(parts["train"].values(), default=1)
    rows = [
        [
            page.text(name),
            str(parts["train"][label]),
            page.bar(parts["train"][label] / largest),
            str(parts["val"][label]),
        ]
        for label, name in enumerate(state.classes)
    ]
    table = page.table(["class", "training", "", "held out"], rows, numbers=(1, 3))
    if len(rows) > LISTED:
        table = page.folded(f"{len(rows)} classes", table)
    seconds = sorted(clip.seconds for clip in state.clips)
    length = f"{seconds[0]:.1f} to {seconds[-1]:.1f} s, half of them up to {_middle(seconds):.1f} s"
    root = _root(state.asked.place)
    left = [
        [page.text(os.path.relpath(path, root) if os.path.isabs(path) else path), page.text(why)]
        for path, why in state.left_out
    ]
    return page.section(
        "The videos",
        page.paragraph(
            f"{len(state.clips)} videos of {length}, from {state.asked.place}. Which one is where: "
            "data/videos.csv in the folder of the run."
        ),
        table,
        _copies(state, root),
        page.paragraph(f"{len(left)} files or classes were left out:") if left else "",
        page.table(["left out", "why"], left[:LISTED]) if left else "",
        page.folded("the others", page.table(["left out", "why"], left[LISTED:]))
        if len(left) > LISTED
        else "",
    )


def _middle(values: Sequence[float]) -> float:
    return values[len(values) // 2]


def _copies(state: State, root: str) -> str:
    """Videos that are there several times, those with different labels first."""
    pairs = [(*pair, "the same file") for pair in state.same]
    pairs += [(*pair, "looks the same") for pair in state.alike]
    rows: dict[bool, list[list[str]]] = {True: [], False: []}
    for copy, first, how in pairs:
        one, other = state.clips[copy], state.clips[first]
        names = [os.path.relpath(clip.path, root) for clip in (one, other)]
        labels = [state.classes[clip.label] for clip in (one, other)]
        cells = [*names, how, " / ".join(dict.fromkeys(labels))]
        rows[one.label != other.label].append(list(map(page.text, cells)))
    if not pairs:
        return page.paragraph("No video is there twice.")
    text = f"Copies of other videos, which stay on the same side of the split: {len(pairs)}"
    if rows[True]:
        text += f"; with another label than what they are a copy of: {len(rows[True])}"
    head = ["video", "copy of", "how", "classes"]
    return (
        page.paragraph(f"{text}.")
        + (page.table(head, rows[True][:LISTED]) if rows[True] else "")
        + (
            page.folded("copies within a class", page.table(head, rows[False]))
            if rows[False]
            else ""
        )
    )


def _choices(folder: Path, state: State) -> str:
    rows = [
        [page.text(choice.what), page.text(choice.value), page.text(choice.why)]
        for choice in state.choices
    ]
    losses = [r for r in _log(folder) if r["kind"] == "train"]
    memory = max((r.get("memory_gib", 0.0) for r in losses), default=math.nan)
    took = f" It took up to {memory:.1f} GiB." if memory > 0 else ""
    return page.section(
        "What was chosen, and why",
        page.paragraph(
            f"Trained on {state.device}.{took} Every choice can be given on the command line: "
            "videonet finetune --help; config.yaml in the folder of the run holds all keys.",
            "note",
        ),
        page.table(["choice", "value", "why"], rows),
    )
