"""What more videos would bring: the same training on shares of those that there are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from videonet.engine.results import RESULTS
from videonet.finetuning.features import FEATURES
from videonet.finetuning.probe_plan import choose_folds
from videonet.finetuning.probe_recipe import read_comparison
from videonet.finetuning.setup import DATA, write_list
from videonet.finetuning.split import subset
from videonet.finetuning.state import Clip, State, units_of

SHARES = (25, 50)  # percent of the training videos
CURVE = "curve"  # folder of the runs, below that of the run
REST = "rest"  # folder of the results on the training videos that a run was not trained on


def shares_of(state: State, cfg: CfgNode, folder: Path) -> Iterator[CfgNode]:
    """The configurations of trainings on shares of the videos, with their lists written.

    They take as many steps as the training on all videos, and are tested on the same videos. The
    one on half of the videos is tested on the other half too, whose labels it has not seen. With
    features that are computed once, they are those of the run, and the classifier is of the kind
    that was chosen there.

    Args:
        state: what was chosen.
        cfg: the configuration of the training on all videos.
        folder: of the run.

    Yields:
        Configurations, in the order in which they have to be run.
    """
    train = state.of_part("train")
    labels, groups = [clip.label for clip in train], [clip.group for clip in train]
    every = zip(state.clips, units_of(state), strict=True)
    units = [unit for clip, unit in every if clip.part == "train"]
    for share in SHARES:
        rows = subset(labels, share / 100, groups if all(groups) else (), state.asked.seed)
        kept = [clip for k, clip in enumerate(train) if k in rows]
        rest = [clip for k, clip in enumerate(train) if k not in rows]
        if not kept or not rest or not cfg.TEST.ENABLE:
            continue
        part = write_part(folder, f"train_{share}.csv", kept, state.repeats)
        more = len(train) / len(kept)  # epochs, for as many steps
        keys: dict[str, Any] = {"DATA.TRAIN_LIST": part, "TRAIN.EVAL_PERIOD": 0}
        keys |= {"OUTPUT_DIR": str(folder / CURVE / str(share))}
        keys |= {"SOLVER.MAX_EPOCH": round(more * cfg.SOLVER.MAX_EPOCH)}
        keys |= {"SOLVER.WARMUP_EPOCHS": more * cfg.SOLVER.WARMUP_EPOCHS}
        keys |= {"TRAIN.BATCH_SIZE": min(cfg.TRAIN.BATCH_SIZE, len(kept))}
        comparison = read_comparison(folder)
        if comparison is not None:
            chosen = [unit for k, unit in enumerate(units) if k in rows]
            folds = choose_folds(chosen, grouped=True).keys["PROBE.FOLDS"]
            keys |= {"PROBE.FEATURES": cfg.PROBE.FEATURES or str(folder / FEATURES)}
            keys |= {"PROBE.METHODS": [comparison.used.method]}
            keys |= {"PROBE.FOLDS": min(folds, cfg.PROBE.FOLDS)}
            keys |= {} if len(set(chosen)) > 1 else {"PROBE.GROUPS": ""}
            yield _changed(cfg, keys)
            continue
        yield _changed(cfg, keys)
        if share == SHARES[-1]:
            run = folder / CURVE / str(share)
            keys |= {"DATA.TEST_LIST": write_part(folder, f"rest_{share}.csv", rest)}
            keys |= {"TRAIN.ENABLE": False, "OUTPUT_DIR": str(run / REST)}
            yield _changed(cfg, keys | {"TEST.CHECKPOINT_FILE_PATH": str(run)})


def write_part(folder: Path, name: str, clips: Sequence[Clip], repeats: Sequence[int] = ()) -> str:
    """Write a list of some of the videos beside those of all; returns its name."""
    write_list(folder / DATA / name, clips, repeats)
    return name


def _changed(cfg: CfgNode, keys: dict[str, Any]) -> CfgNode:
    changed = cfg.clone()
    changed.defrost()
    for key, value in keys.items():
        group, _, name = key.rpartition(".")
        (changed[group] if group else changed)[name] = value
    changed.freeze()
    return changed


@dataclass(frozen=True)
class Point:
    """The result of a training on a share of the videos.

    Attributes:
        share: in percent.
        videos: that it was trained on.
        right: held-out videos that it recognises.
        total: held-out videos.
    """

    share: int
    videos: int
    right: int
    total: int


def read_curve(state: State, folder: Path) -> list[Point]:
    """The results of the trainings on shares, and of the one on all; empty without the former."""
    found = []
    for share, place in [*((s, folder / CURVE / str(s)) for s in SHARES), (100, folder)]:
        path = place / RESULTS
        listed = folder / DATA / (f"train_{share}.csv" if share < 100 else "train.csv")
        if path.is_file() and listed.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            lines = set(listed.read_text(encoding="utf-8", errors="surrogateescape").splitlines())
            right = round(content["top1"] * content["videos"] / 100)
            found.append(Point(share, len(lines), right, content["videos"]))
    return found if len(found) > 1 else []
