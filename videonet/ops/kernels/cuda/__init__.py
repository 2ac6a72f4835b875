"""Triton kernels, each an operator of torch with a plain twin; see videonet.ops.kernels.gpu."""
