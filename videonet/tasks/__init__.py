"""What a model learns: one file per task, and one line per task in ``TASKS``."""

from __future__ import annotations

import difflib
import importlib

from fvcore.common.config import CfgNode

from videonet.errors import ConfigError
from videonet.tasks.task import Evaluation, RecordEvaluation, RecordTask, Results, Task, Trained

__all__ = [
    "Evaluation",
    "RecordEvaluation",
    "RecordTask",
    "Results",
    "Task",
    "Trained",
    "build_task",
]

# Module and class, imported when the task is asked for: those of dense tasks need torchvision,
# which takes seconds to import.
TASKS = {
    "classification": ("videonet.tasks.classification", "Classification"),
    "boundary_refinement": ("videonet.tasks.boundary_refinement", "BoundaryRefinement"),
    "instance_segmentation": ("videonet.tasks.instance_segmentation", "InstanceSegmentation"),
    "semantic_segmentation": ("videonet.tasks.semantic_segmentation", "SemanticSegmentation"),
}


def build_task(cfg: CfgNode, split: str | None = "train", trained: Trained | None = None) -> Task:
    """The task that ``MODEL.TASK`` names.

    Args:
        cfg: the configuration.
        split: the data that the task is for: ``train`` (and ``val``) or ``test``; None to predict,
            where there may be no data set and the checkpoint decides.
        trained: what the checkpoint says; None without a checkpoint.

    Raises:
        ConfigError: there is no such task.
        DataError: the data does not say what the task has to know.
    """
    if cfg.MODEL.TASK not in TASKS:
        near = difflib.get_close_matches(cfg.MODEL.TASK, TASKS, n=1) or sorted(TASKS)
        raise ConfigError(f"MODEL.TASK is {cfg.MODEL.TASK!r}: did you mean {' or '.join(near)}?")
    module, name = TASKS[cfg.MODEL.TASK]
    kind: type[Task] = getattr(importlib.import_module(module), name)
    return kind.from_config(cfg, split, trained or Trained())
