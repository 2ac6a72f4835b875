"""The keys of the model: its name, or the description of an MViT in PySlowFast's keys."""

from __future__ import annotations

from videonet.config.key import Group, Key

REV = Group(
    "A reversible network: two streams of tokens, from whose outputs the backward pass computes "
    "the activations again instead of storing them.",
    {
        "ENABLE": Key(False, "Build a reversible MViT or ViT."),
        "RESPATH_FUSE": Key(
            "concat",
            "How the two streams become one before the head: add, avg, max, min, concat or "
            "[ln+]concat_linear[_RATIO[_DROPOUT]].",
        ),
        "BUFFER_LAYERS": Key(
            [],
            "Blocks between two stages, which are not reversible: all that stride or widen.",
        ),
        "RES_PATH": Key("conv", "Shortcut of these blocks: conv (as the queries) or max."),
        "PRE_Q_FUSION": Key(
            "avg", "How the two streams become one before these blocks, as in RESPATH_FUSE."
        ),
    },
)

MVIT = Group(
    "The architecture of an MViT that has no name (MODEL.MODEL_NAME MViT, as in PySlowFast). "
    "A model of MODEL.NAME fixes these keys, except DROPOUT_RATE and ZERO_DECAY_POS_CLS.",
    {
        "MODE": Key(
            "conv",
            "Pooling of q, k and v: conv (depth-wise, shared by the heads), conv_unshared, max or "
            "avg.",
        ),
        "POOL_FIRST": Key(False, "Pool before the q, k, v projections instead of after them."),
        "CLS_EMBED_ON": Key(True, "Use a class token."),
        "PATCH_KERNEL": Key(
            [3, 7, 7], "Kernel of the patch stem in frames and pixels (t, h, w); PATCH_2D: (h, w)."
        ),
        "PATCH_STRIDE": Key([2, 4, 4], "Stride of the patch stem (t, h, w); PATCH_2D: (h, w)."),
        "PATCH_PADDING": Key([2, 4, 4], "Padding of the patch stem (t, h, w); PATCH_2D: (h, w)."),
        "PATCH_2D": Key(False, "An image model: one frame, and a stem without a temporal axis."),
        "EMBED_DIM": Key(96, "Channels after the patch stem."),
        "NUM_HEADS": Key(1, "Attention heads of the first block."),
        "MLP_RATIO": Key(4.0, "Hidden width of the MLPs over their input width."),
        "QKV_BIAS": Key(True, "Bias in the q, k, v projections."),
        "DEPTH": Key(16, "Number of blocks."),
        "DIM_MUL": Key([], "Factors on the width: [[block, factor], …]."),
        "HEAD_MUL": Key([], "Factors on the number of heads: [[block, factor], …]."),
        "POOL_KV_STRIDE": Key([], "Strides of the pooling of k and v: [[block, t, h, w], …]."),
        "POOL_KV_STRIDE_ADAPTIVE": Key(
            None,
            "Stride (t, h, w) of the pooling of k and v in the first block; each stride of q "
            "divides that of the blocks after it.",
            optional=list,
        ),
        "POOL_Q_STRIDE": Key(
            [],
            "Strides of the pooling of q: [[block, t, h, w], …]; other blocks do not pool q.",
        ),
        "POOL_KVQ_KERNEL": Key(
            None,
            "Kernel (t, h, w) of all pooling; None: stride + 1 where the stride is above 1.",
            optional=list,
        ),
        "ZERO_DECAY_POS_CLS": Key(
            True,
            "No weight decay on the parameters that a model exempts, such as positions and the "
            "class token; holds for every model.",
        ),
        "NORM_STEM": Key(False, "LayerNorm after the patch stem."),
        "SEP_POS_EMBED": Key(False, "Separate tables for absolute positions in space and in time."),
        "DROPOUT_RATE": Key(0.0, "Dropout after the positions and in the projections of an MViT."),
        "USE_ABS_POS": Key(True, "Absolute positions."),
        "REL_POS_SPATIAL": Key(False, "Relative positions along height and width."),
        "REL_POS_TEMPORAL": Key(False, "Relative positions along time."),
        "REL_POS_ZERO_INIT": Key(False, "Start the relative positions at 0 instead of at random."),
        "RESIDUAL_POOLING": Key(False, "Add the pooled q to the output of the attention."),
        "DIM_MUL_IN_ATT": Key(
            False,
            "Widen the channels in the attention of a stage's first block instead of in the MLP "
            "of the block before.",
        ),
        "SEPARATE_QKV": Key(False, "Separate linear layers for q, k and v."),
        "HEAD_INIT_SCALE": Key(1.0, "Factor on the initial weights of the classifier."),
        "USE_MEAN_POOLING": Key(
            False, "Classify the mean of the patch tokens instead of the class token."
        ),
        "REV": REV,
    },
)

LORA = Group(
    "Low-rank adapters (LoRA, arXiv 2106.09685): the weights stay as they are, and a product of "
    "two narrow matrices beside each linear layer is trained with the head. Needs the extra lora.",
    {
        "RANK": Key(0, "Width of the narrow matrices, such as 8; 0: no adapters.", own=True),
        "ALPHA": Key(16.0, "The product is multiplied by ALPHA / RANK.", own=True),
        "DROPOUT": Key(0.0, "Dropout before the adapters.", own=True),
        "LAYERS": Key(
            [],
            "Ends of the names of the linear layers that get adapters, such as [qkv, proj]; empty: "
            "all linear layers of the blocks.",
            own=True,
        ),
    },
)

MODEL = Group(
    "The model.",
    {
        "NAME": Key(
            "",
            "Name of an architecture, as in videonet.list_models(); empty: the keys of MVIT "
            "describe the model.",
            own=True,
        ),
        "MODEL_NAME": Key(
            "SlowFast",
            "PySlowFast's name of the model class, read where NAME is empty; MViT is the one that "
            "is known.",
        ),
        "NUM_CLASSES": Key(0, "Number of classes; 0: as many as the data have."),
        "TASK": Key(
            "classification",
            "What is learnt: classification, instance_segmentation, semantic_segmentation, or "
            "boundary_refinement (HRNets that refine masks).",
            own=True,
        ),
        "LOSS_FUNC": Key(
            "cross_entropy",
            "Loss: cross_entropy, soft_cross_entropy (takes soft targets), or bce_logit (binary "
            "cross entropy of each class, for videos with several labels).",
        ),
        "DROPOUT_RATE": Key(0.5, "Dropout before the classifier."),
        "DROPPATH_RATE": Key(
            None,
            "Stochastic depth: the probability that training skips the last block; it rises "
            "linearly from 0 at the first. None: 0.1 for an MViT, as in PySlowFast, else 0.",
            own=True,
            optional=float,
        ),
        "ARGUMENTS": Key(
            {},
            "Further arguments of create_model, by name, such as {patch_size: 8}. Those of a "
            "file are added to those of its _BASE_; MODEL.ARGUMENTS.patch_size 8 sets one.",
            own=True,
        ),
        "HEAD": Key(
            "linear",
            "What reads the features: linear (the architecture's own pooling and a linear layer), "
            "attentive (learned queries over all tokens, then a linear layer) or statistics (a "
            "linear layer of the tokens' means and changes over time).",
            own=True,
        ),
        "HEAD_ARGUMENTS": Key(
            {},
            "Arguments of the attentive head, by name: num_queries (1), num_heads (16), num_blocks "
            "(3) before the queries read, mlp_ratio (4.0), frames (number of frames of the last "
            "grid, for queries that tell them apart; 0) and num_prefix_tokens (0). Of statistics: "
            "frames (1), num_prefix_tokens (0) and regions (1: of the frame, along each side).",
            own=True,
        ),
        "LORA": LORA,
        "ACT_CHECKPOINT": Key(
            False, "Compute activations again in the backward pass, which saves memory."
        ),
        "COMPILE": Key(
            False, "Compile the model with torch.compile, in training and in testing.", own=True
        ),
        "FROZEN_LAYERS": Key(
            0,
            "Number of layers, counted from the patch stem, that training leaves as they are; "
            "-1: all but the last norm and the head, -3: all but these and the last two blocks.",
            own=True,
        ),
    },
)
