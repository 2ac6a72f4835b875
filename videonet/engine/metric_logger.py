"""What a run leaves behind as it goes: JSON lines, TensorBoard files, W&B and a log."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from pathlib import Path

from videonet.errors import ConfigError
from videonet.terminal import PrintableFormatter

logger = logging.getLogger(__name__)

FORMAT = "%(asctime)s %(levelname)s %(message)s"


class MetricLogger:
    """Writes ``log.jsonl`` (one object per record) and, if wanted, to TensorBoard and W&B.

    On other processes than the first it writes nothing.

    Args:
        folder: of the run.
        tensorboard: folder of the TensorBoard files; None: none.
        wandb: project of Weights & Biases; None: not used. A resumed run goes on in its record.
        config: what Weights & Biases shows as the run's configuration.

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
        cut_short = path.exists() and _ends_within_a_line(path)
        self._lines = open(path, "a", encoding="utf-8")  # noqa: SIM115
        if cut_short:  # by a full disk or a crash: the next record gets a line of its own
            self._lines.write("\n")
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter  # takes a second

            self._board = SummaryWriter(tensorboard)
        if wandb is not None:
            self._wandb = _start_wandb(folder, wandb, config or {})

    def write(self, kind: str, step: int, **values: float | int) -> None:
        """One record: its kind ("train", "val"), the optimiser step, and its finite numbers."""
        if self._lines is None:
            return
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        self._lines.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._lines.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)
        if self._wandb is not None:
            self._wandb.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
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


def _ends_within_a_line(path: Path) -> bool:
    size = path.stat().st_size
    if size == 0:
        return False
    with path.open("rb") as file:
        file.seek(size - 1)
        return file.read(1) != b"\n"


def read_log(path: str | Path) -> list[dict]:
    """The records of a ``log.jsonl``; a run that was resumed overrules its earlier steps."""
    records: dict[tuple[str, int], dict] = {}
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            records[record["kind"], record["step"]] = record
        except (ValueError, TypeError, KeyError):
            logger.warning("%s, line %d is cut short and left out", path, number)
    return sorted(records.values(), key=lambda record: record["step"])


def start_logging(folder: Path | None = None, *, main: bool = True) -> None:
    """Log to stderr and, with a folder, to its ``log.txt``; warnings only on other processes."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if folder is not None and main:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(
            logging.FileHandler(folder / "log.txt", encoding="utf-8", errors="backslashreplace")
        )
    level = logging.INFO if main else logging.WARNING
    for handler in handlers:
        handler.setFormatter(PrintableFormatter(FORMAT))
    logging.basicConfig(level=level, handlers=handlers, force=True)
