"""The two kinds of roof over every program: how many multiply-adds this machine makes in a second, and how many bytes
its memory and its caches move.
"""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import binding, ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

FEATURES = binding.get_host_cpu_features()
LANES = 16 if FEATURES.get("avx512f") else 8 if FEATURES.get("avx2") else 4
# sums that do not wait for one another: cycles that a multiply-add takes (4) times those begun in a cycle (2; 4 on some
# machines with NEON), and few enough for the registers (16 with AVX2)
CHAINS = 12 if LANES == 8 else 16
ROUNDS = 200_000
VECTOR = ir.VectorType(ir.FloatType(), LANES)
# numbers in each of the two arrays; what they fill together is the name of the place
PLACES = {"16 KiB": 2_048, "256 KiB": 32_768, "128 MiB": 16_777_216}


@intrinsic
def chains(typing, rounds):
    """x ← x · 0.999 + 0.001, `rounds` times in CHAINS vector registers; returns one number, so that all are needed."""

    def generate(context, builder, signature, arguments):
        def every(number):
            return ir.Constant(VECTOR, [number] * LANES)

        fuse = ("contract",)
        sums = [cgutils.alloca_once_value(builder, every(float(i))) for i in range(CHAINS)]
        with cgutils.for_range(builder, arguments[0]):
            for x in sums:
                term = builder.fmul(builder.load(x), every(0.999), flags=fuse)
                builder.store(builder.fadd(term, every(0.001), flags=fuse), x)
        total = builder.load(sums[0])
        for x in sums[1:]:
            total = builder.fadd(total, builder.load(x))
        return builder.extract_element(total, ir.IntType(32)(0))

    return types.float32(types.int64), generate


@numba.njit(parallel=True)
def multiply_adds(out):
    """Keeps every thread at multiply-adds in registers: out.size · ROUNDS · CHAINS · LANES of them."""
    for thread in prange(out.size):
        out[thread] = chains(ROUNDS)


@numba.njit(parallel=True)
def add(x, y, rounds):
    """y += x, row by row on its own thread, `rounds` times: reads two numbers and writes one."""
    for thread in prange(x.shape[0]):
        x_row, y_row = x[thread], y[thread]
        for _ in range(rounds):
            for i in range(x_row.size):
                y_row[i] += x_row[i]


@numba.njit(parallel=True)
def copy(x, y, rounds):
    """y = x, likewise: reads one number and writes one."""
    for thread in prange(x.shape[0]):
        x_row, y_row = x[thread], y[thread]
        for _ in range(rounds):
            for i in range(x_row.size):
                y_row[i] = x_row[i]


def works(threads: int):
    """{name: (function to time, flop or bytes of one call)}: the peak, the copy, and y += x in the caches."""
    out = np.empty(threads, np.float32)
    found = {"peak": (lambda: multiply_adds(out), 2 * threads * ROUNDS * CHAINS * LANES)}
    for place, size in PLACES.items():
        far = size == max(PLACES.values())
        share = size // threads if far else size  # memory is shared, the near caches are each core's own
        # ones, since an array of zeros may have no pages of its own yet
        x, y = np.ones((threads, share), np.float32), np.ones((threads, share), np.float32)
        rounds = 1 if far else 8_388_608 // size
        kernel, moved, verb = (copy, 8, "copy") if far else (add, 12, "y += x")
        found[f"{verb}, {place}"] = (
            lambda kernel=kernel, x=x, y=y, rounds=rounds: kernel(x, y, rounds),
            moved * threads * share * rounds,
        )
    return found
