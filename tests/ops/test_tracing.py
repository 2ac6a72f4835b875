"""What is remembered per shape never leaks into graphs, fake tensors or training."""

import copy

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from videonet.models import create_model
from videonet.ops.attention import key_columns
from videonet.ops.tracing import is_traced, once_per_shape

CPU = torch.device("cpu")


@once_per_shape
def ones(count: int, device: torch.device) -> torch.Tensor:
    return torch.ones(count, device=device)


def test_the_same_sizes_share_one_tensor():
    assert ones(3, CPU) is ones(3, CPU)
    assert ones(3, CPU) is not ones(4, CPU)
    assert ones(3, torch.device("meta")).is_meta
    columns = key_columns((1, 2, 2), 1, torch.float32, CPU)
    assert columns is key_columns((1, 2, 2), 1, torch.float32, CPU)


def test_first_use_in_inference_leaves_it_fit_for_training():
    with torch.inference_mode():
        remembered = ones(5, CPU)
    x = torch.zeros(5, requires_grad=True)
    (x * remembered).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones(5))


def test_fake_tensors_are_not_remembered():
    assert not is_traced()
    with FakeTensorMode():
        assert is_traced()
        fake = ones(6, CPU)
    assert type(fake) is not torch.Tensor
    assert type(ones(6, CPU)) is torch.Tensor
    with FakeTensorMode():
        assert type(ones(6, CPU)) is not torch.Tensor


def test_transforms_of_torch_func_see_plain_operators():
    model = create_model("mvit_v2_xs", num_classes=3, num_frames=4, crop_size=32).eval()
    clips = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    parameters = dict(model.named_parameters())

    def score(weights, clip):
        return torch.func.functional_call(model, weights, (clip[None],))[0, 0]

    with sdpa_kernel(SDPBackend.MATH):  # torch's fused attention knows neither vmap nor jvp
        per_clip = torch.func.vmap(torch.func.grad(score), (None, 0))(parameters, clips)
        _, slope = torch.func.jvp(model, (clips,), (torch.ones_like(clips),))
    for i, clip in enumerate(clips):
        expected = torch.autograd.grad(model(clip[None])[0, 0], list(parameters.values()))
        for found, gradient in zip(per_clip.values(), expected, strict=True):
            torch.testing.assert_close(found[i], gradient, rtol=1e-4, atol=1e-5)
    exact, clips = copy.deepcopy(model).double(), clips.double()
    with torch.no_grad():
        step = (exact(clips + 1e-4) - exact(clips - 1e-4)) / 2e-4
    torch.testing.assert_close(slope.double(), step, rtol=1e-3, atol=1e-4)
