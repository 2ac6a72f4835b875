import torch

from videonet.data.transforms.batch import normalize


def test_normalize():
    clips = torch.randint(256, (2, 3, 4, 5, 6)).to(torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)
    expected = torch.stack(
        [(clips[:, c].float() / 255 - mean[c]) / std[c] for c in range(3)], dim=1
    )
    assert torch.allclose(normalize(clips, mean, std), expected, atol=1e-5)
    assert normalize(clips, mean, std, torch.bfloat16).dtype == torch.bfloat16
