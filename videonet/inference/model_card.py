"""The README.md of a saved model: what it was trained on and how, how good it is, how to use it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode
from torch import nn

from videonet.config import default_config, model_arguments
from videonet.config.arguments import without_nodes
from videonet.models.weights import get_weights, is_name
from videonet.terminal import printable

RESULTS = "results.json"
MOST_CLASSES = 60  # that the card lists
MEASURES = {  # of results.json
    "top1": "top-1 accuracy (%)",
    "top5": "top-5 accuracy (%)",
    "mean_class_accuracy": "mean accuracy of the classes (%)",
    "calibration_error": "calibration error (%)",
    "mean_average_precision": "mean average precision (%)",
}
# Groups and keys that say how a model was trained.
RECIPE = ("MODEL", "DATA", "AUG", "MIXUP", "SOLVER", "BN", "TRAIN", "RNG_SEED")
# Keys of these groups that name places, or are of a machine.
LEFT_OUT = (
    *("PATH_TO_DATA_DIR", "PATH_PREFIX", "TRAIN_LIST", "VAL_LIST", "TEST_LIST", "CLASS_NAMES"),
    *("CHECKPOINT_FILE_PATH", "CLASS_TABLE", "AUTO_RESUME", "CHECKPOINT_PERIOD", "EVAL_PERIOD"),
    *("CHECKPOINT_STEPS", "KEEP_CHECKPOINTS", "PARALLEL", "COMPILE"),
)
LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit", "BSD-3-Clause": "bsd-3-clause",
            "CC-BY-NC-4.0": "cc-by-nc-4.0"}  # fmt: skip


@dataclass(frozen=True)
class Described:
    """A model with what belongs to it.

    Attributes:
        model: with its weights.
        cfg: its configuration.
        class_names: names of its outputs.
        origin: the checkpoint that the weights come from; empty where it is not known.
    """

    model: nn.Module
    cfg: CfgNode
    class_names: Sequence[str]
    origin: str = ""


def text_of(model: Described, run: Path | None, name: str, licence: str, confusion: str) -> str:
    """The card.

    Args:
        model: the model.
        run: the folder of its run, None where that is not at hand.
        name: of the model, for the title.
        licence: of the weights, empty where nobody said.
        confusion: name of the picture beside the card, empty where there is none.
    """
    results = _results(run)
    published = get_weights(model.origin) if is_name(model.origin) else None
    licence = licence or (published.licence if published else "")
    parts = [
        _front_matter(model, licence),
        f"# {_plain(name)}",
        _what(model),
        f"```python\n{_usage(name)}\n```",
        "## Classes",
        _classes(model.class_names),
        "## Data",
        _data(model.cfg, results, published.trained_on if published else ""),
        "## Accuracy",
        _accuracy(results),
    ]
    if published is not None and published.top1 is not None:
        by = f", measured by {published.measured_by}" if published.measured_by else ""
        parts.append(f"Published: {published.top1:g} % top-1{by} ({published.source}).")
    if confusion:
        parts.append(f"![Which class was taken for which]({confusion})")
    if run is not None:
        parts += ["## Recipe", _recipe(model.cfg)]
    parts += ["## Licence", _plain(licence) or "Not stated."]
    return "\n\n".join(parts) + "\n"


def _results(run: Path | None) -> Mapping[str, Any]:
    if run is None or not (run / RESULTS).is_file():
        return {}
    found = json.loads((run / RESULTS).read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def _front_matter(model: Described, licence: str) -> str:
    facts: dict[str, Any] = {
        "library_name": "videonet",
        "pipeline_tag": "video-classification",
        "tags": ["videonet", model_arguments(model.cfg)[0]],
    }
    if model.cfg.DATA.NUM_FRAMES == 1:
        facts["pipeline_tag"] = "image-classification"
    if licence:
        known = LICENCES.get(licence)
        facts |= {"license": known} if known else {"license": "other", "license_name": licence}
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---"


def _what(model: Described) -> str:
    cfg, (name, arguments) = model.cfg, model_arguments(model.cfg)
    values = sum(p.numel() for p in model.model.parameters())
    frames = arguments["num_frames"]
    size = cfg.DATA.TEST_CROP_SIZE
    clip = f"clips of {frames} frames, {cfg.DATA.SAMPLING_RATE} apart," if frames > 1 else "images"
    if frames > 1 and cfg.DATA.SAMPLING == "segments":
        clip = f"clips of {frames} frames spread over the video,"
    return (
        f"`{name}` of videonet ({values / 1e6:.1f} M parameters) for {clip} of {size}×{size} "
        f"pixels, {len(model.class_names)} classes."
    )


def _usage(name: str) -> str:
    return (
        "import videonet\n\n"
        f'predictor = videonet.Predictor.from_pretrained("{_plain(name)}")  # this folder\n'
        'print(predictor("video.mp4").top)'
    )


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(map(_plain, names[:MOST_CLASSES]))
    more = len(names) - MOST_CLASSES
    return shown + (f" and {more} more, in config.json." if more > 0 else ".")


def _data(cfg: CfgNode, results: Mapping[str, Any], trained_on: str) -> str:
    lines = []
    if trained_on:
        lines.append(f"Trained on {_plain(trained_on)}.")
    elif cfg.DATA.PATH_TO_DATA_DIR:
        lines.append(f"Trained on `{_plain(Path(cfg.DATA.PATH_TO_DATA_DIR).name)}`.")
    if results.get("fingerprint"):
        lines.append(f"Tested on a data set with the fingerprint `{results['fingerprint']}`.")
    return " ".join(lines) or "Not stated."


def _accuracy(results: Mapping[str, Any]) -> str:
    rows = [
        f"| {text} | {results[key]:.2f} |"
        for key, text in MEASURES.items()
        if isinstance(results.get(key), int | float)
    ]
    if not rows:
        return "Not measured."
    about = (
        f"{results.get('videos', '?')} videos, {results.get('views', '?')} views (clips x crops)"
    )
    failed = len(results.get("failed") or ())
    about += f", {failed} could not be read" if failed else ""
    return "\n".join([f"| {about} | |", "|---|---|", *rows])


def _recipe(cfg: CfgNode) -> str:
    """The keys of the training that differ from their defaults."""
    changed = dict(_changed(without_nodes(cfg), without_nodes(default_config())))
    text = yaml.safe_dump(changed, sort_keys=False, allow_unicode=True)
    return f"```yaml\n{text}```"


def _changed(cfg: Mapping[str, Any], default: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for group in RECIPE:
        value = cfg[group]
        if not isinstance(value, Mapping):
            if value != default[group]:
                yield group, value
            continue
        found = {
            key: _lists(own)
            for key, own in value.items()
            if own != default[group][key] and key not in LEFT_OUT
        }
        if found:
            yield group, found


def _lists(value: Any) -> Any:
    return json.loads(json.dumps(value))  # YAML knows no tuples


def _plain(text: str) -> str:
    """A name in one line that no mark of Markdown is read from."""
    return "".join(f"\\{c}" if c in "`*[]<>|" else c for c in printable(text))
