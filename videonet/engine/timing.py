"""How long steps take, what of it is waiting for data, and how much memory a process needs."""

from __future__ import annotations

import sys
import time

import torch


class StepTimer:
    """Measures the steps of a training.

    Call :meth:`data_ready` when a batch has arrived and :meth:`step_done` after its step.
    """

    def __init__(self) -> None:
        self._mark = time.perf_counter()
        self._reset()

    def _reset(self) -> None:
        self._steps, self._data, self._total = 0, 0.0, 0.0

    def start(self) -> None:
        """Start timing anew: what passed before (a validation, a checkpoint) belongs to no step."""
        self._mark = time.perf_counter()

    def data_ready(self) -> float:
        """Note that the batch has arrived.

        Returns:
            Seconds that this step waited for it.
        """
        waited = time.perf_counter() - self._mark
        self._data += waited
        return waited

    def step_done(self) -> None:
        """Note that the step has ended."""
        now = time.perf_counter()
        self._total += now - self._mark
        self._steps += 1
        self._mark = now

    def record(self, clips_per_step: int) -> dict[str, float]:
        """Means over the steps since the last record, and a new start.

        Args:
            clips_per_step: of all processes together.

        Returns:
            Seconds of a step and of its wait for data, and clips per second of all processes.
        """
        step = self._total / max(self._steps, 1)
        values = {
            "data_time": round(self._data / max(self._steps, 1), 4),
            "step_time": round(step, 4),
            "clips_per_second": round(clips_per_step / step, 2) if step else 0.0,
        }
        self._reset()
        return values


def peak_memory(device: torch.device) -> float:
    """The most memory that was held so far, of the GPU or else of this process.

    Returns:
        GiB; NaN where the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource  # not on Windows
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes there, KiB elsewhere
