"""Detectors with masks side by side: images per second and memory, of recipes and of torchvision.

Weights are random, so no score means anything: every candidate keeps its best detections whatever
their scores, and as many masks are computed. In training every image has the same objects.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from videonet.benchmark.report import table
from videonet.benchmark.steps import Task
from videonet.benchmark.worker import Turn, Worker
from videonet.config.loading import load_config
from videonet.errors import ConfigError, VideonetError
from videonet.heads.detection import Detector
from videonet.tasks import Trained, build_task

CLASSES = 80
OBJECTS = 8  # of every image
DETECTIONS = 100
_LIBRARY = re.compile(r"\w\w+:\w+")  # and not a path that begins with a drive


@dataclass(frozen=True)
class DetectorCandidate:
    """One row of a comparison.

    Attributes:
        text: a recipe of an instance segmentation, or ``torchvision:`` and the name of a builder of
            torchvision.models.detection.
        dtype: of its weights.
    """

    text: str
    dtype: str = "fp32"

    @property
    def _of_library(self) -> bool:
        return _LIBRARY.fullmatch(self.text) is not None

    def build(self, frames: int, size: int) -> nn.Module:
        """The detector with random weights.

        Raises:
            ConfigError: there is no such detector, or it takes other clips.
        """
        if self._of_library:
            library, name = self.text.split(":")
            return _torchvision(library, name, size)
        cfg = load_config(self.text, ["DATA.NUM_FRAMES", str(frames)])
        names = [str(number) for number in range(CLASSES)]
        task = build_task(cfg, None, Trained(names=names))
        if cfg.MODEL.TASK != "instance_segmentation":
            raise ConfigError(f"{self.text} is a recipe of {cfg.MODEL.TASK}, expected instances")
        model = task.build_model()
        assert isinstance(model, Detector)
        model.roi_heads.score_threshold, model.roi_heads.most = -1.0, DETECTIONS
        return model

    def step(self, model: nn.Module, task: Task) -> Callable[[], object]:
        """A forward pass; in training with the backward pass and AdamW.

        Raises:
            VideonetError: it finds nothing, and so computes no mask.
        """
        images = list(torch.randn(task.shape, device=task.device))
        if not task.training:
            detect = torch.inference_mode()(partial(model.eval(), images))
            if not all(_found(image) for image in detect()):
                raise VideonetError("with random weights it finds nothing, so its time says little")
            return detect
        first = int(self._of_library)  # torchvision's class 0 is the background
        truth = [_objects(task, first) for _ in images]
        losses = partial(model.train(), images, truth)
        optimizer = torch.optim.AdamW(model.parameters())

        def step() -> None:
            torch.stack([value.float() for value in losses().values()]).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    def computing(self) -> AbstractContextManager:
        """The context in which its passes run."""
        return nullcontext()


def run(args: argparse.Namespace) -> str:
    """Measure, and return the report as text.

    Args:
        args: those of :func:`videonet.benchmark.arguments.add_detectors`.
    """
    args.threads = args.threads or torch.get_num_threads()
    candidates = [DetectorCandidate(text) for text in args.candidates]
    parts = []
    for training in (False, True):
        task = Task(
            training=training,
            batch=args.train_batch if training else args.batch,
            frames=args.frames,
            size=args.size,
            device=args.device,
            threads=args.threads,
        )
        parts.append(_report(candidates, task, args.rounds, args.seconds))
    return "\n\n".join(parts)


def _report(
    candidates: Sequence[DetectorCandidate], task: Task, rounds: int, seconds: float
) -> str:
    """The table of one mode; the candidates take turns."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(candidate, task)) for candidate in candidates]
        facts = [worker.ready() for worker in workers]  # in turn: peaks of memory do not coincide
        turns: list[list[Turn]] = [[] for _ in workers]
        for _ in range(rounds):
            for worker, times in zip(workers, turns, strict=True):
                times.append(worker.turn(seconds))
        machine = workers[0].machine()
    rows = []
    for candidate, fact, times in zip(candidates, facts, turns, strict=True):
        ratios = [a.wall / b.wall for a, b in zip(turns[0], times, strict=True)]
        rows.append(
            (
                candidate.text,
                f"{fact['parameters'] / 1e6:.1f}",
                f"{median(t.wall for t in times) / task.batch:.2f}",
                f"{median(ratios):.2f}",
                f"{fact['memory'] / 1e6:.0f}",
                f"{100 * fact['memory'] / facts[0]['memory']:.0f}",
            )
        )
    header = ("candidate", "M parameters", "s/image", "× first", "peak MB", "% of first")
    mode = "training" if task.training else "inference"
    title = f"{mode}, batch {task.batch} of {task.frames}×{task.size}², {task.device}"
    about = ", ".join(f"{key} {value}" for key, value in machine.items())
    return f"{title}\n\n{table(header, rows)}\n\n{about}"


def _torchvision(library: str, name: str, size: int) -> nn.Module:
    from torchvision.models import detection

    if library != "torchvision" or not hasattr(detection, name):
        raise ConfigError(
            f"{library}:{name} is unknown, expected a recipe or torchvision: and a builder of "
            "torchvision.models.detection"
        )
    model: nn.Module = getattr(detection, name)(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        min_size=size,
        max_size=2 * size,
        box_score_thresh=-1.0,
        box_detections_per_img=DETECTIONS,
    )
    return model


def _found(image: Any) -> int:
    """How many objects were found in an image, or in the frames of a clip."""
    frames = [frame.boxes for frame in image] if isinstance(image, list) else [image["boxes"]]
    return sum(len(boxes) for boxes in frames)


def _objects(task: Task, first: int) -> dict[str, Tensor]:
    """Boxes of growing size along the diagonal, with full masks."""
    places = torch.arange(OBJECTS, dtype=torch.float32)
    corners = places * task.size / (2 * OBJECTS)
    sides = task.size / 16 * (1 + places)
    boxes = torch.stack([corners, corners, corners + sides, corners + sides], dim=1)
    boxes = boxes.clamp(max=task.size)
    masks = torch.zeros(OBJECTS, task.size, task.size, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    labels = torch.full((OBJECTS,), first, dtype=torch.long)
    target = {"boxes": boxes, "labels": labels, "masks": masks}
    return {name: value.to(task.device) for name, value in target.items()}
