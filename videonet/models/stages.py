"""What the stages of all architectures give, and how stages are run in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from torch import Tensor, nn

from videonet.ops.grid import Grid, volume
from videonet.ops.pooling import to_volume
from videonet.ops.windows import Windows, join_windows

RunBlock = Callable[..., Any]  # VideoModel.run_block
Kind = TypeVar("Kind", bound=nn.Module)

if TYPE_CHECKING:

    class ModuleListOf(nn.ModuleList, Generic[Kind]):
        """``nn.ModuleList``, of which type checkers know the class of the modules in it."""

        def __init__(self, modules: Iterable[Kind] = ()) -> None: ...
        def __iter__(self) -> Iterator[Kind]: ...

else:
    ModuleListOf = nn.ModuleList


class StageInfo(NamedTuple):
    """A feature map that a model gives.

    Attributes:
        channels: its width C.
        strides: frames and pixels (t, h, w) of the clip from one cell to the next.
    """

    channels: int
    strides: Grid


class StageOutput(NamedTuple):
    """What a stage gives, in the layout that its architecture works in.

    Attributes:
        x: tokens (B, prefix + T*H*W, C) on `grid`, cells (B, T, H, W, C), cells window by window
            (B, U, m, C) of `windows`, or maps (B, C, T, H, W), one for each branch.
        grid: (T, H, W) of tokens in a row.
        windows: of cells window by window.
    """

    x: Tensor | list[Tensor]
    grid: Grid | None = None
    windows: Windows | None = None

    def tensor(self) -> Tensor:
        """`x` of an architecture without parallel branches."""
        if not isinstance(self.x, Tensor):
            raise TypeError(f"a stage gave {len(self.x)} branches where one tensor is expected")
        return self.x

    def maps(self) -> list[Tensor]:
        """The cells as (B, C, T, H, W), without prefix tokens; one map for each branch."""
        if not isinstance(self.x, Tensor):
            return list(self.x)
        if self.windows is not None:
            cells = join_windows(self.x.unflatten(1, self.windows.counts), self.windows)
            return [cells.permute(0, 4, 1, 2, 3)]
        if self.grid is None:
            return [self.x.permute(0, 4, 1, 2, 3)]
        prefix = self.x.shape[1] - volume(self.grid)
        return [to_volume(self.x[:, prefix:] if prefix else self.x, self.grid)]


class BlockList(nn.ModuleList):
    """Blocks of one stage, one after the other."""

    def forward(self, x: Any, run: RunBlock) -> Any:
        """Call each block by ``run(block, x)``, see ``VideoModel.run_block``."""
        for block in self:
            x = run(block, x)
        return x


class Stage(nn.Module):
    """Blocks on one grid, and what leads from them to the grid of the next stage.

    Args:
        blocks: called one after the other.
        downsample: cells of this stage -> cells of the next one; None in the last stage.
    """

    def __init__(self, blocks: Iterable[nn.Module], downsample: nn.Module | None):
        super().__init__()
        self.blocks = BlockList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, run: RunBlock) -> Tensor:
        """Run the blocks alone: (B, T, H, W, C) -> the same shape."""
        return self.blocks(x, run)


class StageInTurn(Protocol):
    """What :class:`Stage` and its like have in common."""

    downsample: nn.Module | None

    def __call__(self, x: Tensor, run: RunBlock) -> Tensor: ...


def run_stages_in_turn(
    stages: Iterable[StageInTurn], x: Tensor, run: RunBlock
) -> Iterator[StageOutput]:
    """Run stages that have the form of :class:`Stage`.

    Args:
        stages: from input to output.
        x: cells (B, T, H, W, C) of the first one.
        run: see :meth:`videonet.models.base.VideoModel.run_block`.

    Yields:
        The cells at the end of each stage, before its downsampling.
    """
    for stage in stages:
        x = stage(x, run)
        yield StageOutput(x)
        if stage.downsample is not None:
            x = stage.downsample(x)
