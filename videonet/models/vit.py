"""Vision transformer: ViT (arXiv 2010.11929) and its line, for images and clips.

A clip is cut into tubelets (ViViT, arXiv 2103.15691, Sec. 3.2). Attention is joint over space and
time (ViViT's model 1, VideoMAE, MAE, DINOv2, …), divided: over time, then over space
(TimeSformer), or over the space of each frame alone. The blocks are in vit_blocks.py, patches and
positions in patch_tokens.py. Parameter names are those of timm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.models.initial import drop_path_rates, linear_initializer
from videonet.models.patch_tokens import PatchTokens
from videonet.models.stages import RunBlock, StageInfo, StageOutput
from videonet.models.variants import published
from videonet.models.vit_blocks import BLOCKS
from videonet.ops.grid import Grid
from videonet.ops.grid_attention import GridOptions

Arguments = dict[str, Any]
POOLINGS = ("token", "avg", "max", "avgmax", "first", "token_avg")
OF_ALL_TOKENS = ("token", "first", "token_avg")  # by default the last norm is before these


class ViT(PatchTokens):
    """Vision transformer for clips and, with one frame, for images.

    Args:
        num_classes: 0 for no classifier; num_frames, crop_size, in_channels: of the clips.
        depth, embed_dim, num_heads, mlp_ratio, qkv_bias, activation, norm_eps: of the transformer;
            mlp_ratio is that of the MLP's first linear layer, which "swiglu" halves.
        key_bias, cos_attn, cls_key_log_frames: see SelfAttention. proj_bias: of the linear layers
            behind attention and in the MLP; qk_norm: layer norm of queries and keys;
            scale_attn_norm, scale_mlp_norm: layer norm before the last linear layer of the
            attention and of the MLP; layer_scale: its initial factor, None for none.
        space_time: "joint" attention, "divided" (TimeSformer) or "space", within every frame.
        window_size: (t, h, w) cells that attend to each other in most blocks (ViTDet), without
            prefix tokens; None for global attention in all blocks. global_blocks: blocks that
            attend globally; None for the last one of every quarter. padded_keys: see GridAttention.
        rel_pos_spatial, rel_pos_temporal, rel_pos_zero_init: decomposed relative positions, see
            GridAttention; the tables of global blocks are made for crop_size.
        pooling: what the head reads: the class "token"; the "avg", "max" or "avgmax" (their mean)
            of the cells; the "first" cell; or the class token and the mean of the cells side by
            side, "token_avg" (DINOv2). None for "token" where there is one, else "avg".
        pool_include_prefix: prefix tokens are pooled with the cells.
        final_norm: a layer norm after the last block: of the pooled vector with fc_norm, else of
            all tokens; fc_norm is None for "of the vector where cells alone are pooled".
            last_norm_eps: its eps, None for norm_eps.
        representation_size: width of a linear layer with tanh before the head, None for none.
        dropout: in the transformer; head_dropout: before the classifier; drop_path_rate: of the
            last block, rising linearly from 0.
        linear_init: of linear layers: "normal" with deviation 0.02, or "xavier".
        **tokens: see :class:`videonet.models.patch_tokens.PatchTokens`.

    Raises:
        ConfigError: an option has no such value, or two contradict each other.
    """

    norm: nn.LayerNorm | None
    undecayed = ("cls_token", "reg_token", "pos_embed", "rel_pos_")
    top_names = ("norm", "fc_norm", "pre_logits", "head")

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 16,
        crop_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        *,
        depth: int = 12,
        embed_dim: int = 768,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        key_bias: bool = True,
        proj_bias: bool = True,
        qk_norm: bool = False,
        cos_attn: bool = False,
        scale_attn_norm: bool = False,
        scale_mlp_norm: bool = False,
        layer_scale: float | None = None,
        activation: str = "gelu",
        norm_eps: float = 1e-6,
        space_time: str = "joint",
        window_size: Grid | None = None,
        global_blocks: Sequence[int] | None = None,
        padded_keys: bool = False,
        rel_pos_spatial: bool = False,
        rel_pos_temporal: bool = False,
        rel_pos_zero_init: bool = True,
        cls_key_log_frames: bool = False,
        final_norm: bool = True,
        fc_norm: bool | None = None,
        last_norm_eps: float | None = None,
        pooling: str | None = None,
        pool_include_prefix: bool = False,
        representation_size: int | None = None,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        linear_init: str = "normal",
        **tokens: Any,
    ):
        if space_time not in BLOCKS:
            raise ConfigError(f"space_time is {space_time!r}, expected joint, divided or space")
        init = linear_initializer(linear_init)
        shared: dict[str, Any] = {"embed_dim": embed_dim, "norm_eps": norm_eps, "dropout": dropout}
        super().__init__(num_frames, crop_size, in_channels, **shared, **tokens)
        # A ViT has no stages: feature maps are taken after every quarter of the blocks.
        self.stage_ends = sorted({(depth * quarter + 3) // 4 - 1 for quarter in (1, 2, 3, 4)})
        on_grid = self._grid_options(
            depth,
            window_size,
            global_blocks,
            padded_keys,
            rel_pos_spatial,
            rel_pos_temporal,
            rel_pos_zero_init,
        )
        if any(on_grid) and space_time != "joint":
            raise ConfigError("windows and relative positions need space_time='joint'")
        self.works_on_parts = space_time == "joint" and not any(on_grid)
        self._choose_pooling(pooling, pool_include_prefix)
        self.still_clips_are_exact = cls_key_log_frames or space_time != "joint"
        self.blocks = nn.ModuleList(
            BLOCKS[space_time](
                embed_dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                num_prefix_tokens=self.num_prefix_tokens,
                layer_scale=layer_scale,
                activation=activation,
                qkv_bias=qkv_bias,
                key_bias=key_bias,
                proj_bias=proj_bias,
                qk_norm=qk_norm,
                cos_attn=cos_attn,
                out_norm=scale_attn_norm,
                mlp_norm=scale_mlp_norm,
                norm_eps=norm_eps,
                cls_key_log_frames=cls_key_log_frames,
                dropout=dropout,
                drop_path=rate,
                on_grid=options,
            )
            for rate, options in zip(drop_path_rates(drop_path_rate, depth), on_grid, strict=True)
        )
        self.feature_info = (StageInfo(embed_dim, self.patch),) * len(self.stage_ends)
        self._add_last_norm(
            final_norm, fc_norm, norm_eps if last_norm_eps is None else last_norm_eps
        )
        self.pre_logits = None
        if representation_size:
            self.pre_logits = nn.Linear(self.num_features, representation_size)
            self.num_features = representation_size
        self.head_dropout = head_dropout
        self.apply(init)
        self.reset_classifier(num_classes)

    def _grid_options(
        self,
        depth: int,
        window: Grid | None,
        global_blocks: Sequence[int] | None,
        padded_keys: bool,
        rel_pos_spatial: bool,
        rel_pos_temporal: bool,
        rel_pos_zero_init: bool,
    ) -> list[GridOptions | None]:
        """For each block how its attention works on the grid; None for all tokens alike."""
        if window is None and global_blocks is not None:
            raise ConfigError("global_blocks is given, but without window_size all blocks are")
        if window is not None and self.num_prefix_tokens:
            raise ConfigError("windows need cls_token=False and num_registers=0")
        if window is None and not (rel_pos_spatial or rel_pos_temporal):
            return [None] * depth
        everywhere = self.stage_ends if global_blocks is None else global_blocks
        if odd := [i for i in everywhere if i >= depth]:
            raise ConfigError(f"global_blocks names block {odd[0]}, but there are {depth} blocks")
        return [
            {
                "window": None if i in everywhere else window,
                "padded_keys": padded_keys,
                "table_grid": self.first_grid,
                "rel_pos_spatial": rel_pos_spatial,
                "rel_pos_temporal": rel_pos_temporal,
                "rel_pos_zero_init": rel_pos_zero_init,
            }
            for i in range(depth)
        ]

    def _choose_pooling(self, pooling: str | None, include_prefix: bool) -> None:
        has_class = self.cls_token is not None
        self.pooling = pooling or ("token" if has_class else "avg")
        self.pool_include_prefix = include_prefix
        if self.pooling not in POOLINGS:
            raise ConfigError(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}")
        if self.pooling in ("token", "token_avg") and not has_class:
            raise ConfigError(
                f"pooling {self.pooling!r} reads the class token, but cls_token is False"
            )

    def _add_last_norm(self, final_norm: bool, fc_norm: bool | None, eps: float) -> None:
        width = self.feature_info[-1].channels
        self.num_features = 2 * width if self.pooling == "token_avg" else width
        pooled = self.pooling not in OF_ALL_TOKENS if fc_norm is None else fc_norm
        self.norm = nn.LayerNorm(width, eps=eps) if final_norm and not pooled else None
        self.fc_norm = nn.LayerNorm(self.num_features, eps=eps) if final_norm and pooled else None

    def run_stages(
        self, clip: Tensor, run: RunBlock, keep: Tensor | None = None
    ) -> Iterator[StageOutput]:
        """The tokens (B, P + N, C) after each quarter of the blocks; N cells with `keep`."""
        x, grid = self.embed(clip, keep)
        for i, block in enumerate(self.blocks):
            x = run(block, x, grid)
            if i in self.stage_ends:
                yield StageOutput(x, grid)

    def pool_features(self, features: Tensor) -> Tensor:
        """Tokens (B, P + N, C) -> what the head reads (B, num_features)."""
        x = self._pool(features)
        x = x if self.fc_norm is None else self.fc_norm(x)
        return x if self.pre_logits is None else torch.tanh(self.pre_logits(x))

    def _pool(self, features: Tensor) -> Tensor:
        if self.pooling == "token":
            return features[:, 0]
        cells = features if self.pool_include_prefix else features[:, self.num_prefix_tokens :]
        if self.pooling == "first":
            return cells[:, 0]
        if self.pooling == "max":
            return cells.amax(dim=1)
        mean = cells.mean(dim=1)
        if self.pooling == "avgmax":
            return (mean + cells.amax(dim=1)) / 2
        if self.pooling == "token_avg":
            return torch.cat((features[:, 0], mean), dim=1)
        return mean


SMALL: Arguments = {"embed_dim": 384, "num_heads": 6}  # DeiT, arXiv 2012.12877
LARGE: Arguments = {"depth": 24, "embed_dim": 1024, "num_heads": 16}
HUGE: Arguments = {"depth": 32, "embed_dim": 1280, "num_heads": 16}
TIMESFORMER: Arguments = {  # arXiv 2102.05095; its image model is a ViT
    "space_time": "divided",
    "tubelet_frames": 1,
    "position_resize": "nearest",
    "image": {"space_time": "joint"},
}
VIDEOMAE: Arguments = {  # arXiv 2203.12602; image models have learned positions
    "cls_token": False,
    "key_bias": False,
    "sine_grid": (8, 14, 14),
    "image": {"sine_grid": None},
}
MAE: Arguments = {"pooling": "avg"}  # arXiv 2111.06377; of clips arXiv 2205.09113
DINOV2: Arguments = {  # arXiv 2304.07193
    "patch_size": 14,
    "layer_scale": 1e-5,
    "antialias_positions": False,
    "image": {"crop_size": 518},
}
VITDET: Arguments = {  # arXiv 2203.16527; read its last map
    "crop_size": 1024,
    "position_size": 224,  # of its pre-training, MAE
    "antialias_positions": False,
    "cls_token": False,
    "window_size": (8, 14, 14),
    "padded_keys": True,
    "rel_pos_spatial": True,
    "rel_pos_temporal": True,
    "final_norm": False,
    "image": {"window_size": (1, 14, 14), "rel_pos_temporal": False},
}
REGISTERS: Arguments = {"num_registers": 4, "embed_class": False, "antialias_positions": True}
GIANT: Arguments = {  # of DINOv2
    "depth": 40,
    "embed_dim": 1536,
    "num_heads": 24,
    "mlp_ratio": 16 / 3,
    "activation": "swiglu",
}
DINOV2_SIZES: dict[str, Arguments] = {"s": SMALL, "b": {}, "l": LARGE, "g": GIANT}

VARIANTS: dict[str, Arguments] = {  # arXiv 2010.11929, Tab. 1
    "vit_xs": {  # videonet's own, for CPUs
        "embed_dim": 96,
        "depth": 4,
        "num_heads": 3,
        "patch_size": 6,
        "num_frames": 8,
        "crop_size": 48,
        "linear_init": "xavier",
    },
    "vit_s": SMALL,
    "vit_b": {},
    "vit_l": LARGE,
    "vit_h": HUGE | {"patch_size": 14},
    "timesformer_b": TIMESFORMER | {"num_frames": 8},
    "timesformer_hr": TIMESFORMER | {"num_frames": 16, "crop_size": 448},
    "timesformer_l": TIMESFORMER | {"num_frames": 96},
    "vivit_b": {"num_frames": 32, "sep_pos_embed": False, "activation": "gelu_tanh"},
    "videomae_s": VIDEOMAE | SMALL,
    "videomae_b": VIDEOMAE,
    "videomae_l": VIDEOMAE | LARGE,
    "videomae_h": VIDEOMAE | HUGE,
    "videomae_v2_g": VIDEOMAE  # arXiv 2303.16727
    | {
        "depth": 40,
        "embed_dim": 1408,
        "num_heads": 16,
        "mlp_ratio": 48 / 11,
        "patch_size": 14,
        "sine_grid": (8, 16, 16),
    },
    "mae_b": MAE,
    "mae_l": MAE | LARGE,
    "mae_h": MAE | HUGE | {"patch_size": 14},
    "vitdet_b": VITDET,
    "vitdet_l": VITDET | LARGE,
    "vitdet_h": VITDET | HUGE,
    **{f"dinov2_{size}": DINOV2 | row for size, row in DINOV2_SIZES.items()},
    **{f"dinov2_reg_{size}": DINOV2 | row | REGISTERS for size, row in DINOV2_SIZES.items()},
}
MODELS = published(ViT, VARIANTS)
