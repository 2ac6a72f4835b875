"""What a run leaves behind as it goes: JSON lines, TensorBoard files and a log."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

FORMAT = "%(asctime)s %(levelname)s %(message)s"


class RunLog:
    """Writes ``log.jsonl`` (one object per record) and, if wanted, TensorBoard scalars.

    On other processes than the first it writes nothing.
    """

    def __init__(self, folder: Path, *, tensorboard: str | None = None, enabled: bool = True):
        self._lines = self._board = None
        if enabled:
            folder.mkdir(parents=True, exist_ok=True)
            self._lines = open(folder / "log.jsonl", "a", encoding="utf-8")  # noqa: SIM115
            if tensorboard is not None:
                self._board = SummaryWriter(tensorboard)

    def write(self, kind: str, step: int, **values: float | int) -> None:
        """One record: its kind ("train", "val"), the optimiser step, and its numbers."""
        if self._lines is None:
            return
        self._lines.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._lines.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()
        if self._board is not None:
            self._board.close()


def read_log(path: str | Path) -> list[dict]:
    """The records of a ``log.jsonl``; a run that was resumed overrules its earlier steps."""
    records: dict[tuple[str, int], dict] = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        records[record["kind"], record["step"]] = record
    return sorted(records.values(), key=lambda record: record["step"])


def start_logging(folder: Path | None = None, *, main: bool = True) -> None:
    """Log to stderr and, with a folder, to its ``log.txt``; warnings only on other processes."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if folder is not None and main:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(folder / "log.txt", encoding="utf-8"))
    level = logging.INFO if main else logging.WARNING
    logging.basicConfig(level=level, format=FORMAT, handlers=handlers, force=True)
