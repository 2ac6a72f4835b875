"""V-JEPA 2 (arXiv 2506.09985): a vision transformer with rotary positions in time and space.

The encoder has no learned positions and no class token, so clips of any size and length run. Its
published classifiers are an attentive probe on the frozen encoder (videonet/heads/attentive.py).
Reads top to bottom: the network, the published sizes. Parameter names are those of the official
implementation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.heads.attentive import NORM_EPS, AttentivePooler
from videonet.models.base import VideoModel, refuse_class_token
from videonet.models.initial import drop_path_rates
from videonet.models.patch_tokens import token_numbers
from videonet.models.stages import ModuleListOf, RunBlock, StageInfo, StageOutput
from videonet.models.variants import published
from videonet.ops.grid import Grid
from videonet.ops.linear import init_linear
from videonet.ops.patch_embed import PatchEmbed
from videonet.ops.rotary import Rotation, channels_per_axis, rotation_of
from videonet.ops.transformer_block import TransformerBlock, scale_down

POOLINGS = ("attentive", "avg")


class VJEPA2(VideoModel):
    """V-JEPA 2's encoder, and what reads its tokens, for clips and, with one frame, for images.

    Args:
        num_classes, in_channels: of the task and of the clip.
        num_frames: 1 builds the image model, with patches of one frame; nothing else depends on it.
        crop_size: pixels; nothing depends on it.
        patch_size: height and width of a patch in pixels; tubelet_frames: its frames, None for 1
            in images and 2 in clips. The last frame of a shorter clip is repeated.
        depth, embed_dim, num_heads, mlp_ratio, qkv_bias, norm_eps: of the encoder.
        rotate_time: rotary positions in time as well as in space. Without them the order of the
            frames has no effect, and a still clip gives what its image gives.
        pooling: what the head reads: an "attentive" pooler, or the "avg" of the tokens, which has
            no parameters.
        pooler_blocks: transformer blocks before the pooler's query reads the tokens.
        pooler_heads: of the pooler (transformers has those of the encoder); pooler_norm_eps: of its
            norms (1e-6 in transformers).
        cls_token: there is none, so True is an error.
        head_dropout: before the classifier; drop_path_rate: of the encoder's last block, rising
            linearly from 0.
        centre_clips: the mean colour of a clip is taken away first, see VideoModel.as_clip.

    Raises:
        ConfigError: there is no such pooling, or heads do not fit a width.
    """

    works_on_parts = True
    undecayed = ("query_tokens",)
    top_names = ("norm", "pooler", "head")

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 64,
        crop_size: int | tuple[int, int] = 256,
        in_channels: int = 3,
        *,
        patch_size: int | tuple[int, int] = 16,
        tubelet_frames: int | None = None,
        depth: int = 24,
        embed_dim: int = 1024,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        rotate_time: bool = True,
        pooling: str = "attentive",
        pooler_blocks: int = 3,
        pooler_heads: int = 16,
        pooler_norm_eps: float = NORM_EPS,
        cls_token: bool | None = None,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        centre_clips: bool = False,
    ):
        super().__init__(centre_clips)
        refuse_class_token(self, cls_token)
        if pooling not in POOLINGS:
            raise ConfigError(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}")
        if tubelet_frames is None:
            tubelet_frames = 1 if num_frames == 1 else 2
        height, width = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
        self.patch = (tubelet_frames, height, width)
        self.rotate_time = rotate_time and num_frames > 1
        self.patch_embed = PatchEmbed(in_channels, embed_dim, self.patch, self.patch, (0, 0, 0))
        self.blocks: ModuleListOf[TransformerBlock] = ModuleListOf(
            TransformerBlock(
                embed_dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                norm_eps=norm_eps,
                drop_path=rate,
            )
            for rate in drop_path_rates(drop_path_rate, depth)
        )
        self.head_dim = embed_dim // num_heads
        if not channels_per_axis(self.head_dim):
            raise ConfigError(
                f"a head has {self.head_dim} channels, but rotary positions in time, height and "
                "width need 6 or more"
            )
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.apply(init_linear)
        for number, block in enumerate(self.blocks, start=1):
            scale_down(block.last_weights(), number)
        self.pooler = None
        if pooling == "attentive":
            self.pooler = AttentivePooler(
                embed_dim, pooler_heads, num_blocks=pooler_blocks, norm_eps=pooler_norm_eps
            )
        # There are no stages: feature maps are taken after every quarter of the blocks.
        self.stage_ends = sorted({(depth * quarter + 3) // 4 - 1 for quarter in (1, 2, 3, 4)})
        self.feature_info = (StageInfo(embed_dim, self.patch),) * len(self.stage_ends)
        self.num_features, self.head_dropout = embed_dim, head_dropout
        self.reset_classifier(num_classes)

    def embed(self, clip: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Grid, Rotation]:
        """Patches and their positions: a clip -> tokens (B, T*H*W, C), the grid, the rotation.

        Args:
            keep: see :meth:`forward_features`; the tokens are then (B, K, C).

        Raises:
            ConfigError: a frame is smaller than a patch, or `keep` does not fit the grid.
        """
        clip = self.as_clip(clip, self.patch[1:])
        if (missing := self.patch[0] - clip.shape[2]) > 0:
            clip = torch.cat((clip, clip[:, :, -1:].expand(-1, -1, missing, -1, -1)), dim=2)
        x, grid = self.patch_embed(clip)
        if keep is not None:
            keep = token_numbers(keep, *x.shape[:2]).to(x.device)
            x = x.gather(1, keep.unsqueeze(2).expand(-1, -1, x.shape[2]))
        rotation = rotation_of(
            grid, self.head_dim, rotate_time=self.rotate_time, device=x.device, keep=keep
        )
        return x, grid, rotation

    def run_stages(
        self, clip: Tensor, run: RunBlock, keep: Tensor | None = None
    ) -> Iterator[StageOutput]:
        """The tokens (B, N, C) after each quarter of the blocks."""
        x, grid, rotation = self.embed(clip, keep)
        for i, block in enumerate(self.blocks):
            x = run(block, x, grid, rotation)
            if i in self.stage_ends:
                yield StageOutput(x, grid)

    def pool_features(self, features: Tensor) -> Tensor:
        """Tokens (B, N, C) of one clip, or of several in a row, -> what the head reads (B, C)."""
        if self.pooler is None:
            return features.mean(dim=1)
        return self.pooler(features).mean(dim=1)


VARIANTS: dict[str, dict[str, Any]] = {  # the official repository's
    "vjepa2_xs": {  # videonet's own, for CPUs
        "embed_dim": 72,
        "depth": 4,
        "num_heads": 3,
        "patch_size": 6,
        "pooler_blocks": 1,
        "pooler_heads": 3,
        "num_frames": 8,
        "crop_size": 48,
    },
    "vjepa2_l": {},
    "vjepa2_h": {"depth": 32, "embed_dim": 1280},
    "vjepa2_g": {"depth": 40, "embed_dim": 1408, "num_heads": 22, "mlp_ratio": 48 / 11},
    "vjepa2_g_384": {
        "depth": 40,
        "embed_dim": 1408,
        "num_heads": 22,
        "mlp_ratio": 48 / 11,
        "crop_size": 384,
    },
}
MODELS = published(VJEPA2, VARIANTS)
