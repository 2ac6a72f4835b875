"""All necks by name. A new one adds its file and one line to ``NECKS``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import nn

from videonet.errors import ConfigError
from videonet.heads.fpn import FPN
from videonet.heads.hor_fpn import HorFPN
from videonet.heads.hrfpn import HRFPN
from videonet.heads.simple_pyramid import MultiLevelNeck, SimplePyramid

Neck = FPN | HRFPN | SimplePyramid | MultiLevelNeck
NECKS: dict[str, Callable[..., Neck]] = {
    "fpn": FPN,
    "hor_fpn": HorFPN,
    "hrfpn": HRFPN,
    "simple_pyramid": SimplePyramid,
    "multi_level": MultiLevelNeck,
}


class MapInfo(Protocol):
    """What a backbone says of a map in its ``feature_info``."""

    @property
    def channels(self) -> int: ...
    @property
    def strides(self) -> tuple[int, int, int]: ...


def is_plain(infos: Sequence[MapInfo]) -> bool:
    """Whether all maps of a backbone have one resolution, as those of a plain ViT."""
    return len({tuple(info.strides[1:]) for info in infos}) == 1


def make_neck(name: str, infos: Sequence[MapInfo], out_channels: int = 256, **options: Any) -> Neck:
    """A neck on the maps of a backbone.

    Backbones of fewer stages than a head wants levels get the others by ``num_outs``, and plain
    ones their resolutions by "simple_pyramid" or "multi_level".

    Args:
        name: one of ``NECKS``.
        infos: the backbone's ``feature_info``, of the maps that the neck gets.
        out_channels: of every map that it gives.
        **options: other arguments of the neck.

    Raises:
        ConfigError: an unknown name or option, or a pyramid of maps of one resolution.
    """
    if name not in NECKS:
        raise ConfigError(f"the neck is {name!r}, expected one of {', '.join(NECKS)}")
    if name in ("fpn", "hor_fpn", "hrfpn") and len(infos) > 1 and is_plain(infos):
        raise ConfigError(
            f"the maps of this backbone have one resolution, of which {name} makes no pyramid: "
            "use simple_pyramid or multi_level"
        )
    try:
        return NECKS[name]([info.channels for info in infos], out_channels, **options)
    except TypeError as error:
        raise ConfigError(f"neck {name}: {error}") from error


def remove_classifier(backbone: nn.Module) -> tuple[str, ...]:
    """Take away what is behind the last block, which no gradient would reach.

    Returns:
        The beginnings of the names of its parameters.
    """
    unused = [name for name in getattr(backbone, "top_names", ()) if name != "output_norms"]
    for name in unused:
        if isinstance(getattr(backbone, name, None), nn.Module):
            setattr(backbone, name, nn.Identity())
    return tuple(f"{name}." for name in unused)
