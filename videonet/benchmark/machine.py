"""The device: what it is, how fast it multiplies matrices, and how much memory is in use."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from videonet.engine.timing import peak_memory
from videonet.ops.kernels import cpu

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
CPU_SIDE, CUDA_SIDE = 2048, 8192  # of the square matrices, large enough for the full rate


def describe(device: str) -> dict[str, object]:
    """Names and versions that a reader of the numbers needs."""
    facts = {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return facts


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if STATUS.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def synchronize(device: str) -> None:
    """Wait for the device, where it works on its own."""
    if device == "cuda":
        torch.cuda.synchronize()


@torch.no_grad()
def product_rate(
    device: str,
    dtype: torch.dtype,
    clock: Callable[[], float] = time.perf_counter,
    seconds: float = 0.2,
) -> float:
    """Multiply-adds per second of the fastest matrix product that torch has.

    On the CPU both MKL's and oneDNN's products are tried, for about `seconds` in all.
    """
    side = CUDA_SIDE if device == "cuda" else CPU_SIDE
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    products: list[Callable[[Tensor, Tensor], Tensor]] = [torch.mm]
    if cpu.preferred(a, b):
        products.append(cpu.product)
    best = float("inf")
    for multiply in products:
        multiply(a, b)
        synchronize(device)
        spent, runs = 0.0, 0
        while spent < seconds / len(products) or runs < 2:
            start = clock()
            multiply(a, b)
            synchronize(device)
            took = clock() - start
            best, spent, runs = min(best, took), spent + took, runs + 1
    return side**3 / best


class PeakMemory:
    """Peak memory of a device above a floor, in bytes.

    On the CPU this is the resident set of the whole process, so every allocator counts: torch's,
    oneDNN's scratch space, Python's. Give each candidate a process of its own, and set the floor
    after the imports and before the model is built.
    """

    def __init__(self, device: str):
        self.device = device
        self.floor = 0.0
        self.restart()
        self.floor = self.peak()

    def restart(self) -> None:
        """Forget peaks so far (on Linux and CUDA; elsewhere they count from the start)."""
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        elif CLEAR.exists():
            CLEAR.write_text("5")  # resets VmHWM to the current resident set, see proc(5)

    def peak(self) -> float:
        """Bytes at the peak since the last restart, above the floor; NaN where unknown."""
        if self.device == "cpu" and STATUS.exists():
            fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
            return int(fields["VmHWM"].split()[0]) * 1024 - self.floor
        return peak_memory(torch.device(self.device)) * 2**30 - self.floor
