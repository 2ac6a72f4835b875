"""What is remembered per shape never leaks into graphs, fake tensors or training."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from videonet.ops.attention import key_columns
from videonet.ops.tracing import once_per_shape, watched

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
    assert not watched()
    with FakeTensorMode():
        assert watched()
        fake = ones(6, CPU)
    assert type(fake) is not torch.Tensor
    assert type(ones(6, CPU)) is torch.Tensor
    with FakeTensorMode():
        assert type(ones(6, CPU)) is not torch.Tensor
