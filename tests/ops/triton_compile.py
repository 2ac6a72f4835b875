"""Compile the Triton kernels for GPUs that need not be here: run by test_triton.py.

The interpreter takes what a GPU's compiler refuses. Prints what each kernel needs: bytes of shared
memory, registers of a thread, and bytes of a thread's stack, on which registers without room lie.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from videonet.ops.kernels.cuda import attention_kernels as attention
from videonet.ops.kernels.cuda import clip_norm_kernels as clip_norm
from videonet.ops.kernels.cuda import depthwise_kernels as depthwise
from videonet.ops.kernels.cuda import dilated_kernels as dilated
from videonet.ops.kernels.cuda import norm_kernels as norm
from videonet.ops.kernels.cuda import shift
from videonet.ops.kernels.cuda import window_kernels as window

FLOATS = {"sums", "moments_q", "moments_k", "moments_v", "logsums", "deltas", "mean", "scale",
          "moments", "levels"}  # fmt: skip
NUMBERS = re.compile(
    r"[A-Z]\w*|[a-z]_([a-z]|which)|heads|rows|parts|shares?|prefix|most_lines|blocks|frames|windows"
    r"|shift_[thw]|d[thw]|cells|first_head|group|clips|numbers|pieces|size|step"
)
TILES = {"KT": 3, "KH": 3, "KW": 3, "BW": 16}
BLOCKS = {"BQ": 64, "BK": 64, "BD": 128, "BV": 128}
TWO_PARTS = (  # rows are a tensor here, a number in the other kernels
    attention._forward, attention._query_gradient, attention._key_gradient,
)  # fmt: skip
WINDOWS = {"D": 32, "WT": 8, "WH": 7, "WW": 7, "MASKS": True, "BQ": 64, "BK": 64, "BD": 32}
TAPS = {"D": 24, "KT": 3, "KH": 3, "KW": 3, "BC": dilated.BLOCK, "BD": 32}
PIECE, TILE = {"PIECE": clip_norm.PIECE}, {"BR": clip_norm.ROWS, "BC": clip_norm.WIDE}
KERNELS = [
    (depthwise._forward, TILES | {"BD": 32, "HAS_BIAS": False}, {}),
    (depthwise._forward, TILES | {"KH": 7, "KW": 7, "BD": 64, "HAS_BIAS": True}, {}),
    (depthwise._input_gradient, TILES | {"BD": 32}, {}),
    (depthwise._weight_gradient, {"KH": 3, "KW": 3, "BK": 4, "BW": 16, "BD": 32, "BR": 64}, {}),
    (depthwise._pool_norm, TILES | {"BD": 128, "SAVE": True}, {}),
    (norm._norm_gradient, {"BD": 128, "BR": norm.ROWS, "STEPS": norm.STEPS}, {}),
    (attention._forward, BLOCKS | {"BQ": attention.FORWARD_BLOCK_Q}, attention.OPTIONS),
    (attention._query_gradient, BLOCKS, attention.OPTIONS),
    (attention._key_gradient, BLOCKS | {"BQ": attention.KEY_BLOCK_Q}, attention.OPTIONS),
    (window._forward, WINDOWS, window.OPTIONS),
    (window._query_gradient, WINDOWS, window.OPTIONS),
    (window._key_gradient, WINDOWS | {"BK": window.HALF}, window.OPTIONS),
    (window._bias_gradient, WINDOWS | {"BQ": window.HALF}, window.OPTIONS),
    (dilated._forward, TAPS, dilated.OPTIONS),
    (dilated._query_gradient, TAPS, dilated.OPTIONS),
    (dilated._key_gradient, TAPS, dilated.OPTIONS),
    (shift._shift, {"BR": shift.ROWS, "BC": shift.WIDE}, {}),
    (clip_norm._moments, PIECE, {"num_warps": 8}),
    (clip_norm._join, PIECE | {"BLOCK": 1024}, {}),
    (clip_norm._apply, TILE, {"num_warps": 8}),
    (clip_norm._channel_sums, TILE, {"num_warps": 8}),
    (clip_norm._input_gradient, TILE, {"num_warps": 8}),
]


def compile_for(kernel, constants: dict, options: dict, dtype: str, capability: int) -> str:
    """Compile one kernel; what it needs."""
    signature = {}
    for name in kernel.arg_names:
        is_number = NUMBERS.fullmatch(name) and not (name == "rows" and kernel in TWO_PARTS)
        of_keys = kernel is attention._key_gradient and name in ("grad_k", "grad_v")
        signature[name] = (
            "constexpr" if name in constants
            else "fp32" if name == "eps" or (name == "scale" and kernel is not norm._norm_gradient)
            else "*i32" if name == "offsets"
            else "i32" if is_number
            else "*fp32" if name in FLOATS or of_keys
            else f"*{dtype}"
        )  # fmt: skip
    # What a launch finds out by itself: pointers and strides are multiples of 16.
    even = [
        n for n, t in signature.items() if t[0] == "*" or n in "CD" or re.match(r"[a-z]_", n)
        if t != "constexpr"
    ]  # fmt: skip
    attributes = {(kernel.arg_names.index(n),): [["tt.divisibility", 16]] for n in even}
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=attributes)
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": 4} | options)
    registers, stack = used_per_thread(compiled.asm["cubin"])
    return f"{compiled.metadata.shared:7} shared {registers:4} registers {stack:4} stack"


def used_per_thread(code: bytes) -> tuple[int, int]:
    """Registers, and bytes of the stack."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        found = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    match = re.search(r"REG:(\d+) STACK:(\d+)", found)
    assert match, found
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    capability, dtype = int(sys.argv[1]), sys.argv[2]
    for kernel, constants, options in KERNELS:
        needs = compile_for(kernel, constants, options, dtype, capability)
        print(f"{kernel.__name__:20} {needs}", flush=True)
