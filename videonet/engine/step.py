"""One optimiser step: forward and backward in parts, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from videonet.data.targets import Targets
from videonet.engine.distributed import Process
from videonet.engine.draws import ClipDraws
from videonet.engine.parallel import gradient_sync


def gradient_scaler(dtype: torch.dtype | None, device: torch.device) -> torch.amp.GradScaler:
    """Scales losses so that fp16 gradients do not vanish; does nothing in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)


def _outputs(model: Callable[..., Any], clips: Tensor, targets: Targets) -> Any:
    """The outputs of a model that needs no targets for them."""
    return model(clips)


class TrainingStep:
    """Turns the clips of a step into an update of the weights.

    The loss is the mean over the clips of all processes and parts, so the update is the same
    however the clips of a step are divided among them.

    Args:
        model: maps clips to outputs; with several processes it averages gradients over them.
        optimizer: of the model's parameters.
        scaler: of the losses, for fp16.
        process: this process.
        clips_per_step: clips of all processes together.
        loss: of the model's outputs and targets, a mean over the clips; or several, by name, that
            are added.
        parts: forward and backward passes per step, each on its part of the clips.
        dtype: precision of autocast; None for full precision.
        clip_norm: limit of the gradient's L2 norm; None or 0 for no limit.
        clip_value: limit of each entry of the gradient; None or 0 for no limit.
        draws: tells the model's random layers which clips they see.
        forward: what is called in place of the model, such as a compiled one; None for the model.
        run: calls it: (model, clips, targets) -> what ``loss`` takes; None for its outputs of the
            clips.

    Attributes:
        losses: of the last step, by name, this process's shares; empty where there is but one.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        process: Process,
        *,
        clips_per_step: int,
        loss: Callable[[Any, Targets], Tensor | Mapping[str, Tensor]],
        parts: int = 1,
        dtype: torch.dtype | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        draws: ClipDraws | None = None,
        forward: Callable[..., Any] | None = None,
        run: Callable[[Callable[..., Any], Tensor, Targets], Any] | None = None,
    ):
        self.model, self.optimizer, self.scaler = model, optimizer, scaler
        self.process, self.clips_per_step, self.parts = process, clips_per_step, parts
        self.dtype, self.clip_norm, self.clip_value = dtype, clip_norm, clip_value
        self.loss, self.draws, self.forward = loss, draws, model if forward is None else forward
        self.run = _outputs if run is None else run
        self.losses: dict[str, Tensor] = {}

    def backward(
        self, clips: Tensor, targets: Targets, rows: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        """Compute the gradients of the loss.

        Args:
            clips: of this process, float (N, 3, T, H, W).
            targets: of the clips, (N, …).
            rows: places of the clips in the step, (N,) int64; needed with ``draws``.
            seed: of the step's dropout and drop paths; used with ``draws``.

        Returns:
            This process's share of the loss; the shares of all processes add up to it.
        """
        self.optimizer.zero_grad(set_to_none=True)
        parts = min(self.parts, len(clips))
        rows = torch.arange(len(clips)) if rows is None else rows
        pieces = list(
            zip(*(values.tensor_split(parts) for values in (clips, targets, rows)), strict=True)
        )
        total = torch.zeros((), device=clips.device)
        self.losses = {}
        for number, (part, wanted, places) in enumerate(pieces, 1):
            if self.draws is not None:
                self.draws.begin(places, seed)
            with gradient_sync(self.model, number == len(pieces)):
                with torch.autocast(
                    clips.device.type, dtype=self.dtype, enabled=self.dtype is not None
                ):
                    loss = self.loss(self.run(self.forward, part, wanted), wanted)
                weight = len(part) / self.clips_per_step
                if isinstance(loss, Mapping):
                    for name, value in loss.items():
                        self.losses[name] = self.losses.get(name, 0) + weight * value.detach()
                    loss = torch.stack([value.float() for value in loss.values()]).sum()
                loss = loss * weight
                # Gradients are averaged over the processes, but the shares are to be added.
                self.scaler.scale(loss * self.process.world_size).backward()
            total += loss.detach()
        if self.draws is not None:
            self.draws.end()
        return total

    def clip_gradients(self) -> Tensor:
        """Unscale and clip the gradients.

        Returns:
            Their L2 norm before clipping, (), on the device.
        """
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.clip_norm or math.inf)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        if self.clip_value:
            nn.utils.clip_grad_value_(parameters, self.clip_value)
        return norm

    def update(self) -> None:
        """Change the weights, unless fp16 gradients overflowed in this step."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
