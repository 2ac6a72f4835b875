"""A trained model and its task from a checkpoint, to evaluate it or to predict with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fvcore.common.config import CfgNode

from videonet.checkpoint import LoadReport, load_trained
from videonet.checkpoint.contents import class_names_of, evaluation_weights
from videonet.checkpoint.load import refuse_larger_model
from videonet.errors import CheckpointError
from videonet.tasks import Task, Trained, build_task
from videonet.tasks.task import Model


@dataclass(frozen=True)
class TrainedModel:
    """A model with the weights of a checkpoint, and the task that it was trained for.

    Attributes:
        model: on the CPU.
        task: its ``cfg`` is the configuration with everything filled in.
        report: what became of every tensor of the checkpoint.
    """

    model: Model
    task: Task
    report: LoadReport


def load_trained_model(
    content: Mapping, cfg: CfgNode, *, origin: str, split: str | None = None
) -> TrainedModel:
    """Build the model of a configuration and fill it with a checkpoint's weights.

    ``TEST.EMA`` chooses between the weights and their averages.

    Args:
        content: what the checkpoint holds.
        cfg: the configuration.
        origin: the checkpoint's file, for messages.
        split: see :func:`videonet.tasks.build_task`.

    Raises:
        CheckpointError: the checkpoint does not fit the configuration, or its weights are not
            finite.
        DataError: the data does not say what the task has to know.
    """
    weights = evaluation_weights(content, averaged=cfg.TEST.EMA)
    config = content["cfg"] if isinstance(content.get("cfg"), str) else ""
    task = build_task(cfg, split, Trained(origin, class_names_of(content, origin), config))
    if task.names is not None and len(task.names) != task.num_outputs:
        raise CheckpointError(
            f"{origin} names {len(task.names)} classes, but its model has {task.num_outputs}"
        )
    if split is None:  # a file from anywhere, with a configuration of its own
        refuse_larger_model(task.build_model, weights, origin)
    model = task.build_model()
    report = load_trained(model, weights, class_names=task.names, origin=origin)
    return TrainedModel(model, task, report)
