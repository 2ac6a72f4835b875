"""Boundary refinement (BPR, CVPR 2021): which pixels of a patch belong to its object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from videonet.config import model_arguments
from videonet.data.datasets.boundary_patches import COARSE, TRUTH
from videonet.data.targets import Targets
from videonet.errors import ConfigError, ScoreError
from videonet.models.base import VideoModel
from videonet.models.boundary_refiner import make_boundary_refiner, with_masks
from videonet.ops.boundary_patches import PatchRule
from videonet.tasks.task import RecordEvaluation, RecordTask


def patch_rule(cfg: CfgNode) -> PatchRule:
    """How masks are cut into patches to be refined, by the keys ``BOUNDARY``."""
    keys = cfg.BOUNDARY
    return PatchRule(keys.PATCH_SIZE, keys.PADDING, keys.OVERLAP, keys.EDGES)


@dataclass(repr=False)
class PatchScores(RecordEvaluation):
    """How well the patches of a data set are refined; a record is (4,) numbers of pixels."""

    def measures(self) -> dict[str, float]:
        """Means over the patches, 0 to 1: overlap with the truth after and before, and accuracy."""
        both, either, before, either_before, wrong, pixels = torch.tensor(
            self.records, dtype=torch.float64
        ).T
        ious = [both / either.clamp(min=1), before / either_before.clamp(min=1)]
        ious = [
            torch.where(total > 0, iou, 1.0)
            for iou, total in zip(ious, (either, either_before), strict=True)
        ]
        return {
            "iou": ious[0].mean().item(),
            "coarse_iou": ious[1].mean().item(),
            "accuracy": 1 - (wrong / pixels).mean().item(),
        }


class BoundaryRefinement(RecordTask):
    """Two classes for the pixels of patches along the boundaries of coarse masks."""

    name = "boundary_refinement"
    evaluation = PatchScores
    num_outputs = 2

    def __init__(self, cfg: CfgNode):
        super().__init__(cfg)
        if cfg.DATA.TRAIN_CROP_SIZE != cfg.DATA.TEST_CROP_SIZE:
            raise ConfigError(
                f"DATA.TRAIN_CROP_SIZE is {cfg.DATA.TRAIN_CROP_SIZE} and DATA.TEST_CROP_SIZE "
                f"{cfg.DATA.TEST_CROP_SIZE}, but patches have one size for the network"
            )
        if cfg.DATA.NUM_FRAMES > 1 and cfg.DATA.SAMPLING_RATE != 1:
            raise ConfigError(
                f"DATA.SAMPLING_RATE is {cfg.DATA.SAMPLING_RATE}, but patches have frames side by "
                "side: expected 1"
            )

    def build_model(self) -> VideoModel:
        """A refiner on the configuration's HRNet, with random weights."""
        name, arguments = model_arguments(self.cfg)
        return cast("VideoModel", make_boundary_refiner(name, **arguments | {"num_classes": 0}))

    def run_in_training(self, model: Callable[..., Any], clips: Tensor, targets: Targets) -> Tensor:
        """The logits (N, 2, T, H, W) of patches (N, 3, T, H, W) with their coarse masks."""
        logits: Tensor = model(with_masks(clips, targets[COARSE].to(clips.device)))
        return logits

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Cross entropy of logits (N, 2, T, H, W) over all pixels."""
        return F.cross_entropy(outputs.float(), targets[TRUTH].long())

    def run(self, model: nn.Module, clips: Tensor, targets: Targets) -> list[Tensor]:
        """The logits (2, T, H, W) of each patch, on the CPU."""
        return list(self.run_in_training(model, clips, targets).float().cpu())

    def record(self, outputs: list[Tensor], targets: Targets, annotation: Any) -> list[int]:
        """Numbers of pixels of a patch: see :class:`PatchScores`."""
        logits, truth, coarse = outputs[0], targets[TRUTH][0], targets[COARSE][0]
        if not logits.isfinite().all():
            raise ScoreError("the logits of a patch are not finite numbers")
        found = logits[1] > logits[0]
        counts = [found & truth, found | truth, coarse & truth, coarse | truth, found ^ truth]
        return [*(int(pixels.sum()) for pixels in counts), truth.numel()]

    def write(self, folder: Path, evaluation: Any, paths: Sequence[str]) -> None:
        """Nothing beside ``results.json``."""
