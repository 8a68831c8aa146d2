"""What the machine can do at best: its rate of multiply-adds and its rate of copying, measured.

A roof needs no operands: chains of multiply-adds that live in registers, as many as hide an instruction's latency, and
a copy between arrays that no cache holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from tinyvae.bench.cases import Case
from tinyvae.bench.job import Job
from tinyvae.device import NumpyDevice
from tinyvae.kernels.cpu.engine.compile import jit, parallel
from tinyvae.kernels.cpu.engine.tile import VECTOR_BYTES, Vectors, machine

I64 = ir.IntType(64)
CHAINS = 16 if machine() == "neon" else 12  # 2 to 4 units of latency 4; a set of 16 registers holds 12 and operands
ROUNDS = 100_000  # of all chains, per task
BLOCK = 1 << 16  # elements that one task copies at a time
LARGEST_COPY = 1 << 30  # bytes of one array
RATES = ("fma", "copy")


@intrinsic
def chains(typingctx: Any, a: Any, b: Any, rounds: Any) -> Any:
    """chains(a, b, rounds): `rounds` times v ← v·a + b in each of CHAINS vectors v; one lane of their sum."""
    itemsize = a.bitwidth // 8

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        vectors = Vectors(builder, VECTOR_BYTES // itemsize, itemsize)
        first, second = (vectors.repeat(value, vectors.vector) for value in arguments[:2])
        before, loop = builder.block, builder.append_basic_block("chains")
        after = builder.append_basic_block("chains_end")
        builder.branch(loop)
        builder.position_at_end(loop)
        count = builder.phi(I64)
        count.add_incoming(ir.Constant(I64, 0), before)
        sums = [builder.phi(vectors.vector) for _ in range(CHAINS)]
        for value in sums:
            value.add_incoming(vectors.zero, before)
            value.add_incoming(vectors.fma(value, first, second), loop)
        following = builder.add(count, ir.Constant(I64, 1))
        count.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, arguments[2]), loop, after)
        builder.position_at_end(after)
        total = sums[0]
        for value in sums[1:]:
            total = builder.fadd(total, value)
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return a(a, a, types.int64), codegen


@jit
def _chains(a, b, rounds):  # type: ignore[no-untyped-def]
    return chains(a, b, rounds)  # type: ignore[call-arg]


@parallel
def multiply_add(a, b, tasks, out):  # type: ignore[no-untyped-def]
    """`tasks` times ROUNDS rounds of CHAINS multiply-adds, each task on a thread of its own; out (tasks,)."""
    for task in prange(tasks):
        out[task] = _chains(a, b, ROUNDS)


@parallel
def copy(source, target):  # type: ignore[no-untyped-def]
    """target ← source (n,), in blocks."""
    blocks = (source.size + BLOCK - 1) // BLOCK
    for block in prange(blocks):
        start = block * BLOCK
        target[start : start + BLOCK] = source[start : start + BLOCK]


def last_level_cache() -> int:
    """Bytes of the largest cache, as Linux reports it; 32 MiB elsewhere."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    found = [32 << 20]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text[:-1].isdigit() and text[-1:] in units:
            found.append(int(text[:-1]) * units[text[-1]])
    return max(found)


def cases() -> list[Case]:
    """The two rates as things to time."""
    return [Case("machine", name, "call") for name in RATES]


def rate_job(name: str, dtype: str) -> Job:
    """A rate's job; its result says how many operations, or bytes read and written, one call makes."""
    from numba import get_num_threads

    kind, device, threads = np.dtype(dtype).type, NumpyDevice(), int(get_num_threads())
    if name == "fma":
        out = device.empty(threads, dtype)
        amount = 2.0 * CHAINS * (VECTOR_BYTES // out.itemsize) * ROUNDS * threads
        # 0.5 and 1: the sums run to 2 and stay there, far from zeros and infinities that may be slow
        return Job(lambda: multiply_add(kind(0.5), kind(1), threads, out), lambda: {"amount": np.array([amount])})
    size = min(4 * last_level_cache(), LARGEST_COPY) // 8
    source, target = (device.empty(size, np.float64) for _ in range(2))
    source.fill(1.0)
    target.fill(0.0)
    return Job(lambda: copy(source, target), lambda: {"amount": np.array([16.0 * size])})
