"""What there is to start from: the machine, weights on it, and how fast a model trains here."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from fvcore.common.config import CfgNode

from videonet.checkpoint.checkpoint_dir import newest_checkpoint
from videonet.config import load_config_text
from videonet.config.arguments import model_arguments
from videonet.devices import autocast_dtype, select_device
from videonet.engine.finetune import freeze, train_mode
from videonet.errors import CheckpointError, ConfigError
from videonet.finetuning.choices import Machine, StartingWeights
from videonet.inference.pretrained import config_of, read_pretrained, saved_config
from videonet.models import create_model, list_models
from videonet.models.base import VideoModel
from videonet.models.weights import PERMISSIVE, Weights, cached_weights, get_weights, is_name

MEASURED = 1.0  # seconds that steps are measured for, at least
CLIPS = 2  # of a measured step


def this_machine(device: str) -> Machine:
    """The device that ``DEVICE`` names, and the cores that this process may use.

    Raises:
        ConfigError: torch finds no such device.
    """
    chosen = select_device(device)
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    if chosen.type != "cuda":
        return Machine(chosen.type, cores=cores)
    facts = torch.cuda.get_device_properties(chosen)
    return Machine("cuda", facts.name, facts.total_memory / 2**30, cores)


def find_weights(asked: str) -> list[StartingWeights]:
    """The weights that a training may start from.

    Args:
        asked: a name, a run, a saved model or a checkpoint; "none" for no weights; empty for those
            in the cache whose licence allows everything.

    Raises:
        ConfigError, CheckpointError: what is asked for cannot be used.
    """
    if asked == "none":
        return []
    if not asked:
        models = set(list_models())
        return [
            _published(weights, given=False)
            for weights in cached_weights()
            if weights.model in models and weights.licence in PERMISSIVE
        ]
    if is_name(asked):
        return [_published(get_weights(asked), given=True)]
    return [_own(asked)]


def _published(weights: Weights, *, given: bool) -> StartingWeights:
    config = config_of(weights)
    arguments = weights.arguments
    if weights.num_frames == 1:  # of images, which go into a model for clips
        arguments = {**arguments, **weights.clip_arguments}
    own = {k: v for k, v in arguments.items() if k not in ("num_frames", "crop_size")}
    model = {"NAME": weights.model, "ARGUMENTS": own}
    data = {key: config["DATA"][key] for key in ("MEAN", "STD")}
    test = {key: config["TEST"][key] for key in ("CROP_RATIO", "INTERPOLATION")}
    return StartingWeights(
        weights.name,
        weights.model,
        weights.num_frames,
        weights.size,
        weights.stride,
        weights.target_fps,
        weights.sampling,
        weights.trained_on,
        {"MODEL": model, "DATA": data, "TEST": test},
        given,
    )


def _own(source: str) -> StartingWeights:
    """A run, a folder or a checkpoint, with the configuration that is in it."""
    if not Path(source).exists() and "://" not in source and ":" not in source:
        raise CheckpointError(
            f"--weights {source}: there is no such file or folder, and videonet weights lists no "
            "such name"
        )
    try:
        content, cfg, _ = read_pretrained(source, None, [])
    except ConfigError as error:
        raise ConfigError(
            f"{error}; a checkpoint without one can be given to videonet run, where its model is "
            "described by MODEL.NAME and MODEL.ARGUMENTS"
        ) from None
    del content
    groups = saved_config(cfg, 0)
    config = {
        "MODEL": {k: groups["MODEL"][k] for k in ("NAME", "MODEL_NAME", "ARGUMENTS")},
        "MVIT": groups["MVIT"],
        "DATA": {k: groups["DATA"][k] for k in ("MEAN", "STD")},
        "TEST": {k: groups["TEST"][k] for k in ("CROP_RATIO", "INTERPOLATION")},
    }
    data = cfg.DATA
    return StartingWeights(
        os.path.abspath(newest_checkpoint(source)) if Path(source).exists() else source,
        model_arguments(cfg)[0],
        data.NUM_FRAMES,
        data.TRAIN_CROP_SIZE,
        data.SAMPLING_RATE,
        float(data.TARGET_FPS),
        data.SAMPLING if data.SAMPLING != "auto" else "dense",
        f"what {Path(source).name} was trained on",
        config,
        given=True,
    )


def config_from(groups: Mapping[str, Any], overrides: Sequence[str]) -> CfgNode:
    """A complete configuration of groups of keys, changed by ``KEY VALUE`` pairs.

    Raises:
        ConfigError: a key or a value cannot be used.
    """
    text = yaml.safe_dump(dict(groups), allow_unicode=True)
    return load_config_text(text, overrides, name="the chosen configuration")


def seconds_per_clip(cfg: CfgNode, num_classes: int) -> float:
    """How long a training clip takes here, measured with random clips.

    Args:
        cfg: a complete configuration.
        num_classes: outputs of the model.
    """
    device = select_device(cfg.DEVICE)
    name, arguments = model_arguments(cfg)
    model = create_model(name, **arguments | {"num_classes": num_classes}).to(device)
    if not isinstance(model, VideoModel):
        raise ConfigError(f"{name} is no model for videos")
    if cfg.MODEL.FROZEN_LAYERS:
        freeze(model, cfg.MODEL.FROZEN_LAYERS)
    train_mode(model)
    data, dtype = cfg.DATA, autocast_dtype(cfg, device)
    shape = (CLIPS, 3, data.NUM_FRAMES, data.TRAIN_CROP_SIZE, data.TRAIN_CROP_SIZE)
    clips = torch.randn(shape, device=device)

    def step() -> None:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            outputs = model(clips)
        outputs.float().square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    step()  # the first one prepares
    start, steps = time.perf_counter(), 0
    while not steps or (time.perf_counter() - start < MEASURED and steps < 50):
        step()
        steps += 1
    return (time.perf_counter() - start) / steps / CLIPS
