"""From what is known of videos and machine to a whole recipe, with a reason for every choice.

Nothing is read and nothing is trained here: facts in, choices out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from videonet.data.video.frame_store import decoded_bytes
from videonet.data.video.reader import scaled_size
from videonet.errors import ConfigError
from videonet.finetuning.choices import Choice, Machine, StartingWeights, time_in_words
from videonet.finetuning.clips import SIZES
from videonet.finetuning.facts import STILL, DataFacts

MINUTES = {"cpu": 45.0, "cuda": 60.0}  # that a training takes where nobody says how long
SMALL = "hrnet_xs"  # the model from random weights: it leaves chance first, in the least time
# How the names of models end, in the order in which a device is given them.
SUITABLE = {"cpu": ("xs", "t", "s"), "cuda": ("b", "s", "t", "l", "xs")}
FEW = 8  # training videos per class below which the weights of a large model are kept
BALANCED = 3.0  # videos of the largest class over those of the smallest that are left as they are
KEPT = 4e9  # bytes of decoded frames that a run may keep
FRAMES = "frames"  # their folder, in that of the lists
REPEATS = 5  # times that a video of a small class comes in an epoch, at most


@dataclass(frozen=True)
class Recipe:
    """A way to train.

    Attributes:
        text: what is trained, in words.
        keys: of the configuration.
        rate: learning rate for 16 clips a step.
        clips: training clips that are seen: at least so many …
        epochs: … or of every video, whichever is more.
        least: epochs that are trained however long they take.
    """

    text: str
    keys: dict[str, Any]
    rate: float
    clips: int
    epochs: int
    least: int


_ADAMW = {
    "SOLVER.OPTIMIZING_METHOD": "adamw",
    "SOLVER.ZERO_WD_1D_PARAM": True,
    "SOLVER.CLIP_GRAD_L2NORM": 1.0,
    "SOLVER.COSINE_AFTER_WARMUP": True,
    "SOLVER.WARMUP_START_LR": 1e-6,
    "SOLVER.COSINE_END_LR": 1e-6,
    "MODEL.LOSS_FUNC": "soft_cross_entropy",
    "MIXUP.ENABLE": True,  # for the label smoothing alone
    "MIXUP.PROB": 0.0,
}
_AUGMENTED = {
    "AUG.ENABLE": True,
    "AUG.NUM_SAMPLE": 2,
    "AUG.RE_PROB": 0.0,
    # What differs from camera to camera, and is no movement.
    "AUG.EXPOSURE": 1.0,
    "AUG.SHAKE": 1.0,
    "AUG.TRIM": 0.3,
}
_SMALL = (
    _ADAMW
    | _AUGMENTED
    | {
        "MODEL.DROPPATH_RATE": 0.1,
        "MODEL.DROPOUT_RATE": 0.0,
        "SOLVER.WEIGHT_DECAY": 0.05,
    }
)
_MILD, _STRONG = ({"AUG.AA_TYPE": f"rand-m7-n{n}-mstd0.5-inc1"} for n in (2, 4))
RECIPES = {
    "scratch": Recipe(
        "all of a small model, from random weights",
        _SMALL | _MILD,
        rate=1e-3,
        clips=20_000,
        epochs=40,
        least=10,
    ),
    "full": Recipe(
        "all layers, the lower ones at a smaller rate",
        _ADAMW | _AUGMENTED | _STRONG | {"SOLVER.WEIGHT_DECAY": 0.05, "SOLVER.LAYER_DECAY": 0.75},
        rate=2e-4,
        clips=6_000,
        epochs=20,
        least=3,
    ),
    "small": Recipe(
        "all of a small model, from weights that know videos",
        _SMALL | _STRONG,
        rate=1e-3,
        clips=15_000,
        epochs=40,
        least=10,
    ),
    "head": Recipe(
        "the classifier and the last norm alone, on features that stay as they are",
        _ADAMW
        | _AUGMENTED
        | {
            "AUG.NUM_SAMPLE": 1,
            "AUG.AA_TYPE": "",
            "AUG.EXPOSURE": 0.0,
            "AUG.SHAKE": 0.0,
            "AUG.TRIM": 0.0,
            "MODEL.FROZEN_LAYERS": -1,
            "SOLVER.WEIGHT_DECAY": 1e-4,
        },
        rate=2e-3,
        clips=2_000,
        epochs=15,
        least=3,
    ),
    "probe": Recipe(
        "classifiers on features that stay as they are and are computed once",
        _AUGMENTED | {"AUG.NUM_SAMPLE": 1, "AUG.AA_TYPE": "", "PROBE.DROPOUT": 0.2},
        rate=0.0,  # its length is chosen in probe_plan.py
        clips=0,
        epochs=0,
        least=0,
    ),
}


def choose_weights(
    facts: DataFacts, machine: Machine, found: Sequence[StartingWeights], place: str
) -> tuple[StartingWeights, Choice]:
    """What the training starts from.

    Args:
        facts: of the videos.
        machine: where the model is trained.
        found: weights that somebody gave, or that are on this machine.
        place: of the cache, for the reason.
    """
    what = "starting weights"
    kind = "cuda" if machine.fast else "cpu"
    given = [weights for weights in found if weights.given]
    if given:
        return given[0], _start(what, given[0], "this was asked for")
    moves = not facts.pictures and (facts.moving is None or facts.moving >= STILL)
    ranked = sorted(
        (w for w in found if _ending(w.model) in SUITABLE[kind] and not w.made),
        key=lambda w: (
            w.frames == 1 and not facts.pictures,
            SUITABLE[kind].index(_ending(w.model)),
        ),
    )
    if ranked:
        best = ranked[0]
        knows = "videos" if best.frames > 1 else "images, and no motion"
        return best, _start(
            what,
            best,
            f"they are in the cache and know {best.trained_on or knows}, and their size suits "
            f"{'a GPU' if machine.fast else 'a CPU'}",
        )
    hint = "mvit_v2_s.k400" if machine.fast else "mvit_v2_s.k400 (slow on a CPU)"
    reason = (
        f"the cache {place} holds no published weights that suit this machine; --weights {hint} "
        "would fetch some, and a run of yours may be given as well"
    )
    made = [weights for weights in found if weights.made]
    if made and moves:
        return made[0], _start(what, made[0], reason)
    none = StartingWeights("", SMALL, 0, 0)
    return none, Choice(
        what,
        f"none: a small model ({SMALL}) from random weights",
        reason,
        {
            "MODEL.NAME": SMALL,
            "MODEL.ARGUMENTS": {"centre_clips": True},
            "TRAIN.CHECKPOINT_FILE_PATH": "",
        },
    )


def _ending(model: str) -> str:
    return model.rpartition("_")[2]


def _start(what: str, weights: StartingWeights, why: str) -> Choice:
    keys = {"TRAIN.CHECKPOINT_FILE_PATH": weights.source}
    text = f"{weights.source} ({weights.model})"
    if weights.made:
        text = f"a small model ({weights.model}) that learns {weights.trained_on} first, once"
    return Choice(what, text, why, keys)


def choose_recipe(
    facts: DataFacts, machine: Machine, weights: StartingWeights, asked: str = ""
) -> tuple[str, Choice]:
    """Which recipe of ``RECIPES``, and what it says.

    Args:
        facts: of the videos.
        machine: where the model is trained.
        weights: where it starts from.
        asked: name of a recipe; empty to choose one.

    Raises:
        ConfigError: the recipe that is asked for does not fit the weights.
    """
    used = [count for count in facts.train if count]
    per_class = facts.num_train / max(len(used), 1)
    if asked:
        if asked != "scratch" and not weights.source:
            raise ConfigError(f"the recipe {asked!r} needs weights to start from: give --weights")
        name, why = asked, "it was asked for"
    elif not weights.source:
        name, why = "scratch", "there are no weights whose knowledge could be kept"
    elif _ending(weights.model) == "xs":
        name, why = "small", "the model is small enough to train all of it"
    elif not machine.fast:
        name = "probe"
        why = "training so large a model takes days on a CPU, and its features can be kept"
    elif per_class < FEW:
        name = "probe"
        why = f"{per_class:.0f} videos per class are too few to change all of so large a model"
    else:
        name, why = "full", f"there are {per_class:.0f} videos per class to learn from, and a GPU"
    recipe = RECIPES[name]
    keys = dict(recipe.keys) | {"TRAIN.MIXED_PRECISION": machine.fast}
    return name, Choice("what is trained", f"{recipe.text} (recipe {name})", why, keys)


def choose_balance(facts: DataFacts, recipe: str = "") -> tuple[list[int], Choice]:
    """How often a training video of each class comes in an epoch.

    Args:
        facts: of the videos.
        recipe: name of the recipe.
    """
    if recipe == "probe":
        why = "classifiers on kept features are compared by the share of all videos that are right"
        return [1] * len(facts.train), Choice("balance of the classes", "every video once", why)
    largest = max(facts.train)
    repeats = [
        min(REPEATS, math.ceil(largest / (BALANCED * count))) if count else 1
        for count in facts.train
    ]
    if max(repeats) == 1:
        value, why = "every video once an epoch", "no class is much smaller than another one"
    else:
        small = facts.classes[repeats.index(max(repeats))]
        value = f"videos of small classes up to {max(repeats)} times an epoch"
        why = (
            f"the largest class has {facts.imbalance:.0f} times as many as the smallest; "
            f"{small!r} would hardly be learnt"
        )
    return repeats, Choice("balance of the classes", value, why)


@dataclass(frozen=True)
class Schedule:
    """How long a training is.

    Attributes:
        epochs: of the training.
        seconds: that it takes, about.
        choices: what was chosen.
    """

    epochs: int
    seconds: float
    choices: Sequence[Choice]


def wanted_clips(recipe: Recipe, videos: int) -> int:
    """How many training clips a recipe wants to see of so many videos."""
    return max(recipe.clips, recipe.epochs * videos * recipe.keys["AUG.NUM_SAMPLE"])


def fitting_side(
    name: str, machine: Machine, videos: int, side: int, seconds: float, minutes: float
) -> int:
    """The largest side of a frame, up to `side`, with which most of a training fits into the time.

    Args:
        name: of the recipe.
        machine: where the model is trained.
        videos: of an epoch.
        side: in pixels.
        seconds: that a training clip takes at `side`.
        minutes: that the training may take.
    """
    wanted = 0.75 * wanted_clips(RECIPES[name], videos)
    sizes = SIZES["cuda" if machine.fast else "cpu"]
    for smaller in [side, *sorted((s for s in sizes if s < side), reverse=True)]:
        if wanted * seconds * (smaller / side) ** 2 <= 60 * minutes:
            return smaller
    return min(side, sizes[0])


def choose_schedule(
    name: str,
    machine: Machine,
    videos: int,
    seconds: float,
    minutes: float,
    *,
    validated: bool,
    asked: int = 0,
) -> Schedule:
    """Steps, epochs, rates, and how often there is a result.

    Args:
        name: of the recipe.
        machine: where the model is trained.
        videos: of an epoch.
        seconds: that a training clip takes.
        minutes: that the training may take.
        validated: whether videos are held out.
        asked: epochs, where somebody says so; 0 to choose.
    """
    recipe = RECIPES[name]
    samples = recipe.keys["AUG.NUM_SAMPLE"]
    batch = min(videos, 8 if videos <= 1000 or not machine.fast else 32)
    clips, wanted = videos * samples, wanted_clips(recipe, videos)
    epochs = min(math.ceil(wanted / clips), 150)
    fit = int(60 * minutes / (clips * seconds))
    why = f"the recipe wants to see about {wanted:,} clips"
    if asked:
        epochs, why = asked, "it was asked for"
    elif fit < epochs:
        why = f"so many fit into {minutes:g} minutes (--minutes); {epochs} would be better"
        epochs = max(fit, recipe.least, 1)
        if epochs > fit:
            why = f"fewer would not do, though they take longer than {minutes:g} minutes"
    total = epochs * clips * seconds
    steps = epochs * (videos // batch)
    rate = recipe.rate * math.sqrt(batch * samples / 16)
    period = max(1, min(round(150 / (clips * seconds)), math.ceil(epochs / 6)))
    word = "epochs" if epochs > 1 else "epoch"
    length = Choice(
        "length",
        f"{epochs} {word} of {videos} videos, {steps} steps, about {time_in_words(total)}",
        why,
        {
            "SOLVER.MAX_EPOCH": epochs,
            "SOLVER.WARMUP_EPOCHS": float(round(min(epochs / 10, 5), 2)),
            "SOLVER.EMA_DECAY": 0.995 if steps >= 500 else 0.98,
            "LOG_PERIOD": max(1, min(10, steps // 100)),
        },
    )
    step = Choice(
        "a step",
        f"{batch} videos, {batch * samples} clips, learning rate {rate:.2g}",
        "small steps learn more from few videos"
        if batch < 32
        else "there are videos enough for large steps",
        {"TRAIN.BATCH_SIZE": batch, "SOLVER.BASE_LR": float(f"{rate:.3g}")},
    )
    checks = Choice(
        "results on the way",
        ("after every epoch" if period == 1 else f"every {period} epochs") if validated else "none",
        f"about {time_in_words(period * clips * seconds)} lie between two of them"
        if validated
        else "no video is held out",
        {
            "TRAIN.EVAL_PERIOD": period if validated else 0,
            "TRAIN.CHECKPOINT_PERIOD": period,
            "TRAIN.CHECKPOINT_STEPS": max(1, round(300 / (batch * samples * seconds))),
        },
    )
    return Schedule(epochs, total, [length, step, checks])


def keep_frames(facts: DataFacts, side: int, epochs: int) -> list[Choice]:
    """Whether decoded frames are kept for later epochs; none where they are not.

    Args:
        facts: of the videos.
        side: to which frames are decoded, in pixels.
        epochs: of the training.
    """
    sizes = [scaled_size(*shape, side, allow_larger=True) for shape in facts.shapes]
    needed = sum(decoded_bytes(n, *size) for n, size in zip(facts.frames, sizes, strict=True))
    if epochs < 2 or facts.pictures or not 0 < needed <= KEPT:
        return []
    return [
        Choice(
            "decoded frames",
            f"kept in the run's folder until it ends, about {max(needed / 1e6, 1):.0f} MB",
            f"{epochs} epochs read them, and decoding is slow beside a small model",
            {"DATA.FRAME_STORE": FRAMES, "DATA.FRAME_STORE_GB": 2 * KEPT / 1e9},
        )
    ]


def machine_keys(machine: Machine) -> Choice:
    """How many processes read videos."""
    workers = max(1, min(machine.cores - 1, 12 if machine.fast else 3))
    return Choice(
        "processes that read videos",
        str(workers),
        f"the machine has {machine.cores} cores",
        {
            "DATA_LOADER.NUM_WORKERS": workers,
            "TEST.BATCH_SIZE": 16,
            "DATA_LOADER.VIDEO_TIMEOUT": 300.0,
        },
    )
