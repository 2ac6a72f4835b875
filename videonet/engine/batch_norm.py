"""Batch norms of a model whose clips are divided among processes, and precise statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from videonet.engine.distributed import Process
from videonet.models.recomputing import statistics_kept
from videonet.ops.conv import BATCH_NORMS

Batch = TypeVar("Batch")
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm  # BATCH_NORMS


def batch_norms(model: nn.Module) -> dict[str, BatchNorm]:
    """The batch norms of a model that keep running statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, BATCH_NORMS) and module.running_mean is not None
    }


def _statistics(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """The running mean and variance of one of :func:`batch_norms`."""
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var


def synchronize(model: nn.Module) -> None:
    """Make the batch norms of a model normalise over the clips of all processes in training.

    The names and tensors of the model do not change.
    """
    for module in batch_norms(model).values():
        module.__class__ = SyncBatchNorm


class SyncBatchNorm(nn.BatchNorm3d):
    """Batch norm over the clips of all processes, on any device; (N, C, …) -> the same shape.

    torch's own does not run on the CPU and cannot keep its statistics while activations are
    recomputed; pytorchvideo's assumes the same number of clips on every process. In evaluation
    mode this is an ordinary batch norm. In training every process has to call it.
    """

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        """(N, C, …) -> (N, C, …)."""
        if not self.training:
            statistics = self.running_mean, self.running_var
            return F.batch_norm(x, *statistics, self.weight, self.bias, eps=self.eps)
        y, mean, var, count = _Normalize.apply(x, self.weight, self.bias, self.eps)
        self._follow(mean, var * (count / (count - 1).clamp_min(1)))  # the unbiased variance
        return y

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics towards those of a batch, as torch's batch norm does."""
        share = self.momentum or 0.0
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # a plain mean over all batches
                share = 1.0 / float(self.num_batches_tracked)
        running_mean, running_var = _statistics(self)
        running_mean.lerp_(mean.to(running_mean.dtype), share)
        running_var.lerp_(var.to(running_var.dtype), share)


class _Normalize(torch.autograd.Function):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` with mean and variance of all processes.

    Means and variances are joined as in Chan, Golub and LeVeque (1983), Eq. 1.5, so neither the
    sizes of the parts nor a large mean do harm.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float):
        rest = [0, *range(2, x.dim())]
        var, mean = torch.var_mean(_wide(x), rest, correction=0)  # (C,)
        count = mean.new_full((1,), x.numel() // x.shape[1])
        means, variances, counts = _of_all_processes(mean, var, count)  # (P, C), (P, C), (P, 1)
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        var = (counts * (variances + (means - mean) ** 2)).sum(0) / total
        scale = torch.rsqrt(var + eps)
        ctx.save_for_backward(x, weight, mean, scale, total)
        ctx.mark_non_differentiable(mean, var, total)
        y = (_wide(x) - _channels(mean, x)) * _channels(scale, x)
        if weight is not None and bias is not None:  # torch's batch norms have both or neither
            y = y * _channels(weight, x) + _channels(bias, x)
        return y.to(x.dtype), mean, var, total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor, *_):
        x, weight, mean, scale, total = ctx.saved_tensors
        rest = [0, *range(2, x.dim())]
        gradient = _wide(gradient)
        normal = (_wide(x) - _channels(mean, x)) * _channels(scale, x)
        sums = torch.stack((gradient.sum(rest), (gradient * normal).sum(rest)))  # (2, C)
        bias_gradient, weight_gradient = sums.clone()
        dist.all_reduce(sums)
        of_gradient, of_product = sums / total
        inner = gradient - _channels(of_gradient, x) - normal * _channels(of_product, x)
        factor = scale if weight is None else scale * weight
        inner = (inner * _channels(factor, x)).to(x.dtype)
        if weight is None:
            return inner, None, None, None
        return inner, weight_gradient.to(weight.dtype), bias_gradient.to(weight.dtype), None


def _channels(values: Tensor, like: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, …)."""
    return _wide(values).view(1, -1, *[1] * (like.dim() - 2))


def _wide(values: Tensor) -> Tensor:
    """Half precisions as float32, in which sums are exact enough."""
    return values if values.dtype is torch.float64 else values.float()


def _of_all_processes(*tensors: Tensor) -> list[Tensor]:
    """The vectors of all processes, one per row, in order of rank."""
    mine = torch.cat(tensors)
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    return list(torch.stack(parts).split([len(tensor) for tensor in tensors], dim=1))


@torch.no_grad()
def average_statistics(
    model: nn.Module, average: dict[str, Tensor] | None, process: Process
) -> None:
    """Average the running statistics over all processes; synchronised norms share theirs already.

    Args:
        model: with batch norms.
        average: averaged weights by name, whose running statistics are averaged too; None without.
        process: this process.
    """
    if process.world_size == 1:
        return
    for name, module in batch_norms(model).items():
        if isinstance(module, SyncBatchNorm):
            continue
        for key, own in zip(("running_mean", "running_var"), _statistics(module), strict=True):
            values = [own]
            if average is not None:
                values.append(average[f"{name}.{key}" if name else key])
            for value in values:
                process.total(value).div_(process.world_size)


@torch.no_grad()
def precise_statistics(
    model: nn.Module,
    batches: Iterable[Batch],
    forward: Callable[[Batch], object],
    process: Process,
) -> None:
    """Replace running statistics by those of all clips in `batches`, with the current weights.

    The mean and variance of the whole population ("Rethinking Batch in BatchNorm",
    arXiv 2105.07576, Sec. 3 and appendix). Norms that do not train keep theirs.

    Args:
        model: with batch norms, in training mode.
        batches: of this process; every process has the same number of them.
        forward: runs the model on one of them.
        process: this process.
    """
    norms = [module for module in batch_norms(model).values() if module.training]
    sums = {  # per channel, over everything seen: the number of values, their sum and of squares
        norm: torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms
    }

    def note(norm: BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].float()
        var, mean = torch.var_mean(x, [0, *range(2, x.dim())], correction=0)
        count, mean, var = x.numel() // x.shape[1], mean.double().cpu(), var.double().cpu()
        sums[norm] += torch.stack((torch.ones_like(mean), mean, var + mean**2)) * count

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    try:
        with statistics_kept(model):
            for batch in batches:
                forward(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, found in sums.items():
        # Float32 would lose the small differences of large sums, and MPS has no float64.
        count, total, squares = sum(process.gather(found), start=torch.zeros_like(found))
        mean = total / count
        running_mean, running_var = _statistics(norm)
        running_mean.copy_(mean)
        running_var.copy_(squares / count - mean**2)
