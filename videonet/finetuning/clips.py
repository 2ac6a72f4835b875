"""Which clips are taken from videos: frames, their distance, and the size of a frame."""

from __future__ import annotations

import math
import re

from videonet.finetuning.choices import Choice, Machine, StartingWeights
from videonet.finetuning.facts import STILL, DataFacts

WHOLE = 10.0  # seconds up to which a label is taken to speak of the whole video
CLIP = 3.0  # seconds of a clip of a longer video
WIDE = 24.0  # pixels that what moves should be wide in a frame
# Sides of a frame in pixels that a model from random weights is trained with.
SIZES = {"cpu": (64, 80, 96, 112), "cuda": (112, 128, 160, 192)}
TOKENS = 16  # pixels that sides are multiples of
# Words of classes that a mirrored video changes, in some languages.
SIDED = re.compile(
    r"(?<![a-z])(left|right|clockwise|anticlockwise|counterclockwise|cw|ccw|cc|links|rechts|gauche|"
    r"droite|izquierda|derecha|sinistra|destra|lewo|prawo)(?![a-z])|circlecc|leftward|rightward"
)


def choose_clips(
    facts: DataFacts,
    machine: Machine,
    weights: StartingWeights,
    *,
    frames: int = 0,
    size: int = 0,
) -> list[Choice]:
    """Frames, their distance, the size of a frame, views, and whether clips are mirrored.

    Args:
        facts: of the videos.
        machine: where the model is trained.
        weights: where it starts from.
        frames: of a clip, where somebody says so; 0 to choose.
        size: side of a frame in pixels, where somebody says so; 0 to choose.
    """
    clip = _frames(facts, weights, frames)
    number = clip.keys["DATA.NUM_FRAMES"]
    choices = [clip] if number == 1 else [clip, _sampling(facts, weights, number)]
    side = sided(size, "it was asked for") if size else _size(facts, machine, weights)
    return [*choices, side, _views(facts, number), _mirroring(facts)]


def _frames(facts: DataFacts, weights: StartingWeights, asked: int) -> Choice:
    def choice(number: int, why: str) -> Choice:
        return Choice("frames of a clip", str(number), why, {"DATA.NUM_FRAMES": number})

    if asked:
        return choice(asked, "it was asked for")
    if facts.pictures:
        return choice(1, "these are pictures, and not videos")
    if weights.frames > 1 and weights.source:
        return choice(weights.frames, f"the weights {weights.source} were trained so")
    few = sorted(facts.frames)[len(facts.frames) // 10]  # nine of ten videos have more
    if few < 2:
        return choice(1, "most of the videos hold a single frame")
    if facts.moving is not None and facts.moving < STILL:
        return choice(4, "hardly anything moves in these videos, so that more would repeat it")
    if few < 16:
        return choice(8, f"one of ten videos has no more than {few} frames")
    return choice(16, "16 show a movement of some seconds, at a cost that grows with their number")


def _sampling(facts: DataFacts, weights: StartingWeights, number: int) -> Choice:
    usual, long = facts.length(), facts.length(0.9)
    lengths = f"half of the videos are longer than {usual:.1f} s, one of ten than {long:.1f} s"
    what = "which frames"
    if weights.sampling == "segments" and weights.source:
        return Choice(
            what,
            f"{number} spread over the whole video",
            f"the weights {weights.source} were trained so",
            {"DATA.SAMPLING": "segments"},
        )
    trained_dense = weights.source and weights.frames > 1
    if long <= WHOLE and not trained_dense:
        return Choice(
            what,
            f"{number} spread over the whole video",
            f"the videos are short ({lengths}), so a label speaks of all of a video",
            {"DATA.SAMPLING": "segments"},
        )
    rate = weights.fps if trained_dense and weights.fps else 30.0
    longest = CLIP if not trained_dense else number * weights.stride / rate
    span = min(longest, max(facts.length(0.25), 0.2))
    stride = max(1, round(span * rate / number))
    # A video has no frames in between to show.
    low = facts.rate < 0.75 * rate / stride
    why = f"{lengths}, and a clip should lie within its video"
    if trained_dense:
        why += f"; the weights {weights.source} were trained with {longest:.1f} s"
    if low:
        why += f"; at {facts.rate:.0f} frames per second some of them show the same picture"
    return Choice(
        what,
        f"{number} that are {stride} apart at {rate:g} frames per second, "
        f"{number * stride / rate:.1f} s together",
        why,
        {"DATA.SAMPLING": "dense", "DATA.SAMPLING_RATE": stride, "DATA.TARGET_FPS": rate},
    )


def _size(facts: DataFacts, machine: Machine, weights: StartingWeights) -> Choice:
    if weights.source and weights.size:
        side, why = weights.size, f"the weights {weights.source} were trained so"
        return sided(side, why)
    sizes = SIZES["cuda" if machine.fast else "cpu"]
    place = "a GPU" if machine.fast else "a CPU"
    if facts.moving is None or facts.moving < STILL:
        return sided(sizes[-1], f"nothing says what moves, and {place} can do so much")
    # What moves covers this share of the picture; seen as a square it is so wide.
    wanted = WIDE / math.sqrt(min(facts.moving, 1.0))
    side = next((size for size in sizes if size >= wanted), sizes[-1])
    share = f"what moves covers {100 * facts.moving:.1f} % of a frame at a time"
    if facts.border is not None and facts.border > 0.5:
        share += " (the camera moves as well)"
    if wanted > sizes[-1]:
        why = f"{share}; it would need {wanted:.0f}, which is too slow on {place}"
    else:
        why = f"{share}, and so it is about {WIDE:.0f} pixels wide or more"
    if side > facts.short_side:
        side = max(sizes[0], int(facts.short_side) // TOKENS * TOKENS)
        why = f"the videos themselves are about {facts.short_side:.0f} pixels high or wide"
    return sided(side, why)


def sided(side: int, why: str) -> Choice:
    """The choice of a side of a frame in pixels."""
    keys = {
        "DATA.TRAIN_CROP_SIZE": side,
        "DATA.TEST_CROP_SIZE": side,
        "DATA.TRAIN_JITTER_SCALES": [side, round(side * 8 / 7)],
    }
    return Choice("size of a frame", f"{side} × {side} pixels", why, keys)


def _views(facts: DataFacts, frames: int) -> Choice:
    wide = facts.aspect > 1.15
    crops = 3 if wide else 1
    long = facts.length(0.9)
    clips = 1 if frames == 1 else 2 if long <= WHOLE else min(10, max(3, math.ceil(long / 10)))
    shape = "higher than wide" if facts.upright > 0.5 else "wider than high"
    reason = (
        f"the videos are {shape} ({facts.aspect:.2f} to 1), and one square would not see all"
        if wide
        else "the videos are about square"
    )
    return Choice(
        "views of a video when it is judged",
        f"{clips} in time × {crops} in space",
        reason,
        {"TEST.NUM_ENSEMBLE_VIEWS": clips, "TEST.NUM_SPATIAL_CROPS": crops},
    )


def _mirroring(facts: DataFacts) -> Choice:
    sided = [name for name in facts.classes if SIDED.search(name.lower().replace("_", " "))]
    if sided:
        return Choice(
            "mirroring",
            "no",
            f"a mirrored video of {sided[0]!r} would be of another class",
            {"DATA.RANDOM_FLIP": False},
        )
    return Choice(
        "mirroring",
        "half of the training clips",
        "no name of a class speaks of sides (give DATA.RANDOM_FLIP False where sides matter)",
        {"DATA.RANDOM_FLIP": True},
    )
