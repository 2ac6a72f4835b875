"""Fine-tuning: layers whose weights are not trained."""

from __future__ import annotations

from torch import nn

from videonet.engine.optim import LayeredModel
from videonet.errors import ConfigError
from videonet.ops.conv import BATCH_NORMS


def freeze(model: LayeredModel, layers: int) -> list[str]:
    """Exclude the first `layers` of ``model.layer_groups()`` from training.

    Args:
        model: whose parameters are frozen.
        layers: counted from the patch stem up; -1 leaves the last norm and the head to be trained,
            -3 these and the last two blocks.

    Returns:
        The names of the frozen parameters.

    Raises:
        ConfigError: there are not so many layers below the head.
    """
    groups = model.layer_groups()
    if not -len(groups) <= layers < len(groups):
        raise ConfigError(
            f"MODEL.FROZEN_LAYERS is {layers}, but this model has {len(groups)} layers and the "
            f"last one, the head, has to be trained: expected at most {len(groups) - 1}, or at "
            f"least {-len(groups)} for that many trained ones"
        )
    frozen = {name for names in groups[:layers] for name in names}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return sorted(frozen)


def train_mode(model: nn.Module) -> None:
    """Training mode, but batch norms without trainable weights keep their statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, BATCH_NORMS):
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()
