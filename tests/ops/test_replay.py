"""Which calls of a model are recorded, replayed and left alone; and that a replay is the call."""

import logging

import pytest
import torch
from torch import nn

import videonet
from tests.models.test_devices import SMALL
from videonet.devices import apply_to_clips, replays_for
from videonet.ops.attention_maps import RecordAttention
from videonet.ops.kernels.replay import CudaGraphs, Replays, fingerprint_of

CLIPS = torch.arange(2 * 3 * 2 * 4 * 4, dtype=torch.uint8).view(2, 3, 2, 4, 4)


class StandIn:
    """A recorder without a GPU: it notes what is recorded and replayed, and may fail."""

    def __init__(self, error="", wrong=0.0):
        self.error, self.wrong = error, wrong
        self.recorded, self.replayed = [], []

    def __call__(self, run, clips):
        if self.error:
            raise RuntimeError(self.error + "\nand more")
        self.recorded.append(tuple(clips.shape))

        def recording(clips):
            self.replayed.append(tuple(clips.shape))
            return tuple(out + self.wrong for out in run(clips))

        return recording


def bench(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(96, 5), nn.BatchNorm1d(5)).eval()
    stand_in = StandIn(**options)
    return model, stand_in, Replays(stand_in)


@torch.inference_mode()
def call(replays, model, clips=CLIPS, name="f"):
    def run(clips):
        return (model(clips.float() / 255),)

    (found,) = replays(run, model, clips, name)
    assert torch.allclose(found, run(clips)[0])
    return found


def test_a_shape_is_recorded_when_it_comes_again_and_replayed_from_then_on():
    model, stand_in, replays = bench()
    call(replays, model)
    assert not stand_in.recorded
    call(replays, model)
    assert stand_in.recorded == [(2, 3, 2, 4, 4)] and len(stand_in.replayed) == 1  # the check
    call(replays, model)
    call(replays, model, CLIPS.flip(0))
    assert len(stand_in.recorded) == 1 and len(stand_in.replayed) == 3
    call(replays, model, CLIPS[:1])
    call(replays, model, name="another function")
    assert len(stand_in.recorded) == 1 and len(replays) == 1


def test_few_shapes_are_kept_those_used_last():
    model, stand_in, replays = bench()
    clips = torch.zeros(9, 3, 2, 4, 4, dtype=torch.uint8)
    for count in (1, 2, 3, 4, 1, 5):
        for _ in range(2):
            call(replays, model, clips[:count])
    assert len(replays) == 4
    recorded = len(stand_in.recorded)
    for count in (1, 3, 4, 5):
        call(replays, model, clips[:count])
    assert len(stand_in.recorded) == recorded
    call(replays, model, clips[:2])
    assert len(stand_in.recorded) == recorded + 1 and len(replays) == 4
    for side in range(100):
        call(replays, model, clips[: 1 + side % 9], name=side)
    assert len(replays._seen) <= 64


def test_weights_may_change_in_place_and_are_recorded_anew_in_another_place():
    model, stand_in, replays = bench()
    for _ in range(3):
        call(replays, model)
    before = call(replays, model)
    model.load_state_dict({n: v + 1 if v.dim() else v for n, v in model.state_dict().items()})
    assert not torch.allclose(call(replays, model), before)
    assert len(stand_in.recorded) == 1
    model[1] = nn.Linear(96, 5)
    for _ in range(3):
        call(replays, model)
    assert len(stand_in.recorded) == 2 and len(replays) == 1
    model[1].weight.data = torch.randn(5, 96)
    for _ in range(3):
        call(replays, model)
    assert len(stand_in.recorded) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.double(),
        lambda m: m.train(),
        lambda m: m.append(nn.ReLU()),
        lambda m: setattr(m[2], "running_mean", torch.ones(5)),
        lambda m: setattr(m[1], "forward", lambda x: x[:, :5]),
    ],
)
def test_a_changed_model_has_another_fingerprint(change):
    model = bench()[0]
    before = fingerprint_of(model)
    assert before == fingerprint_of(model)
    change(model)
    assert fingerprint_of(model) != before


def test_hooks_traced_operators_and_gradients_are_left_alone():
    model, stand_in, replays = bench()
    for _ in range(2):
        call(replays, model)
    seen = []
    with model[1].register_forward_hook(lambda *_: seen.append(1)):
        call(replays, model)
        assert fingerprint_of(model) is None
    with RecordAttention():
        call(replays, model)
    replays(lambda clips: (model(clips.float()),), model, CLIPS, "f")  # outside of inference mode
    assert len(seen) == 2 and len(stand_in.replayed) == 1
    call(replays, model)
    assert len(stand_in.replayed) == 2
    model.compile(backend="eager")
    assert fingerprint_of(model) is None


@pytest.mark.parametrize(
    "options, said",
    [({"error": "operation not permitted when stream is capturing"}, "not permitted"),
     ({"wrong": 0.1}, "the first replay differs")],
)  # fmt: skip
def test_what_cannot_be_recorded_is_said_once(options, said, caplog):
    model, stand_in, replays = bench(**options)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            call(replays, model)
            call(replays, model, CLIPS[:1])
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("CUDA graphs are left out") and said in line and "\n" not in line
    assert len(replays) == 0 and len(stand_in.replayed) <= 1


def test_other_errors_are_not_swallowed():
    model, _, replays = bench()
    with torch.inference_mode(), pytest.raises(ZeroDivisionError):
        replays(lambda clips: 1 / 0, model, CLIPS, "f")


PLAIN = {"mean": [0.4] * 3, "std": [0.2] * 3, "device": torch.device("cpu"), "max_clips": 2}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_clips_are_applied_alike_with_and_without(dtype):
    torch.manual_seed(0)
    model = videonet.create_model("vit_xs", num_classes=5, num_frames=4, crop_size=32).eval()
    clips = torch.randint(256, (5, 3, 4, 32, 32), dtype=torch.uint8)
    stand_in = StandIn()
    replays = Replays(stand_in)
    (expected,) = apply_to_clips(model, clips, dtype=dtype, **PLAIN)
    for _ in range(3):
        (found,) = apply_to_clips(model, clips, dtype=dtype, replays=replays, model=model, **PLAIN)
        assert torch.equal(found, expected)
    assert stand_in.recorded == [(2, 3, 4, 32, 32), (1, 3, 4, 32, 32)]


@pytest.fixture
def on_the_gpu(device):
    if device.type != "cuda":
        pytest.skip("CUDA graphs need CUDA")
    return device


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SMALL)
def test_graphs_give_what_the_model_gives(name, dtype, on_the_gpu, caplog):
    torch.manual_seed(0)
    model = videonet.create_model(name, num_classes=5).eval().to(on_the_gpu)
    options = PLAIN | {"device": on_the_gpu, "dtype": dtype}
    replays = Replays(CudaGraphs(on_the_gpu))
    clips = torch.randint(256, (5, 3, 8, 48, 48), dtype=torch.uint8)
    for round_ in range(5):
        if round_ == 3:  # in place, which a graph has to see
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1.1)
        mixed = clips.roll(round_, 0)
        (expected,) = apply_to_clips(model, mixed, **options)
        (found,) = apply_to_clips(model, mixed, replays=replays, model=model, **options)
        scale = expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0, atol=scale * (1e-2 if dtype else 1e-4))
    assert len(replays) == 2 and not replays.off, caplog.text


@pytest.mark.cuda
def test_more_shapes_than_are_kept(on_the_gpu):
    model = videonet.create_model("mvit_v2_xs", num_classes=5).eval().to(on_the_gpu)
    replays = Replays(CudaGraphs(on_the_gpu), shapes=2)
    options = PLAIN | {"device": on_the_gpu, "max_clips": 8}
    for count in (1, 1, 2, 2, 3, 3, 1, 1, 1, 4, 4, 4, 2, 2):
        clips = torch.randint(256, (count, 3, 8, 48, 48), dtype=torch.uint8)
        (expected,) = apply_to_clips(model, clips, **options)
        (found,) = apply_to_clips(model, clips, replays=replays, model=model, **options)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert len(replays) <= 2 and not replays.off


def test_there_are_none_on_the_cpu(monkeypatch):
    class Cfg:
        class TEST:
            CUDA_GRAPHS = True

    assert replays_for(Cfg, torch.device("cpu")) is None
    assert isinstance(replays_for(Cfg, torch.device("cuda")), Replays)
    Cfg.TEST.CUDA_GRAPHS = False
    assert replays_for(Cfg, torch.device("cuda")) is None
