"""Refining the boundaries of masks from any source (BPR, CVPR 2021)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from videonet.data.transforms.batch import normalize
from videonet.devices import autocast_dtype, select_device
from videonet.errors import ConfigError
from videonet.inference.pretrained import read_pretrained
from videonet.models.boundary_refiner import BoundaryRefiner, with_masks
from videonet.ops.boundary_patches import PatchRule, Reassembly, cut_patches, find_patches
from videonet.ops.resize import resize_bytes, resize_space
from videonet.tasks.boundary_refinement import BoundaryRefinement, patch_rule
from videonet.tasks.trained_model import load_trained_model

IMAGENET_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
IMAGENET_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)
Size = tuple[int, int]  # height, width


class MaskRefiner:
    """Refines masks of objects, whoever found them.

    Patches along the boundary of every object are cut out of frame and mask, a network says which
    of their pixels belong to the object, and what it says is averaged where patches overlap. Of
    all objects and frames the patches go through the network together.

    Args:
        model: maps patches with masks, (B, 4, T, H, W), to logits (B, 2, T, H, W).
        rule: how patches are cut.
        num_frames: T; 1 refines every frame of a clip by itself.
        input_size: side in pixels that patches are resized to for the network.
        mean: of the three channels, red first, for normalisation; 0 to 1.
        std: of the three channels.
        batch_size: patches at a time, about.
        device: where the model computes.
        dtype: precision of autocast; None for full precision.
    """

    def __init__(
        self,
        model: BoundaryRefiner,
        rule: PatchRule | None = None,
        *,
        num_frames: int = 1,
        input_size: int = 128,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        batch_size: int = 64,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ):
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.rule = PatchRule() if rule is None else rule
        self.num_frames, self.size = num_frames, (input_size, input_size)
        self.mean, self.std, self.batch_size, self.dtype = mean, std, batch_size, dtype

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        *,
        cfg: str | Path | None = None,
        overrides: Sequence[str] = (),
    ) -> MaskRefiner:
        """The refiner of a checkpoint.

        Args:
            checkpoint: a file, or the folder of a run.
            cfg: a YAML file; None for the configuration inside the checkpoint. An official file
                needs one, such as ``configs/COCO/BPR_HRNet_W18s.yaml``.
            overrides: ``KEY VALUE`` pairs on top of it.

        Raises:
            ConfigError: the configuration is none of boundary refinement.
            CheckpointError: the weights cannot be used.
        """
        content, config, origin = read_pretrained(checkpoint, cfg, overrides)
        if BoundaryRefinement.name != config.MODEL.TASK:
            raise ConfigError(
                f"{origin}: MODEL.TASK is {config.MODEL.TASK!r}, expected "
                f"{BoundaryRefinement.name!r} to refine masks"
            )
        model = load_trained_model(content, config, origin=origin).model
        assert isinstance(model, BoundaryRefiner)
        device = select_device(config.DEVICE)
        return cls(
            model,
            patch_rule(config),
            num_frames=config.DATA.NUM_FRAMES,
            input_size=config.DATA.TEST_CROP_SIZE,
            mean=config.DATA.MEAN,
            std=config.DATA.STD,
            batch_size=config.TEST.BATCH_SIZE,
            device=device,
            dtype=autocast_dtype(config, device),
        )

    def __call__(self, frames: Tensor, masks: Tensor) -> Tensor:
        """Refine the masks of objects in an image or a clip.

        Args:
            frames: uint8 (H, W, 3) of an image or (T, H, W, 3) of a clip, red first.
            masks: (N, H, W) or (N, T, H, W); what is not zero belongs to the object.

        Returns:
            bool, of the shape of the masks. A frame without the object stays without it.

        Raises:
            ConfigError: frames and masks do not belong together.
        """
        _check(frames, masks)
        if not len(masks):
            return torch.zeros(masks.shape, dtype=torch.bool)
        clip = frames if frames.dim() == 4 else frames[None]
        tracks = masks.reshape(len(masks), len(clip), *clip.shape[1:3])
        found = list(self.stream((clip, track) for track in tracks))
        return torch.stack(found).reshape(masks.shape)

    @torch.no_grad()
    def stream(self, objects: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
        """Refine objects of any number of images and clips one after another.

        Args:
            objects: frames uint8 (T, H, W, 3), and the masks of one object in them, (T, H, W).

        Yields:
            The refined masks of each object, bool (T, H, W).
        """
        waiting: deque[_Object] = deque()
        queue: deque[_Job] = deque()
        for frames, masks in objects:
            one = _Object(masks != 0, Reassembly(masks, self.rule))
            waiting.append(one)
            queue.extend(self._jobs(one, frames.movedim(-1, 0)))
            while sum(len(job.corners) for job in queue) >= self.batch_size:
                self._run(queue)
            while waiting and not waiting[0].jobs:
                yield waiting.popleft().refined()
        while queue:
            self._run(queue)
        for one in waiting:
            yield one.refined()

    def _jobs(self, one: _Object, clip: Tensor) -> Iterator[_Job]:
        """The patches of an object in a clip (3, T, H, W), in parts of not more than a batch."""
        for window in windows_of(len(one.masks), self.num_frames):
            masks = one.masks[window]
            if not masks.any():
                continue
            corners = find_patches(masks, self.rule).corners
            for part in corners.split(self.batch_size):
                if len(part):
                    one.jobs += 1
                    yield _Job(one, clip, window, part)

    def _run(self, queue: deque[_Job]) -> None:
        """Take the first parts off the queue, up to a batch, and refine their patches."""
        jobs = [queue.popleft()]
        count = len(jobs[0].corners)
        while queue and count + len(queue[0].corners) <= self.batch_size:
            jobs.append(queue.popleft())
            count += len(jobs[-1].corners)
        pairs = [job.cut(self.rule) for job in jobs]
        colours, masks = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        found = self.probabilities(colours, masks).split([len(job.corners) for job in jobs])
        for job, patches in zip(jobs, found, strict=True):
            job.object.reassembly.add(job.corners, patches, job.window)
            job.object.jobs -= 1

    def probabilities(self, colours: Tensor, masks: Tensor) -> Tensor:
        """How likely the pixels of patches belong to their objects.

        Args:
            colours: uint8 (N, 3, T, side, side), red first.
            masks: bool (N, T, side, side).

        Returns:
            float32 (N, T, side, side), on the CPU.
        """
        side: Size = (masks.shape[-2], masks.shape[-1])
        clips = normalize(resize_bytes(colours.to(self.device), self.size), self.mean, self.std)
        signs = resize_space(masks[:, None].to(self.device).float(), self.size, "nearest")[:, 0]
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            logits = self.model(with_masks(clips, signs))
        logits = resize_space(logits.float(), side, align_corners=self.model.align_corners)
        return logits.softmax(dim=1)[:, 1].cpu()


@dataclass
class _Object:
    """An object under way.

    Attributes:
        masks: bool (T, H, W) before.
        reassembly: of its patches.
        jobs: parts of its patches that the network has not seen.
    """

    masks: Tensor
    reassembly: Reassembly
    jobs: int = 0

    def refined(self) -> Tensor:
        """Its masks, bool (T, H, W); in a frame without it there is still nothing."""
        seen = self.masks.flatten(1).any(dim=1)
        return self.reassembly.refined() & seen[:, None, None]


@dataclass(frozen=True)
class _Job:
    """Patches of one object in some frames of its clip."""

    object: _Object
    clip: Tensor  # (3, T, H, W)
    window: list[int]
    corners: Tensor

    def cut(self, rule: PatchRule) -> tuple[Tensor, Tensor]:
        """Colours (N, 3, t, side, side) and masks (N, t, side, side)."""
        colours = cut_patches(self.clip[:, self.window], self.corners, rule)
        return colours, cut_patches(self.object.masks[self.window], self.corners, rule)


def windows_of(length: int, frames: int) -> list[list[int]]:
    """Places of consecutive frames that cover a clip; the last ones end with it.

    A clip that is too short repeats its last frame.
    """
    if length <= frames:
        return [[min(k, length - 1) for k in range(frames)]]
    starts = [*range(0, length - frames, frames), length - frames]
    return [list(range(start, start + frames)) for start in starts]


def _check(frames: Tensor, masks: Tensor) -> None:
    """Refuse frames and masks that do not belong together."""
    if frames.dtype != torch.uint8 or frames.dim() not in (3, 4) or frames.shape[-1] != 3:
        raise ConfigError(
            f"frames are {frames.dtype} of shape {tuple(frames.shape)}, expected torch.uint8 of "
            "(H, W, 3) or (T, H, W, 3)"
        )
    if masks.shape[1:] != frames.shape[:-1]:
        wanted = ", ".join(map(str, frames.shape[:-1]))
        raise ConfigError(
            f"masks are of shape {tuple(masks.shape)}, expected (N, {wanted}), as the frames are"
        )
