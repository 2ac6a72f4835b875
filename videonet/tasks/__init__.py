"""What is learnt: one file per task, and one line in ``TASKS``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from fvcore.common.config import CfgNode

from videonet.errors import ConfigError
from videonet.tasks.classification import Classification
from videonet.tasks.task import Evaluation, Task

__all__ = ["Evaluation", "Task", "build_task"]

TASKS: dict[str, type[Task]] = {"classification": Classification}


def build_task(cfg: CfgNode, split: str = "train", trained: Sequence[str] | None = None) -> Task:
    """The task that ``MODEL.TASK`` names.

    Args:
        split: the data that it is for: ``train`` (and ``val``) or ``test``.
        trained: what the checkpoint that is tested calls its outputs, None where it does not.

    Raises:
        ConfigError: there is no such task.
        DataError: the data does not say what the task has to know.
    """
    kind = TASKS.get(cfg.MODEL.TASK)
    if kind is None:
        near = difflib.get_close_matches(cfg.MODEL.TASK, TASKS, n=1) or sorted(TASKS)
        raise ConfigError(f"MODEL.TASK is {cfg.MODEL.TASK!r}: did you mean {' or '.join(near)}?")
    return kind.from_config(cfg, split, trained)
