"""What models of all architectures share: features, the head, groups of layers."""

from __future__ import annotations

import re
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.heads.classification import ClassificationHead, TokenHead
from videonet.heads.token_heads import TOKEN_HEADS
from videonet.models.arguments import checked_arguments
from videonet.models.recomputing import recomputed
from videonet.models.stages import RunBlock, StageInfo, StageOutput


def refuse_class_token(model: nn.Module, cls_token: bool | None) -> None:
    """Check the argument ``cls_token`` of an architecture that has no class token.

    Raises:
        ConfigError: it is True.
    """
    if cls_token:
        raise ConfigError(f"{type(model).__name__} has no class token: leave out cls_token=True")


class VideoModel(nn.Module):
    """Base class of all architectures.

    A subclass sets ``num_features``, ``feature_info``, ``head_dropout`` and where it has one
    ``head_init_scale``, sets ``norm`` (or calls :meth:`add_norms`) or has its own :meth:`finish`,
    calls :meth:`reset_classifier` last in its constructor, and has :meth:`run_stages` and
    :meth:`pool_features`.

    A model with output norms is the backbone of a detector or of a segmentation: calling it gives
    the maps of :meth:`forward_intermediates`, and it has no classifier.

    Args:
        centre_clips: see :meth:`as_clip`.

    Attributes:
        num_features: width of the vector that the classifier reads.
        feature_info: of each map of :meth:`forward_intermediates`.
        num_classes: of the classifier; 0 where there is none.
        output_norms: number of a stage -> the norm of its map; see :meth:`add_norms`.
    """

    num_features: int
    feature_info: tuple[StageInfo, ...]
    num_classes: int
    head_dropout: float
    norm: nn.Module | None  # behind the last block
    output_norms: nn.ModuleDict
    head: nn.Module
    # Beginnings of the last part of a parameter's name.
    undecayed: tuple[str, ...] = ("cls_token", "pos_embed")
    block_names = re.compile(r"(?:.*\.)?blocks\.\d+(?=\.)")
    # Modules behind the last block, and what only heads of other tasks read.
    top_names: tuple[str, ...] = ("norm", "output_norms", "head")
    groupings: tuple[str, ...] = ("blocks", "layers")  # of layer_groups
    head_init_scale = 1.0
    # In a clip that repeats one image the class token attends to a copy of each patch per frame,
    # which changes its logits. True where a model corrects that, see cls_key_log_frames.
    still_clips_are_exact = False
    works_on_parts = False  # whether forward_features takes `keep`
    token_head: tuple[str, dict[str, Any]] | None = None  # see use_head
    pooled_width = 0  # of pool_features; num_features where no head reads all tokens
    grad_checkpointing = False

    def __init__(self, centre_clips: bool = False) -> None:
        super().__init__()
        self.centre_clips = centre_clips
        self.output_norms = nn.ModuleDict()

    def add_norms(
        self, output_norms: bool | Sequence[int], make: Callable[[int], nn.Module]
    ) -> None:
        """Add the norm behind the last block, or in its place the norms of the outputs.

        The published detectors and segmentations norm each map that their necks read, where the
        classification model has one norm in front of its head (``norm0`` … ``norm3`` of Swin,
        HorNet and AS-MLP, ``scale2_norm`` … of MViT, ``fork_feat`` of CycleMLP). The norms belong
        to the backbone, not to a neck: they are in its checkpoints, and every neck and head gets
        the same maps.

        Args:
            output_norms: whether all maps of :meth:`forward_intermediates` are normed; or the
                numbers of those that are.
            make: width -> a norm of cells (..., width).

        Raises:
            ConfigError: there is no such map.
        """
        count = len(self.feature_info)
        if isinstance(output_norms, bool):
            numbers = list(range(count)) if output_norms else []
        else:
            numbers = self.stage_numbers(output_norms, "output_norms")
        self.norm = None if numbers else make(self.num_features)
        for number in sorted(numbers):
            self.output_norms[str(number)] = make(self.feature_info[number].channels)

    def as_clip(self, clip: Tensor, patch: tuple[int, int]) -> Tensor:
        """What the stem takes: an image becomes a clip of one frame.

        With ``centre_clips`` each clip loses its mean colour, that of all its frames together. It
        is most of the energy of a clip but tells little, and a network of random weights that
        averages its cells gives hardly anything else. A clip that repeats an image has the mean
        of the image.

        Args:
            clip: (B, in_channels, T, H, W), or an image (B, in_channels, H, W).
            patch: the smallest frame that the model takes, (height, width) in pixels.

        Returns:
            (B, in_channels, T, H, W).

        Raises:
            ConfigError: it is no such tensor of floats, or the frames are smaller than `patch`.
        """
        if not torch.compiler.is_compiling():
            self._refuse_other_layouts(clip)
        clip = clip.unsqueeze(2) if clip.dim() == 4 else clip
        for size, least, name in zip(clip.shape[3:], patch, ("high", "wide"), strict=True):
            if size < least:
                raise ConfigError(
                    f"frames are {size} pixels {name}, but one patch of this model needs {least}"
                )
        return clip - clip.mean(dim=(2, 3, 4), keepdim=True) if self.centre_clips else clip

    def _refuse_other_layouts(self, clip: Tensor) -> None:
        channels = next(m for m in self.modules() if isinstance(m, nn.Conv3d)).in_channels
        expected = f"(B, {channels}, T, H, W), or images (B, {channels}, H, W)"
        shape = tuple(clip.shape)
        if clip.dim() not in (4, 5) or shape[1] != channels:
            hint = ""
            if clip.dim() == 5 and shape[2] == channels:
                hint = ": it looks like (B, T, C, H, W), which clip.transpose(1, 2) turns"
            elif clip.dim() in (4, 5) and shape[-1] == channels:
                hint = ": its channels come last, which clip.movedim(-1, 1) turns"
            raise ConfigError(f"a batch of clips has the shape {shape}, expected {expected}{hint}")
        if not clip.is_floating_point():
            raise ConfigError(
                f"a batch of clips holds {clip.dtype}, expected floats that are normalised: "
                "videonet.Predictor does that for uint8 frames"
            )

    # Any: with output norms a list of maps.
    def forward(self, clip: Tensor) -> Any:
        """(B, in_channels, T, H, W), or an image (B, in_channels, H, W), -> (B, num_classes).

        With output norms what :meth:`forward_intermediates` gives.
        """
        if self.output_norms:
            return self.forward_intermediates(clip)
        return self.forward_head(self.forward_features(clip))

    def forward_features(self, clip: Tensor, keep: Tensor | None = None) -> Tensor:
        """A clip -> the final tokens or map, for :meth:`forward_head`.

        Args:
            clip: (B, in_channels, T, H, W), or an image (B, in_channels, H, W).
            keep: run these tokens of the stem's grid alone: numbers (B, K) in the order of time,
                height and width, or booleans (B, T*H*W), true for as many in every row.

        Returns:
            Tokens (B, prefix + N, C) where the architecture works on tokens in a row, else cells
            (B, T, H, W, C) or a map (B, C, T, H, W).

        Raises:
            ConfigError: the architecture works on whole grids alone, or `keep` fits no grid.
        """
        if keep is not None and not self.works_on_parts:
            raise ConfigError(f"{type(self).__name__} works on whole grids: leave out keep")
        parts = {} if keep is None else {"keep": keep}
        return self.finish(self.last_stage(clip, **parts))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """What :meth:`forward_features` gives -> logits (B, num_classes).

        Args:
            pre_logits: give what the classifier reads instead, (B, num_features).
        """
        if isinstance(self.head, TokenHead):
            pooled = self.head.read(self.tokens_of(features))
        else:
            pooled = self.pool_features(features)
        return pooled if pre_logits else self.head(pooled)

    def forward_intermediates(
        self, clip: Tensor, indices: int | Sequence[int] | None = None
    ) -> list[Tensor]:
        """A clip -> the maps at the ends of stages, (B, C, T', H', W') each, normed if said so.

        Args:
            clip: (B, in_channels, T, H, W), or an image (B, in_channels, H, W).
            indices: numbers of the stages, negative ones counted from the last; or how many of
                the last stages; None for all. Stages after the last one wanted are not computed.

        Raises:
            ConfigError: there is no such stage.
        """
        wanted = self.stage_numbers(indices)
        maps: dict[int, Tensor] = {}
        for number, stage in enumerate(self.run_stages(clip, self.run_block)):
            if number in wanted:
                maps[number] = self._norm_map(number, stage.maps()[0])
            if number == max(wanted, default=0):
                break
        return [maps[number] for number in wanted]

    def _norm_map(self, number: int, x: Tensor) -> Tensor:
        """The map (B, C, T, H, W) of a stage behind its output norm, where there is one."""
        if str(number) not in self.output_norms:
            return x
        cells = self.output_norms[str(number)](x.permute(0, 2, 3, 4, 1))  # (B, T, H, W, C)
        return cells.permute(0, 4, 1, 2, 3)

    def stage_numbers(
        self, indices: int | Sequence[int] | None, name: str = "indices"
    ) -> list[int]:
        """`indices` of :meth:`forward_intermediates` as numbers from 0; messages say `name`."""
        count = len(self.feature_info)
        if indices is None:
            return list(range(count))
        asked = range(-indices, 0) if isinstance(indices, int) else indices
        for index in asked:
            if not -count <= index < count:
                raise ConfigError(
                    f"{name} are {indices!r}, but this {type(self).__name__} has {count} maps"
                )
        return [index % count for index in asked]

    def run_stages(self, clip: Tensor, run: RunBlock) -> Iterator[StageOutput]:
        """Run the stages and yield the output of each, before any downsampling behind it.

        Args:
            clip: (B, in_channels, T, H, W), or an image (B, in_channels, H, W).
            run: called as ``run(block, *inputs)`` for ``block(*inputs)``.
        """
        raise NotImplementedError

    def last_stage(self, clip: Tensor, **parts: Tensor) -> StageOutput:
        """What the last stage gives for a clip; `parts` are passed on to :meth:`run_stages`."""
        (last,) = deque(self.run_stages(clip, self.run_block, **parts), maxlen=1)
        return last

    def finish(self, last: StageOutput) -> Tensor:
        """What the last stage gives -> what :meth:`forward_features` gives."""
        return self.norm_last(last.tensor())

    def norm_last(self, x: Tensor) -> Tensor:
        """Cells or vectors (..., C) of the last stage behind its norm, where there is one."""
        last = str(len(self.feature_info) - 1)
        if last in self.output_norms:
            return self.output_norms[last](x)
        return x if self.norm is None else self.norm(x)

    def pool_features(self, features: Tensor) -> Tensor:
        """What :meth:`forward_features` gives -> one vector per clip, (B, num_features)."""
        raise NotImplementedError

    def tokens_of(self, features: Tensor) -> Tensor:
        """What :meth:`forward_features` gives -> all tokens in a row, (B, N, C)."""
        return features.flatten(1, -2)

    @property
    def token_width(self) -> int:
        """C of :meth:`tokens_of`."""
        return self.feature_info[-1].channels

    def use_head(self, kind: str, **options: Any) -> None:
        """Replace the head by a new one that reads all tokens.

        Args:
            kind: "attentive" or "statistics".
            **options: of its pooler, ``AttentivePooler`` or ``TokenStatistics``.

        Raises:
            ConfigError: there is no such head or option, or it has no such value.
        """
        if kind not in TOKEN_HEADS:
            raise ConfigError(f"the head is {kind!r}, expected {' or '.join(TOKEN_HEADS)}")
        given = checked_arguments(f"{kind} head", TOKEN_HEADS[kind].pooler_class, options)
        if "dim" in given:
            raise ConfigError("the head has the width of the tokens: leave out dim")
        self.token_head = kind, given
        self.reset_classifier(self.num_classes)

    def pool_tokens(self, x: Tensor) -> Tensor:
        """The former name of the way from the last stage to what the classifier reads."""
        warnings.warn(
            "pool_tokens will go: use forward_head(features, pre_logits=True)",
            FutureWarning,
            stacklevel=2,
        )
        return self.pool_features(self.finish(StageOutput(x)))

    def run_block(self, block: nn.Module, *inputs: Any) -> Any:
        """Call ``block(*inputs)``, with recomputation where :meth:`set_grad_checkpointing` says."""
        if self.grad_checkpointing and self.training:
            return recomputed(block, *inputs)
        return block(*inputs)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a new, randomly initialised one.

        It has the dtype and the device of the old head, and the training mode of the model.

        Args:
            num_classes: 0 for no head: the model then returns features (B, num_features).

        Raises:
            ConfigError: fewer than 0 classes, or no whole number; or any for a model with output
                norms.
        """
        whole = hasattr(num_classes, "__index__") and not isinstance(num_classes, bool)
        if not whole or num_classes < 0:
            raise ConfigError(
                f"a classifier has {num_classes!r} classes, expected a whole number, 0 or more"
            )
        if num_classes and self.output_norms:
            raise ConfigError(
                f"a {type(self).__name__} with output_norms gives feature maps, not classes"
            )
        before = getattr(self, "head", None)
        self.num_classes = num_classes
        self.pooled_width = self.pooled_width or self.num_features
        self.num_features = self.pooled_width
        if not num_classes:
            self.head = nn.Identity()
            return
        if self.token_head is not None:
            (kind, options), width = self.token_head, self.token_width
            self.num_features = TOKEN_HEADS[kind].width(width, **options)
            self.head = TOKEN_HEADS[kind](width, num_classes, self.head_dropout, **options)
        else:
            self.head = ClassificationHead(
                self.num_features, num_classes, self.head_dropout, self.head_init_scale
            )
        if before is not None:
            like = next(before.parameters(), next(self.parameters()))
            self.head.to(like.device, like.dtype).train(self.training)

    def no_weight_decay(self) -> set[str]:
        """Names of class tokens and positions."""
        names = [name for name, _ in self.named_parameters()]
        undecayed = (*self.undecayed, *getattr(self.head, "undecayed", ()))
        return {name for name in names if name.rpartition(".")[2].startswith(undecayed)}

    def layer_groups(self, by: str = "blocks") -> list[list[str]]:
        """Parameter names from input to output: stem, each block, norms and head.

        Whatever lies between two blocks (a downsampling) goes with the block before it. The last
        group, which heads of other tasks join, may be empty.

        Args:
            by: "blocks", or a grouping that the recipes of a family have for layer-wise learning
                rates: "layers", which is "blocks" here (as in ViTDet), or what else it names.

        Raises:
            ConfigError: the family has no such grouping.
        """
        if by not in self.groupings:
            raise ConfigError(
                f"layers are grouped by {by!r}, expected one of {', '.join(self.groupings)}"
            )
        stem: list[str] = []
        top: list[str] = []
        blocks: dict[str, list[str]] = {}
        group = stem
        for name, _ in self.named_parameters():
            if name.partition(".")[0] in self.top_names:
                top.append(name)
                continue
            if block := self.block_names.match(name):
                group = blocks.setdefault(block[0], [])
            group.append(name)
        return [stem, *blocks.values(), top]

    def set_grad_checkpointing(self, enabled: bool = True) -> None:
        """Whether training computes the activations of blocks twice, to save their memory."""
        self.grad_checkpointing = enabled
