"""Random numbers of a training step that belong to its clips, not to the process a clip is on.

Dropout masks, drop paths and mixing partners are drawn for the place of a clip in the whole step,
so a step is the same however its clips are divided among processes and parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torchvision.ops
from torch import Tensor, nn

from videonet.devices import send
from videonet.engine.distributed import Process
from videonet.ops.stochastic_depth import StochasticDepth

# A model from elsewhere may have torchvision's, which does the same.
DROP_PATHS = (StochasticDepth, torchvision.ops.StochasticDepth)


class ClipDraws:
    """Tells dropout and drop path layers which clips of a step the model is computing.

    All processes seed torch's generator alike and draw numbers for all clips of the step; each uses
    those of its own clips. Torch restores the generator when it recomputes activations, so the
    masks are the same. Outside of :meth:`begin` and :meth:`end` the layers behave as torch's.

    Args:
        clips: of a step, over all processes.
    """

    def __init__(self, clips: int):
        self.clips = clips
        self.rows: Tensor | None = None  # places of the clips that the model sees, (n,) int64
        self.rows_there = torch.empty(0, dtype=torch.int64)  # the same on the model's device
        self.device = torch.device("cpu")

    def attach(self, model: nn.Module) -> None:
        """Let the dropout and drop path layers of `model` draw by clip."""
        self.device = next((p.device for p in model.parameters()), self.device)
        for module in model.modules():
            if type(module) is nn.Dropout:
                module.__class__ = _Dropout
            elif type(module) in DROP_PATHS and module.mode == "row":
                module.__class__ = _DropPath
            if isinstance(module, _Dropout | _DropPath):
                module.draws = self

    def begin(self, rows: Tensor, seed: int) -> None:
        """The model is about to see the clips at these places; `seed` is that of the step."""
        self.rows, self.rows_there = rows, send(rows, self.device)
        torch.manual_seed(seed)

    def end(self) -> None:
        """The step is over: the layers behave as torch's again."""
        self.rows = None


class _Dropout(nn.Dropout):
    """Dropout with a mask per clip; (n·k, …), the k entries of a clip after one another."""

    draws: ClipDraws

    def forward(self, x: Tensor) -> Tensor:
        rows = self.draws.rows
        if not self.training or not 0 < self.p < 1 or rows is None or len(x) % len(rows):
            return super().forward(x)
        return x * _keep(x, len(rows), self.draws, 1 - self.p)


@torch.compiler.disable  # compiled graphs know no generators
def _keep(x: Tensor, n: int, draws: ClipDraws, share: float) -> Tensor:
    """Zeros and ``1 / share`` in the shape of `x`, from one generator per clip."""
    seeds = torch.randint(2**62, (draws.clips,))[draws.rows]
    mask = torch.empty_like(x, requires_grad=False, memory_format=torch.contiguous_format)
    generator = torch.Generator(x.device)
    for part, seed in zip(mask.view(n, -1), seeds.tolist(), strict=True):
        part.bernoulli_(share, generator=generator.manual_seed(seed))
    return mask.div_(share)


class _DropPath(StochasticDepth):
    """Stochastic depth with draws per clip; (n·k, …), the k entries of a clip after one another."""

    draws: ClipDraws

    def forward(self, x: Tensor) -> Tensor:
        rows = self.draws.rows
        if not self.training or self.p == 0 or rows is None or len(x) % len(rows):
            return super().forward(x)
        # A compiled graph draws on the device, so that no copy from the CPU is in it.
        device = x.device if torch.compiler.is_compiling() else rows.device
        drawn = torch.rand(self.draws.clips, len(x) // len(rows), device=device)
        drawn = drawn[rows if device == rows.device else self.draws.rows_there].flatten()
        keep = (drawn >= self.p).to(x.dtype)
        if self.p < 1:
            keep = keep / (1 - self.p)
        return x * send(keep, x.device).view(-1, *[1] * (x.dim() - 1))


def step_seed(seed: int, *numbers: int) -> int:
    """The seed of a step, or of a part of the work on it."""
    return int(np.random.default_rng((seed, *numbers)).integers(2**62))


class StepShare:
    """The clips of a step that lie on this process, and their partners for mixing.

    In the whole step the partner of clip k of N is clip N - 1 - k, as for a batch that is mixed
    with itself reversed.

    Args:
        positions: places in the step of each process's videos, ascending
            (:func:`videonet.data.loading.loader.positions`).
        clips_per_video: clips of a video, after one another.
    """

    def __init__(self, process: Process, positions: Sequence[list[int]], clips_per_video: int):
        self.process = process
        mine, count = positions[process.rank], clips_per_video
        videos = sum(map(len, positions))
        self.rows = torch.tensor([v * count + k for v in mine for k in range(count)])
        owner = {v: rank for rank, part in enumerate(positions) for v in part}
        local = {int(row): k for k, row in enumerate(self.rows)}
        last = videos * count - 1
        self._partners = torch.tensor([local.get(last - int(row), -1) for row in self.rows])
        # (process, rows here) of each video whose partner lies elsewhere, nearest process first
        self._elsewhere = sorted(
            (owner[videos - 1 - v], slice(k * count, (k + 1) * count))
            for k, v in enumerate(mine)
            if owner[videos - 1 - v] != process.rank
        )

    def partners(self, values: Tensor) -> Tensor:
        """The rows of the partners of this process's clips; called by all processes.

        Args:
            values: one row per clip of this process, (n, …).

        Returns:
            (n, …), in each row that of the clip's partner.
        """
        if self._partners.device != values.device:
            self._partners = send(self._partners, values.device)
        others = values[self._partners]
        for process, rows in self._elsewhere:
            others[rows] = self.process.swap(values[rows], process).flip(0)
        return others
