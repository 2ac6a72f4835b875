"""Published weights by name: the tables in ``published/``, one file per family.

A name is ``MODEL.TAG``. The tag begins with the data set whose classes the head tells apart
(``k400``, ``k600``, ``ssv2``, ``in1k``, ``in21k``, …), or without a head with the method of the
pre-training (``dinov2``, ``mae``). What follows tells apart what would have the same name: frames
or patch size (``p32``), size in pixels, recipe, an earlier training (``from_in22k``), and whose
file it is where that is not the authors' (``torchvision``).
"""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from torch import nn

from videonet.checkpoint import LoadReport, load_checkpoint, read_checkpoint
from videonet.checkpoint.download import cache_folder, check_digest, download
from videonet.checkpoint.hub import fetch_repository
from videonet.errors import CheckpointError, ConfigError

PERMISSIVE = ("Apache-2.0", "MIT", "BSD-3-Clause")
SUFFIXES = (".pth", ".pyth", ".pt", ".bin", ".safetensors", ".pth.tar")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Weights:
    """A published checkpoint, and all that belongs to it.

    Attributes:
        name: ``MODEL.TAG``.
        arguments: of the model, beside the number of classes.
        clip_arguments: those of an image checkpoint's model that are others in a model for clips.
        num_classes: outputs of its head, 0 without a head.
        classes: which list its classes are of (``kinetics400``, …); empty where that is not known.
        mean, std: of the pixels (R, G, B), with pixels from 0 to 1.
        size: side of the square crop in pixels.
        short_side: of the frame that the crop is taken from, in pixels; 0 for `size`.
        interpolation: of that resizing.
        stride: distance between two frames of a clip, in frames of the video at `target_fps`.
        target_fps: frames per second; 0 for those of the video.
        sampling: "dense", or "segments" (one frame from each of equal parts of the video).
        views: clips and crops per video in the published test; empty where not known.
        top1, top5: accuracy in percent as published, None where not.
        measured_by: who measured that, where not the authors.
        url: of the file; empty where no plain client can fetch it.
        page: where it is fetched by hand.
        hub: repository of the Hugging Face hub with weights of that name. That it holds the same
            tensors as `url` was not checked.
        hash: ``KIND:VALUE``, the beginning of the file's hash; empty where none is published.
        trained_on: data sets.
        licence: short name; empty where none is stated.
        source: project and file, or package and name, where these facts are.
        checked: "manifest" where names and shapes of the official network load without a missing
            or unexpected tensor, "timm" or "torchvision" where those of that package's network do;
            empty where nobody could check. The file itself was never at hand.
        note: a sentence on what is different.
    """

    name: str
    arguments: Mapping[str, Any]
    num_classes: int
    size: int
    interpolation: str
    source: str
    clip_arguments: Mapping[str, Any] = field(default_factory=dict)
    classes: str = ""
    mean: Sequence[float] = IMAGENET[0]
    std: Sequence[float] = IMAGENET[1]
    short_side: int = 0
    stride: int = 1
    target_fps: float = 0.0
    sampling: str = "dense"
    views: Sequence[int] = ()
    top1: float | None = None
    top5: float | None = None
    measured_by: str = ""
    url: str = ""
    page: str = ""
    hub: str = ""
    hash: str = ""
    trained_on: str = ""
    licence: str = ""
    checked: str = ""
    note: str = ""

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.name.partition(".")[0]

    @property
    def tag(self) -> str:
        """The name without the model's."""
        return self.name.partition(".")[2]

    @property
    def num_frames(self) -> int:
        """Frames per clip, 1 for images."""
        return int(self.arguments["num_frames"])

    @property
    def class_names(self) -> list[str] | None:
        """The names of the classes in the order of the logits, None where no list is at hand."""
        return names_of(self.classes) if self.classes else None

    def model_arguments(self, **given: Any) -> dict[str, Any]:
        """The arguments to build the model with.

        Args:
            **given: win over those of the checkpoint.
        """
        clips = self.num_frames == 1 and given.get("num_frames", 1) != 1
        own = {**self.arguments, **(self.clip_arguments if clips else {})}
        return {"num_classes": self.num_classes, **own, **given}

    def __str__(self) -> str:
        shown = {f.name: getattr(self, f.name) for f in fields(self)}
        return "\n".join(
            f"{key:14} {value}"
            for key, value in shown.items()
            if value not in ("", None, (), {}, 0)
        )


@cache
def all_weights() -> Mapping[str, Weights]:
    """All published weights by name, also of models that this version does not have."""
    found: dict[str, Weights] = {}
    for table in sorted((files("videonet.models") / "published").iterdir(), key=lambda t: t.name):
        if table.name.endswith(".json"):
            rows = json.loads(table.read_text(encoding="utf-8"))
            found |= {name: Weights(name, **row) for name, row in rows.items()}
    return MappingProxyType(found)


def get_weights(name: str) -> Weights:
    """What belongs to published weights: model, preprocessing, classes, licence, accuracy, source.

    Args:
        name: ``MODEL.TAG``, see :func:`videonet.list_weights`.

    Raises:
        ConfigError: there are no such weights.
    """
    known = all_weights()
    if name in known:
        return known[name]
    model, _, tag = name.partition(".")
    tags = {other.tag: other.name for other in known.values() if other.model == model}
    if tags:
        near = difflib.get_close_matches(tag, tags, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{model} has no weights {tag!r}, only {_listed(tags)}{hint}")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "videonet weights lists all"
    raise ConfigError(f"there are no weights {name!r}: {hint}")


def _listed(tags: Iterable[str], most: int = 12) -> str:
    tags = sorted(tags)
    return ", ".join(tags[:most]) + (", …" if len(tags) > most else "")


def is_name(source: object) -> bool:
    """Whether `source` is the name of published weights.

    Args:
        source: a name, a path, a URL, or a state dict.

    Raises:
        ConfigError: it looks like one (``MODEL.…``), and there are no such weights and no such
            file.
    """
    if not isinstance(source, str):
        return False
    if source in all_weights():
        return True
    model = source.partition(".")[0]
    looks_so = any(weights.model == model for weights in all_weights().values())
    if looks_so and "." in source and not source.endswith(SUFFIXES) and not Path(source).exists():
        get_weights(source)
    return False


def fetch_weights(name: str) -> Path:
    """The file or folder of published weights on this machine, downloaded where it is not there.

    A file that is fetched by hand belongs into the folder ``weights`` of the cache, called as the
    weights are.

    Args:
        name: see :func:`get_weights`.

    Raises:
        ConfigError: there are no such weights.
        CheckpointError: they cannot be fetched, or the file is another one.
        WriteError: the cache cannot be written.
    """
    weights = get_weights(name)
    _speak_of_licence(weights)
    folder = cache_folder() / "weights"
    if (path := _in_cache(name)) is not None:
        check_digest(path, weights.hash)
        return path
    by_hand = f"{folder / name}.pth (or with the ending of its format)"
    if weights.url:
        return download(weights.url, folder / (name + _suffix(weights.url)), weights.hash)
    if weights.hub:
        try:
            return fetch_repository(weights.hub)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; fetched by hand it belongs to {by_hand}") from error
    raise CheckpointError(
        f"{name} has no link to the file itself: fetch it from {weights.page} and put it at "
        f"{by_hand}{_others(weights)}"
    )


def cached_weights() -> list[Weights]:
    """The published weights whose file is in the cache already; what the hub keeps is left out."""
    return [weights for name, weights in all_weights().items() if _in_cache(name) is not None]


def _in_cache(name: str) -> Path | None:
    paths = (cache_folder() / "weights" / (name + suffix) for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _suffix(url: str) -> str:
    path = urlsplit(url).path
    return next((s for s in sorted(SUFFIXES, key=len, reverse=True) if path.endswith(s)), ".pth")


def _others(weights: Weights) -> str:
    """Which weights of the same model and classes can be downloaded."""
    names = [
        other.name
        for other in all_weights().values()
        if (other.model, other.classes) == (weights.model, weights.classes)
        and (other.url or other.hub)
    ]
    return f"; {' and '.join(names)} can be downloaded" if weights.classes and names else ""


def _speak_of_licence(weights: Weights) -> None:
    if weights.licence in PERMISSIVE:
        return
    licence = {
        "": "come without a licence",
        "CC-BY-NC-4.0": "have the licence CC-BY-NC-4.0, which forbids commercial use",
    }.get(weights.licence, f"have a licence of their own: {weights.licence}")
    warnings.warn(f"the weights {weights.name} {licence}", UserWarning, stacklevel=4)


def read_weights(source: str | Path) -> dict[str, Any]:
    """:func:`videonet.checkpoint.read_checkpoint`, also of the name of published weights.

    Args:
        source: as there, or ``MODEL.TAG``.

    Returns:
        As there; of published weights with the names of their classes, where these are known.
    """
    if not is_name(source):
        return read_checkpoint(source)
    names = get_weights(str(source)).class_names
    content = read_checkpoint(fetch_weights(str(source)))
    return content if names is None else {**content, "class_names": names}


def load_weights(
    model: nn.Module,
    source: str | Path | Mapping,
    *,
    source_classes: Sequence[str] | None = None,
    **options: Any,
) -> LoadReport:
    """:func:`videonet.load_checkpoint`, where `source` may also be the name of published weights.

    Args:
        model: as there.
        source: as there, or ``MODEL.TAG``; a model may be filled with another one's weights where
            the architecture is the same.
        source_classes: as there; by default those of the published weights.
        **options: as there.

    Raises:
        CheckpointError, ConfigError, WriteError: as there and as :func:`fetch_weights`.
    """
    if is_name(source):
        assert isinstance(source, str)
        names = get_weights(source).class_names
        source, source_classes = fetch_weights(source), source_classes or names
    return load_checkpoint(model, source, source_classes=source_classes, **options)


@cache
def names_of(classes: str) -> list[str] | None:
    """The names of a list of classes, None where no package at hand has them.

    Args:
        classes: as in :class:`Weights`.
    """
    if classes == "kinetics400":
        from torchvision.models.video import MViT_V2_S_Weights

        return list(MViT_V2_S_Weights.KINETICS400_V1.meta["categories"])
    if classes == "imagenet1k":
        from torchvision.models import ViT_B_16_Weights

        return list(ViT_B_16_Weights.IMAGENET1K_V1.meta["categories"])
    return None
