"""torch's fused attention, made to work with second derivatives and ``torch.func``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from videonet.ops.kernels.autograd import differentiable_gradients
from videonet.ops.tracing import is_traced, is_transformed


def fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """``F.scaled_dot_product_attention``.

    Its fused kernels know neither ``torch.func`` nor forward-mode differentiation nor a second
    derivative: there plain operators compute the same.

    Args:
        q: (..., Nq, D), k and v: (..., Nk, D).
        mask: added to the logits, to be expanded to (..., Nq, Nk).
        dropout: of the weights.
        scale: of the logits; None for ``D ** -0.5``.
    """
    if is_transformed():
        return _written_out(q, k, v, mask, dropout, scale)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    if is_traced() or not (torch.is_grad_enabled() and y.requires_grad) or _only_plain():
        return y
    return _PlainSecondDerivative.apply(y, q, k, v, mask, dropout, scale)


def attention_weights(
    q: Tensor, k: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """``softmax(q @ k.T * scale + mask)``, (..., Nq, Nk); a Boolean mask says who takes part."""
    logits = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None and mask.dtype == torch.bool:
        logits = logits.masked_fill(~mask, float("-inf"))
    elif mask is not None:
        logits = logits + mask
    return logits.softmax(dim=-1)


def _written_out(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, scale: float | None
) -> Tensor:
    weights = attention_weights(q, k, mask, scale).to(v.dtype)
    return F.dropout(weights, dropout, dropout > 0) @ v


def _only_plain() -> bool:
    """Whether torch's fused kernels are off, as within ``sdpa_kernel(SDPBackend.MATH)``."""
    backends = torch.backends.cuda  # the switches of the CPU's kernels too
    return not (backends.flash_sdp_enabled() or backends.mem_efficient_sdp_enabled())


class _PlainSecondDerivative(Function):
    """Passes an attention's result on, and its gradient back to the kernel that computed it.

    Where the gradient is to be differentiated itself the kernel gets none; the inputs get theirs
    from plain operators instead. All that is kept is kept for the kernel anyway.
    """

    @staticmethod
    def forward(y: Tensor, q, k, v, mask, dropout: float, scale: float | None) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, *tensors, ctx.dropout, ctx.scale = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx, grad: Tensor):
        if not torch.is_grad_enabled():
            return grad, None, None, None, None, None, None
        inputs = ctx.saved_tensors
        if ctx.dropout:
            raise NotImplementedError(
                "attention with dropout of its weights cannot be differentiated twice by fused "
                "kernels: set attention_dropout=0, or run the forward pass within "
                "torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
            )

        def plain(q, k, v, mask):
            return _written_out(q, k, v, mask, 0.0, ctx.scale).to(grad.dtype)

        needed = ctx.needs_input_grad[1:5]
        return None, *differentiable_gradients(plain, inputs, needed, grad), None, None
