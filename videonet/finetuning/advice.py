"""What a result says, and what to do next, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from videonet.finetuning.curve import Point
from videonet.finetuning.statistics import wilson

WIDE = 0.2  # width of an interval from which on a number says little
GAP = 0.15  # calibration error from which on scores should not be taken for chances


@dataclass(frozen=True)
class Outcome:
    """What came out of a fine-tuning.

    Attributes:
        classes: names.
        train: number of training videos of each class.
        val: number of held-out videos of each class.
        right: of them, how many are recognised, of each class.
        loss: of the training at its end; None where not known.
        calibration: expected calibration error, 0 to 1; None without held-out videos.
        pairs: (class, what it is taken for, videos), the most frequent first.
        suspects: number of videos whose label may be wrong.
        damaged: number of videos that could not be used.
        grouped: whether people, scenes or the like were kept on one side.
        weights: what the training started from; empty for nothing.
        points: of the curve over shares of the data; empty without.
        frozen: the backbone was not trained, and classifiers on its features were.
    """

    classes: Sequence[str]
    train: Sequence[int]
    val: Sequence[int] = ()
    right: Sequence[int] = ()
    loss: float | None = None
    calibration: float | None = None
    pairs: Sequence[tuple[int, int, int]] = ()
    suspects: int = 0
    damaged: int = 0
    grouped: bool = True
    weights: str = ""
    points: Sequence[Point] = ()
    frozen: bool = False

    @property
    def baseline(self) -> float:
        """Share of the held-out videos that the most frequent class of the training gets right."""
        common = max(range(len(self.train)), key=lambda k: self.train[k])
        return self.val[common] / max(sum(self.val), 1)

    @property
    def guesses(self) -> bool:
        """Whether the held-out videos do not show that the model is better than guessing."""
        total, right = sum(self.val), sum(self.right)
        return total > 0 and wilson(right, total)[0] <= self.baseline


def verdict(outcome: Outcome) -> str:
    """How good the model is, in one or two sentences."""
    total, right = sum(outcome.val), sum(outcome.right)
    if not total:
        return (
            "How good this model is cannot be said: no video was held out, as no class had one to "
            "spare."
        )
    low, high = wilson(right, total)
    text = (
        f"The model recognises {right} of {total} videos that it has not seen: "
        f"{100 * right / total:.0f} % (with 95 % certainty between {100 * low:.0f} and "
        f"{100 * high:.0f} %). Always saying the most frequent class gives "
        f"{100 * outcome.baseline:.0f} %."
    )
    if outcome.guesses:
        text += " That is not surely better than guessing."
    return text


def next_steps(outcome: Outcome) -> list[str]:
    """What to do next, the most useful first; sentences."""
    steps: list[str] = []
    total, right = sum(outcome.val), sum(outcome.right)
    chance = math.log(max(len(outcome.classes), 2))
    small = [n for n, c in zip(outcome.classes, outcome.train, strict=True) if 0 < c < 10]
    if total:
        low, high = wilson(right, total)
        if high - low > WIDE:
            steps.append(
                f"{total} held-out videos leave the accuracy uncertain by {100 * (high - low):.0f} "
                "points: differences between two models that are smaller than that mean nothing. "
                "More videos, or a larger --held-out, make it surer."
            )
    if outcome.loss is not None and outcome.loss > 0.75 * chance:
        steps.append(
            f"The training has hardly learnt its own videos (loss {outcome.loss:.2f}, guessing has "
            f"{chance:.2f}): train longer (--minutes), with larger frames (--size), or start from "
            "weights that know videos (--weights)."
        )
    elif total and right / total < 0.8 and outcome.loss is not None:
        steps.append(
            "The model knows its training videos much better than new ones: more videos, of other "
            "people and places, help most"
            + ("." if outcome.weights else "; so do weights that know videos (--weights).")
        )
    if outcome.frozen and total and right / total < 0.8:
        steps.append(
            "The backbone was not trained: more videos help, and so do weights that know videos "
            "(--weights), or training it too, on a GPU (--recipe full)."
        )
    steps += _of_curve(outcome.points)
    # What a model that guesses takes for what says nothing of the classes and the labels.
    for true, guess, count in () if outcome.guesses else outcome.pairs[:2]:
        if count > 1:
            steps.append(
                f"{count} of {outcome.val[true]} videos of {outcome.classes[true]!r} are taken for "
                f"{outcome.classes[guess]!r}: look at them below; more videos of these two classes "
                "help, or one class for both."
            )
    if outcome.suspects and not outcome.guesses:
        steps.append(
            f"Look at the {_labels(outcome.suspects)} below: the model is sure of another class."
        )
    if small:
        steps.append(
            f"{len(small)} classes have fewer than ten training videos ({', '.join(small[:4])}"
            f"{', …' if len(small) > 4 else ''}): film more of them first."
        )
    if outcome.calibration is not None and outcome.calibration > GAP:
        steps.append(
            "Do not read the scores as chances of being right: they are off by "
            f"{100 * outcome.calibration:.0f} points on average."
        )
    if not outcome.grouped:
        steps.append(
            "Nothing says which videos are of the same person or place, so the accuracy may be "
            "flattering: give a list with a column 'group'."
        )
    if outcome.damaged:
        steps.append(f"{outcome.damaged} files were left out; the table below says why.")
    return steps


def _of_curve(points: Sequence[Point]) -> list[str]:
    if len(points) < 2:
        return []
    last, before = points[-1], points[-2]
    gain = last.right / last.total - before.right / before.total
    text = f"From {before.videos} to {last.videos} training videos the accuracy changes by "
    text += f"{100 * gain:+.0f} points"
    if gain >= 0.03:
        return [f"{text}: twice as many videos would probably bring about as much again, or less."]
    return [f"{text}: more videos of the same kind would bring little, unless they are other ones."]


def _labels(count: int) -> str:
    return f"labels of {count} videos" if count > 1 else "label of 1 video"
