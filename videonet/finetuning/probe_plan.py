"""The choices of the recipe "probe": frozen features, and classifiers on them, within the time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from videonet.finetuning.choices import Choice, Machine, StartingWeights, time_in_words
from videonet.finetuning.clips import choose_clips, sided
from videonet.finetuning.facts import DataFacts

GROUPS = "groups.csv"  # in the folder of the lists: what belongs together
SIDE = 224  # pixels, the largest side of a frame
SIDES = (224, 160, 112)  # and those that are tried one after the other
MOST_FRAMES = {"cpu": 8, "cuda": 16}  # of clips of a model of images
FEWEST_FRAMES = 4
FOR_FEATURES, FOR_CLASSIFIERS = 0.6, 0.3  # of the time; what is left is for augmented passes
MOST_PASSES = 2
FOLDS = 3  # parts of the training videos; each is held out once
RATES, DECAYS = (3e-4, 1e-3, 3e-3), (0.01, 0.1)  # of the attentive classifier
EPOCHS, LEAST_EPOCHS = 30, 10
MOST_BYTES = 4 * 2**30  # of the tokens of all videos, which are in memory together
HALF = {"TRAIN.MIXED_PRECISION": True, "TRAIN.HALF_PRECISION": "bf16"}
WORTH_HALF = 0.8  # of the time in full precision, at most


@dataclass(frozen=True)
class ProbeSpeed:
    """How fast a backbone and a classifier on it are here.

    Attributes:
        clip: seconds of a forward pass of a clip.
        tokens, width: of a clip, as the attentive classifier reads them.
        step: seconds that one copy of the attentive classifier is trained for, a clip.
        stride: side of a token in pixels.
    """

    clip: float
    tokens: int
    width: int
    step: float
    stride: int = 16


@dataclass(frozen=True)
class Views:
    """What is computed of a video.

    Attributes:
        frames: of a clip.
        side: of a frame in pixels.
        clips: in time.
        crops: of a clip.
    """

    frames: int
    side: int
    clips: int
    crops: int

    def cost(self, first: Views) -> float:
        """Of a clip, as a multiple of a clip of other views."""
        return self.frames / first.frames * (self.side / first.side) ** 2


def image_arguments(weights: StartingWeights, frames: int, *, divides: bool) -> Choice | None:
    """How a model of images sees clips; None where that is not to be chosen.

    Args:
        weights: what the model starts from.
        frames: of a clip.
        divides: whether it can look within frames alone.
    """
    if weights.frames != 1 or frames == 1 or not divides:
        return None
    own = dict(weights.config.get("MODEL", {}).get("ARGUMENTS", {}))
    return Choice(
        "how frames are seen",
        "each on its own, with tokens of its own",
        "the weights know images: the features of a frame stay what they are for an image, and the "
        "attentive classifier sees the order of the frames",
        {"MODEL.ARGUMENTS": own | {"tubelet_frames": 1, "space_time": "space"}},
    )


def choose_precision(full: ProbeSpeed, half: ProbeSpeed) -> tuple[ProbeSpeed, Choice | None]:
    """The precision of the features on a CPU: bf16 where the processor is surely faster in it.

    Args:
        full: how fast the features are in fp32.
        half: and in bf16.
    """
    if half.clip > WORTH_HALF * full.clip:
        return full, None
    why = f"features are computed {full.clip / half.clip:.1f} times as fast as in fp32 here"
    return half, Choice("precision", "bf16", why, dict(HALF))


def first_clips(
    facts: DataFacts,
    machine: Machine,
    weights: StartingWeights,
    *,
    frames: int = 0,
    size: int = 0,
) -> list[Choice]:
    """The clips that are wished for, before anything is known of the time that they take.

    Args:
        facts: of the videos.
        machine: where the features are computed.
        weights: of the backbone.
        frames: of a clip, where somebody says so; 0 to choose.
        size: side of a frame in pixels, where somebody says so; 0 to choose.
    """
    choices = choose_clips(facts, machine, weights, frames=frames, size=size)
    wanted = choices[0].keys["DATA.NUM_FRAMES"]
    most = MOST_FRAMES["cuda" if machine.fast else "cpu"]
    if weights.frames == 1 and not frames and wanted > most:
        why = f"a model of images sees frames one by one, and {most} tell the course of a movement"
        choices = _with_frames(facts, machine, weights, choices, most, why)
    if not size and weights.frames != 0:
        side = min(weights.size or SIDE, SIDE)
        why = f"the weights {weights.source} know frames of {weights.size or 'about such'} pixels"
        choices = _put(choices, sided(side, why))
    return choices


def _put(choices: Sequence[Choice], new: Choice) -> list[Choice]:
    """Choices with another one in place of that of the same thing."""
    return [new if choice.what == new.what else choice for choice in choices]


def _with_frames(
    facts: DataFacts,
    machine: Machine,
    weights: StartingWeights,
    choices: Sequence[Choice],
    frames: int,
    why: str,
) -> list[Choice]:
    """Choices of clips with another number of frames, and what depends on it."""
    others = choose_clips(facts, machine, weights, frames=frames)
    kept = {"size of a frame", "views of a video when it is judged"}
    by_what = {choice.what: choice for choice in others if choice.what not in kept}
    found = [by_what.get(choice.what, choice) for choice in choices]
    return [replace(found[0], why=why), *found[1:]]


@dataclass(frozen=True)
class ProbePlan:
    """What is computed and trained.

    Attributes:
        choices: in words, and the keys.
        seconds: that all of it takes, about.
    """

    choices: Sequence[Choice]
    seconds: float


def choose_probe(
    facts: DataFacts,
    machine: Machine,
    weights: StartingWeights,
    clips: Sequence[Choice],
    speed: ProbeSpeed,
    minutes: float,
    folds: Choice,
    *,
    frames: int = 0,
    size: int = 0,
    epochs: int = 0,
) -> ProbePlan:
    """Views, size, frames, passes and classifiers that fit into the time.

    First views are given up, then pixels, then frames, until the features take no more than their
    share of the time; augmented passes are what is left for.

    Args:
        facts: of the videos.
        machine: where the features are computed.
        weights: of the backbone.
        clips: see :func:`first_clips`.
        speed: with these clips.
        minutes: that it may take.
        folds: see :func:`choose_folds`.
        frames, size, epochs: where somebody says so; 0 to choose.
    """
    clips = list(clips)
    first = _views_of(clips)
    videos, seconds = facts.num_train + facts.num_val, 60 * minutes
    ladder = _ladder(first, speed, keep_frames=bool(frames) or weights.frames > 1, keep=bool(size))

    def taken(views: Views) -> float:
        return speed.clip * views.cost(first) * videos * views.clips * views.crops

    fits = [views for views in ladder if taken(views) <= FOR_FEATURES * seconds]
    views = fits[0] if fits else ladder[-1]
    clips = _given_up(facts, machine, weights, clips, first, views, minutes)
    count = folds.keys["PROBE.FOLDS"]
    cost, spent = views.cost(first), taken(views)
    classifiers, trained = _classifiers(
        facts, views, speed, cost, count, FOR_CLASSIFIERS * seconds, epochs
    )
    kept = "statistics" in classifiers.keys["PROBE.METHODS"]
    passes = _passes(facts, views, speed, cost, seconds - spent - trained, tokens=kept)
    total = spent + trained + passes * facts.num_train * speed.clip * cost
    why = f"a clip takes {speed.clip * cost:.2g} s here, of {minutes:g} minutes (--minutes)"
    if not fits:
        why = f"less would not do, though it takes longer than {minutes:g} minutes (--minutes)"
    features = _features(f"of {videos} videos, once, about {time_in_words(spent)}", passes, why)
    length = Choice(
        "length",
        f"about {time_in_words(total)}",
        "the backbone is not trained, and runs over every video once a pass",
        {},
    )
    return ProbePlan([*clips, features, classifiers, folds, length], total)


def _features(text: str, passes: int, why: str) -> Choice:
    if passes:
        more = f"{passes} further passes" if passes > 1 else "a further pass"
        text += f"; {more} over the training videos with random clips"
    return Choice("features", text, why, {"PROBE.AUGMENTED": passes})


def _views_of(clips: Sequence[Choice]) -> Views:
    keys = {key: value for choice in clips for key, value in choice.keys.items()}
    return Views(
        keys["DATA.NUM_FRAMES"],
        keys["DATA.TEST_CROP_SIZE"],
        keys["TEST.NUM_ENSEMBLE_VIEWS"],
        keys["TEST.NUM_SPATIAL_CROPS"],
    )


def _ladder(first: Views, speed: ProbeSpeed, *, keep_frames: bool, keep: bool) -> list[Views]:
    """Views from the dearest to the cheapest."""
    sides = [] if keep else [max(1, round(side / speed.stride)) * speed.stride for side in SIDES]
    smaller = [side for side in sides if side < first.side]
    found = [first]

    def cheaper(**changes: int) -> None:
        views = replace(found[-1], **changes)
        if views != found[-1]:
            found.append(views)

    cheaper(clips=1)
    cheaper(crops=1)
    for number, side in enumerate(smaller):
        if number == len(smaller) - 1 and not keep_frames:
            cheaper(frames=min(first.frames, FEWEST_FRAMES))
        cheaper(side=side)
    if not smaller and not keep_frames:
        cheaper(frames=min(first.frames, FEWEST_FRAMES))
    return found


def _given_up(
    facts: DataFacts,
    machine: Machine,
    weights: StartingWeights,
    clips: list[Choice],
    first: Views,
    views: Views,
    minutes: float,
) -> list[Choice]:
    """The choices of clips with what had to be given up for the time."""
    more = f"would take longer than {minutes:g} minutes (--minutes)"
    if views.frames < first.frames:
        why = f"{first.frames} {more}"
        clips = _with_frames(facts, machine, weights, clips, views.frames, why)
    if views.side < first.side:
        clips = _put(clips, sided(views.side, f"{first.side} {more}"))
    if (views.clips, views.crops) != (first.clips, first.crops):
        new = Choice(
            "views of a video when it is judged",
            f"{views.clips} in time × {views.crops} in space",
            f"{first.clips} × {first.crops} {more}",
            {"TEST.NUM_ENSEMBLE_VIEWS": views.clips, "TEST.NUM_SPATIAL_CROPS": views.crops},
        )
        clips = _put(clips, new)
    return clips


def _token_bytes(facts: DataFacts, views: Views, speed: ProbeSpeed, cost: float) -> float:
    """Of the tokens of all videos by the views of testing, and of one pass."""
    of_clip = 2 * speed.tokens * speed.width * cost
    return of_clip * (facts.num_train + facts.num_val) * views.clips * views.crops


def _classifiers(
    facts: DataFacts,
    views: Views,
    speed: ProbeSpeed,
    cost: float,
    folds: int,
    seconds: float,
    asked: int,
) -> tuple[Choice, float]:
    """Which classifiers, how long the attentive one is trained, and the seconds of that."""
    batch = max(1, min(32, facts.num_train // 4))
    methods, of_tokens = list[str](), ""

    def choice(rates: Sequence[float], decays: Sequence[float], epochs: int, why: str) -> Choice:
        others = f"logistic regression{of_tokens} and nearest neighbours"
        number = len(rates) * len(decays)
        settings = f"with {number} settings" if number > 1 else "with one setting"
        text = f"attentive ({settings}, {epochs} epochs), {others}" if epochs else others
        keys: dict[str, object] = {"PROBE.METHODS": [*methods, "linear", "knn"]}
        if epochs:
            keys = {
                "PROBE.METHODS": ["attentive", *methods, "linear", "knn"],
                "PROBE.RATES": list(rates),
                "PROBE.DECAYS": list(decays),
                "SOLVER.MAX_EPOCH": epochs,
                "SOLVER.WARMUP_EPOCHS": float(round(min(epochs / 10, 2), 2)),
                "TRAIN.BATCH_SIZE": batch,
            }
        return Choice("classifiers", text, why, keys)

    if _token_bytes(facts, views, speed, cost) > MOST_BYTES:
        why = f"others read all tokens, which are more than {MOST_BYTES >> 30} GiB here"
        return choice((), (), 0, why), 0.0
    methods, of_tokens = ["statistics"], " (of the mean and of the statistics of all tokens)"
    for rates, decays in ((RATES, DECAYS), (RATES, DECAYS[-1:]), (RATES[1:2], DECAYS[-1:])):
        copies = len(rates) * len(decays) * folds + 1
        each = speed.step * cost * copies * facts.num_train
        epochs = asked or min(EPOCHS, int(seconds / max(each, 1e-9)))
        if epochs >= LEAST_EPOCHS or asked:
            why = "the one that does best on held-out training videos becomes the model"
            return choice(rates, decays, epochs, why), epochs * each
    why = f"an attentive one would take {time_in_words(LEAST_EPOCHS * each)} more"
    return choice((), (), 0, why), 0.0


def _passes(
    facts: DataFacts,
    views: Views,
    speed: ProbeSpeed,
    cost: float,
    seconds: float,
    *,
    tokens: bool,
) -> int:
    """How many augmented passes fit into the time that is left, and the memory where tokens do."""
    passes = min(MOST_PASSES, int(seconds / max(facts.num_train * speed.clip * cost, 1e-9)))
    if tokens:
        of_pass = 2 * speed.tokens * speed.width * cost * facts.num_train
        room = MOST_BYTES - _token_bytes(facts, views, speed, cost)
        passes = min(passes, math.floor(room / max(of_pass, 1)))
    return max(passes, 0)


def choose_folds(together: Sequence[str], *, grouped: bool) -> Choice:
    """In how many parts the training videos are held out while settings are chosen.

    Args:
        together: what each training video belongs to.
        grouped: whether groups were found.
    """
    what, units = "parts that choose the settings", len(set(together))
    if units < 2:  # one part would leave none to train with
        return Choice(
            what,
            "2 parts of the training videos, each held out once",
            "all training videos are of one group, and so every video is on its own",
            {"PROBE.FOLDS": 2, "PROBE.GROUPS": ""},
        )
    folds = min(FOLDS, units)
    kept = "groups as a whole" if grouped else "videos on their own, and copies together"
    return Choice(
        what,
        f"{folds} parts of the training videos, each held out once",
        f"held-out videos choose nothing; {kept}",
        {"PROBE.FOLDS": folds, "PROBE.GROUPS": GROUPS, "PROBE.GROUP_COLUMN": "group"},
    )
