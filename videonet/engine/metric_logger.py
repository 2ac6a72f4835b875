"""The numbers that a run records as it goes: JSON lines, TensorBoard and Weights & Biases."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from pathlib import Path

from videonet.data.texts import json_line
from videonet.errors import ConfigError
from videonet.files import AppendedText

logger = logging.getLogger(__name__)


class MetricLogger:
    """Writes ``log.jsonl``, one object per record, and to TensorBoard and Weights & Biases.

    The run's ``log.txt`` has the same numbers for people.

    Args:
        folder: of the run.
        tensorboard: folder of the TensorBoard files; None for none.
        wandb: project of Weights & Biases; None for none. A resumed run continues its record.
        config: what Weights & Biases shows as the run's configuration.
        enabled: False on other processes than the first: nothing is written.

    Raises:
        ConfigError: Weights & Biases is wanted and not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tensorboard: str | None = None,
        wandb: str | None = None,
        config: dict | None = None,
        enabled: bool = True,
    ):
        self._lines = self._board = self._wandb = None
        if not enabled:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "log.jsonl"
        self._lines = AppendedText(path, None)
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter  # takes a second

            self._board = SummaryWriter(tensorboard)
        if wandb is not None:
            self._wandb = _start_wandb(folder, wandb, config or {})

    def write(self, kind: str, step: int, **values: float | int) -> None:
        """Write a record; numbers that are not finite are left out.

        Args:
            kind: "train", "val" or "val_ema".
            step: of the optimiser, from the start of the run.
            values: by name.
        """
        if self._lines is None:
            return
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        self._lines.append(json_line({"kind": kind, "step": step, **values}))
        words = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        logger.info("%s, step %d: %s", kind, step, words, extra={"for_the_file": True})
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)
        if self._wandb is not None:
            self._wandb.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """End writing."""
        if self._lines is not None:
            self._lines.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def _start_wandb(folder: Path, project: str, config: dict):
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            "WANDB.ENABLE is True, but wandb is not installed: pip install wandb"
        ) from error
    # The same folder is the same run, so that a resumed one does not begin a second record.
    identity = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return wandb.init(
        project=project, name=folder.name, id=identity, resume="allow", dir=folder, config=config
    )


def read_log(path: str | Path) -> list[dict]:
    """The records of a ``log.jsonl``, sorted by step.

    Where a resumed run repeated a step, its later record counts. A line that is cut short is left
    out, with a warning.
    """
    records: dict[tuple[str, int], dict] = {}
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            records[record["kind"], record["step"]] = record
        except (ValueError, TypeError, KeyError):
            logger.warning("%s, line %d is cut short and left out", path, number)
    return sorted(records.values(), key=lambda record: record["step"])
