"""What a model learns: one file per task, and one line per task in ``TASKS``."""

from __future__ import annotations

import difflib

from fvcore.common.config import CfgNode

from videonet.errors import ConfigError
from videonet.tasks.boundary_refinement import BoundaryRefinement
from videonet.tasks.classification import Classification
from videonet.tasks.instance_segmentation import InstanceSegmentation
from videonet.tasks.semantic_segmentation import SemanticSegmentation
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

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    BoundaryRefinement.name: BoundaryRefinement,
    "instance_segmentation": InstanceSegmentation,
    "semantic_segmentation": SemanticSegmentation,
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
    kind = TASKS.get(cfg.MODEL.TASK)
    if kind is None:
        near = difflib.get_close_matches(cfg.MODEL.TASK, TASKS, n=1) or sorted(TASKS)
        raise ConfigError(f"MODEL.TASK is {cfg.MODEL.TASK!r}: did you mean {' or '.join(near)}?")
    return kind.from_config(cfg, split, trained or Trained())
