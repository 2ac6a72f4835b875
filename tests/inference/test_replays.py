"""A predictor that replays what repeats says what another one says."""

import numpy as np
import torch

from tests.ops.test_replay import StandIn
from videonet.inference.explain import grad_cam
from videonet.ops.kernels.replay import Replays


def test_windows_of_a_stream_are_replayed(colour_predictor):
    plain, replaying = colour_predictor(), colour_predictor()
    assert plain.replays is None, "there are no CUDA graphs on the CPU"
    stand_in = StandIn()
    replaying.replays = Replays(stand_in)
    frames = np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), dtype=np.uint8)
    expected = list(plain.stream(frames, fps=10))
    found = list(replaying.stream(frames, fps=10))
    assert len(found) == len(expected) > 3
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.embedding, other.embedding)
    assert len(stand_in.recorded) == 1 and len(stand_in.replayed) == len(found) - 1
    clips = torch.randint(256, (2, 3, 4, 16, 16), dtype=torch.uint8)
    for _ in range(3):
        assert torch.equal(replaying.frame_embeddings(clips), plain.frame_embeddings(clips))
    assert torch.equal(grad_cam(replaying, clips, 0), grad_cam(plain, clips, 0))
    assert len(stand_in.recorded) == 2
