import pytest
import torch

from videonet.data.transforms.batch import _shift_and_scale, normalize


def test_normalize():
    clips = torch.randint(256, (2, 3, 4, 5, 6)).to(torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)
    expected = torch.stack(
        [(clips[:, c].float() / 255 - mean[c]) / std[c] for c in range(3)], dim=1
    )
    assert torch.allclose(normalize(clips, mean, std), expected, atol=1e-5)
    assert normalize(clips, mean, std, torch.bfloat16).dtype == torch.bfloat16


def test_conversion_and_sum_in_one_pass_give_the_same_bits():
    """What a GPU does, by the same operator on the CPU."""
    clips = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 16, 16).expand(1, 3, 2, 16, 16)
    shift, scale = _shift_and_scale((0.45, 0.5, 0.4), (0.225, 0.2, 0.3), clips.device)
    assert torch.equal(
        torch.addcmul(shift, clips, scale), torch.addcmul(shift, clips.float(), scale)
    )


@pytest.mark.cuda
def test_a_device_normalises_as_the_cpu(device):
    clips = torch.randint(256, (2, 3, 4, 8, 8), dtype=torch.uint8)
    there = normalize(clips.to(device), (0.45,) * 3, (0.225,) * 3).cpu()
    torch.testing.assert_close(there, normalize(clips, (0.45,) * 3, (0.225,) * 3))
