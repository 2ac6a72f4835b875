"""Where a model looks in a clip, as pictures."""

from __future__ import annotations

import numpy as np
import torch

from videonet.inference.explain import grad_cam
from videonet.inference.predictor import Predictor
from videonet.serving.decoding import Clip
from videonet.serving.pictures import jpeg_address
from videonet.serving.schemas import Explanation, HeatFrame

SHOWN = 8  # frames of a clip


def explain_clip(predictor: Predictor, model: str, clip: Clip, label: str) -> Explanation:
    """Frames of a clip, and the same under the activation map of a label.

    Args:
        predictor: of the model.
        model: its name.
        clip: the first of its crops is explained.
        label: name of a class; empty for the one with the highest score.
    """
    from videonet.inference.rendering import blend_heat  # imports matplotlib

    pixels = torch.from_numpy(clip.pixels[:1])  # (1, 3, T, S, S)
    with predictor.lock:
        scores = predictor.task.join_views(predictor.run(pixels)[0])
        number = predictor.class_names.index(label) if label else int(scores.argmax())
        heat = grad_cam(predictor, pixels, number)[0].numpy()  # (T, S, S)
    frames = pixels[0].permute(1, 2, 3, 0).numpy()  # (T, S, S, 3)
    blended = blend_heat(frames, heat)
    count = len(frames)
    times = np.linspace(clip.start, clip.end, count, endpoint=False)
    shown = np.linspace(0, count - 1, min(count, SHOWN)).round().astype(int)
    return Explanation(
        model=model,
        label=predictor.class_names[number],
        score=float(scores[number]),
        start=clip.start,
        end=clip.end,
        frames=[
            HeatFrame(
                time=round(float(times[index]), 4),
                picture=jpeg_address(frames[index]),
                heat=jpeg_address(blended[index]),
            )
            for index in shown.tolist()
        ],
    )
