"""Optimiser, its parameter groups, and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from fvcore.common.config import CfgNode
from torch import nn

from videonet.errors import ConfigError
from videonet.ops.conv import BATCH_NORMS

# What each kind of optimiser keeps of a parameter.
KINDS = {
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
}


class LayeredModel(Protocol):
    """A model that says which of its weights belong to which layer."""

    def modules(self) -> Iterator[nn.Module]:
        """Torch's."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Torch's."""

    def layer_groups(self, by: str = "blocks") -> list[list[str]]:
        """Names of the parameters of each layer, from the stem to the head."""

    def no_weight_decay(self) -> set[str]:
        """Names of class tokens and positions."""


def parameter_groups(
    model: LayeredModel,
    weight_decay: float,
    *,
    no_decay_1d: bool = True,
    no_decay: frozenset[str] | set[str] = frozenset(),
    layer_decay: float = 1.0,
    layers_by: str = "blocks",
    batch_norm_decay: float = 0.0,
) -> list[dict]:
    """Parameters grouped by weight decay and learning-rate factor.

    Args:
        model: whose parameters are grouped; frozen ones are left out.
        weight_decay: of all parameters that no rule spares.
        no_decay_1d: norms, biases and other vectors are not decayed.
        no_decay: names of further parameters that are not decayed (positions, class token).
        layer_decay: factor on the learning rate per layer, counted back from the head, over
            ``model.layer_groups(layers_by)``.
        layers_by: what a layer is.
        batch_norm_decay: weight decay of batch norms, whatever the other rules say.

    Returns:
        Groups for a torch optimiser; ``lr_scale`` is the factor on the learning rate.
    """
    layers = model.layer_groups(layers_by)
    depth_of = {name: i for i, names in enumerate(layers) for name in names}
    batch_norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, BATCH_NORMS)
        for parameter in module.parameters()
    }
    groups: dict[tuple[float, float], dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        spared = name in no_decay or (no_decay_1d and parameter.dim() <= 1)
        decay = 0.0 if spared else weight_decay
        if id(parameter) in batch_norms:
            decay = batch_norm_decay
        scale = layer_decay ** (len(layers) - 1 - depth_of[name])
        group = groups.setdefault(
            (decay, scale), {"params": [], "weight_decay": decay, "lr_scale": scale}
        )
        group["params"].append(parameter)
    return list(groups.values())


def build_optimizer(cfg: CfgNode, model: LayeredModel) -> torch.optim.Optimizer:
    """The optimiser of ``SOLVER``; the schedule sets its learning rate at every step."""
    solver = cfg.SOLVER
    groups = parameter_groups(
        model,
        solver.WEIGHT_DECAY,
        no_decay_1d=solver.ZERO_WD_1D_PARAM,
        no_decay=model.no_weight_decay() if cfg.MVIT.ZERO_DECAY_POS_CLS else frozenset(),
        layer_decay=solver.LAYER_DECAY,
        layers_by=solver.LAYER_GROUPS,
        batch_norm_decay=cfg.BN.WEIGHT_DECAY,
    )
    name = solver.OPTIMIZING_METHOD
    if name == "sgd":
        return torch.optim.SGD(
            groups,
            lr=solver.BASE_LR,
            momentum=solver.MOMENTUM,
            dampening=solver.DAMPENING,
            nesterov=solver.NESTEROV,
        )
    if name in ("adam", "adamw"):
        kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
        # One kernel for all parameters, where every device has it.
        fused = True if all(p.is_cuda for _, p in model.named_parameters()) else None
        return kind(groups, lr=solver.BASE_LR, betas=tuple(solver.BETAS), eps=1e-8, fused=fused)
    raise ConfigError(f"SOLVER.OPTIMIZING_METHOD is {name!r}, expected sgd, adam or adamw")


def lr_factor(cfg: CfgNode, clips_per_step: int) -> float:
    """Linear scaling: the clips of a step over ``BASE_LR_CLIPS``, or 1 where that is 0."""
    if cfg.SOLVER.BASE_LR_CLIPS > 0:
        return clips_per_step / cfg.SOLVER.BASE_LR_CLIPS
    return 1.0


def learning_rate(solver: CfgNode, epoch: float) -> float:
    """The learning rate at a (fractional) epoch, before linear scaling.

    A line from ``WARMUP_START_LR`` during the warm-up, then as ``SCHEDULE`` says: half a cosine
    from ``BASE_LR`` to ``COSINE_END_LR`` at ``MAX_EPOCH`` (arXiv 1608.03983, Eq. 5 without
    restarts), which begins after the warm-up with ``COSINE_AFTER_WARMUP``, else at epoch 0; or
    steps; or by a power of the share of the epochs that are left, to ``COSINE_END_LR`` too.
    """
    offset = solver.WARMUP_EPOCHS if solver.COSINE_AFTER_WARMUP else 0.0

    def after_warmup(at: float) -> float:
        if solver.SCHEDULE == "steps":
            passed = sum(at >= step for step in solver.STEP_EPOCHS)
            return float(solver.BASE_LR * solver.STEP_FACTOR**passed)
        if solver.SCHEDULE == "poly":
            left = max(1 - at / solver.MAX_EPOCH, 0.0)
            span = solver.BASE_LR - solver.COSINE_END_LR
            return float(solver.COSINE_END_LR + span * left**solver.POLY_POWER)
        return cosine(at)

    def cosine(at: float) -> float:
        length = solver.MAX_EPOCH - offset
        progress = (at - offset) / length if length else 0.0  # a run that ends in its warm-up
        span = solver.BASE_LR - solver.COSINE_END_LR
        return solver.COSINE_END_LR + span * (math.cos(math.pi * progress) + 1.0) / 2.0

    if epoch < solver.WARMUP_EPOCHS:
        start, end = solver.WARMUP_START_LR, after_warmup(solver.WARMUP_EPOCHS)
        return start + (end - start) * epoch / solver.WARMUP_EPOCHS
    return after_warmup(epoch)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the rate times its ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def fitted_optimizer_state(saved: Mapping, optimizer: torch.optim.Optimizer, names: dict) -> dict:
    """A state dict with the saved moments of each parameter and this optimiser's settings.

    Args:
        saved: an optimiser's state dict, whose groups may hold the ``param_names`` of their
            parameters; without them both must have the same groups.
        optimizer: that is to be filled.
        names: id of a parameter -> its name.

    Raises:
        ValueError: the state is that of another kind of optimiser, or of other parameters.
    """
    own = optimizer.state_dict()
    groups = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
    found: dict[str, Mapping] = {}
    for number, group in enumerate(saved["param_groups"]):
        known = group.get("param_names")
        if known is None:
            if [len(g["params"]) for g in saved["param_groups"]] != list(map(len, groups)):
                raise ValueError("its groups of parameters are others")
            known = groups[number]
        for name, index in zip(known, group["params"], strict=True):
            if index in saved["state"]:
                found[name] = saved["state"][index]
    wanted = KINDS[type(optimizer)]
    for name, moments in found.items():
        if set(moments) != wanted:
            raise ValueError(f"{name} has {', '.join(sorted(moments))}")
    order = [name for group in groups for name in group]
    indices = [index for group in own["param_groups"] for index in group["params"]]
    return {
        "state": {
            index: dict(found[name])
            for name, index in zip(order, indices, strict=True)
            if name in found
        },
        "param_groups": own["param_groups"],
    }
