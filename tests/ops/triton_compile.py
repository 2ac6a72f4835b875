"""Compile the Triton kernels for GPUs that need not be here: run by test_triton.py.

The interpreter takes what a GPU's compiler refuses. Prints what each kernel needs.
"""

from __future__ import annotations

import re
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from videonet.ops.kernels.cuda import attention_kernels as attention
from videonet.ops.kernels.cuda import depthwise_kernels as depthwise
from videonet.ops.kernels.cuda import norm_kernels as norm

FLOATS = {"sums", "moments_q", "moments_k", "moments_v", "logsums", "deltas", "mean", "scale"}
NUMBERS = re.compile(r"[A-Z]\w*|[a-z]_([a-z]|which)|heads|rows|parts|share|prefix|most_lines")
TILES = {"KT": 3, "KH": 3, "KW": 3, "BW": 16}
BLOCKS = {"BQ": 64, "BK": 64, "BD": 128, "BV": 128}
TWO_PARTS = (  # rows are a tensor here, a number in the other kernels
    attention._forward, attention._query_gradient, attention._key_gradient,
)  # fmt: skip
KERNELS = [
    (depthwise._forward, TILES | {"BD": 32, "HAS_BIAS": False}, {}),
    (depthwise._forward, TILES | {"KH": 7, "KW": 7, "BD": 64, "HAS_BIAS": True}, {}),
    (depthwise._input_gradient, TILES | {"BD": 32}, {}),
    (depthwise._weight_gradient, {"KH": 3, "KW": 3, "BK": 4, "BW": 16, "BD": 32, "BR": 64}, {}),
    (depthwise._pool_norm, TILES | {"BD": 128, "SAVE": True}, {}),
    (norm._norm_gradient, {"BD": 128, "BR": norm.ROWS, "STEPS": norm.STEPS}, {}),
    (attention._forward, BLOCKS | {"BQ": attention.FORWARD_BLOCK_Q}, attention.OPTIONS),
    (attention._query_gradient, BLOCKS, attention.OPTIONS),
    (attention._key_gradient, BLOCKS, attention.OPTIONS),
]


def compile_for(kernel, constants: dict, options: dict, dtype: str, capability: int) -> str:
    """Compile one kernel; what it needs."""
    signature = {}
    for name in kernel.arg_names:
        is_number = NUMBERS.fullmatch(name) and not (name == "rows" and kernel in TWO_PARTS)
        of_keys = kernel is attention._key_gradient and name in ("grad_k", "grad_v")
        signature[name] = (
            "constexpr" if name in constants
            else "fp32" if name == "eps"
            else "i32" if is_number
            else "*fp32" if name in FLOATS or of_keys
            else f"*{dtype}"
        )  # fmt: skip
    # What a launch finds out by itself: pointers and strides are multiples of 16.
    even = [n for n, t in signature.items() if t[0] == "*" or n == "D" or re.match(r"[a-z]_", n)]
    attributes = {(kernel.arg_names.index(n),): [["tt.divisibility", 16]] for n in even}
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=attributes)
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": 4} | options)
    return (
        f"{compiled.metadata.shared:7} bytes shared  {len(compiled.asm['cubin']):7} bytes of code"
    )


if __name__ == "__main__":
    capability, dtype = int(sys.argv[1]), sys.argv[2]
    for kernel, constants, options in KERNELS:
        needs = compile_for(kernel, constants, options, dtype, capability)
        print(f"{kernel.__name__:20} {needs}", flush=True)
