"""CvT in the names of the official repository and of transformers."""

from __future__ import annotations

from videonet.checkpoint.dialect import Dialect, State
from videonet.checkpoint.names import Row

STAGE = "cvt.encoder.stages.{n}."
LAYER = STAGE + "layers.{m}."
BLOCK = "stage{n}.blocks.{m}."


def projection_rows(word: str) -> tuple[Row, ...]:
    """Convolution, batch norm and linear layer of "query", "key" or "value"."""
    theirs, letter = LAYER + "attention.attention.", word[0]
    conv = theirs + f"convolution_projection_{word}.convolution_projection."
    return (
        Row(conv + "convolution.weight", BLOCK + f"attn.conv_proj_{letter}.conv.weight"),
        Row(conv + "normalization.{any}", BLOCK + f"attn.conv_proj_{letter}.bn.{{any}}"),
        Row(theirs + f"projection_{word}.{{leaf}}", BLOCK + f"attn.proj_{letter}.{{leaf}}"),
    )


OFFICIAL = (Row("head.{leaf}", "head.projection.{leaf}"),)
EMBEDDING = STAGE + "embedding.convolution_embeddings."
TRANSFORMERS = (
    Row(STAGE + "cls_token", "stage{n}.cls_token"),
    Row(EMBEDDING + "projection.{leaf}", "stage{n}.patch_embed.proj.{leaf}"),
    Row(EMBEDDING + "normalization.{leaf}", "stage{n}.patch_embed.norm.{leaf}"),
    *projection_rows("query"),
    *projection_rows("key"),
    *projection_rows("value"),
    Row(LAYER + "layernorm_before.{leaf}", BLOCK + "norm1.{leaf}"),
    Row(LAYER + "attention.output.dense.{leaf}", BLOCK + "attn.proj.{leaf}"),
    Row(LAYER + "layernorm_after.{leaf}", BLOCK + "norm2.{leaf}"),
    Row(LAYER + "intermediate.dense.{leaf}", BLOCK + "mlp.fc1.{leaf}"),
    Row(LAYER + "output.dense.{leaf}", BLOCK + "mlp.fc2.{leaf}"),
    Row("layernorm.{leaf}", "norm.{leaf}"),
    Row("classifier.{leaf}", "head.projection.{leaf}"),
)


def warn_of_activation(state: State) -> str:
    """The published weights were trained with another activation than transformers computes."""
    return (
        "transformers computes GELU in CvT's MLPs, the official code QuickGELU, and so does this "
        "model unless it is built with activation='gelu'"
    )


DIALECTS = (
    Dialect("cvt", ("stage0.patch_embed.proj.weight", "head.weight"), OFFICIAL),
    Dialect(
        "transformers cvt",
        ("cvt.encoder.stages.0.embedding.convolution_embeddings.projection.weight",),
        TRANSFORMERS,
        adapt=warn_of_activation,
        base="cvt.",
        base_lacks=("norm.{leaf}",),
    ),
)
