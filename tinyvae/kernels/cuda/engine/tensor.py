"""A stage's arithmetic on tensor cores: products of 16×8 by 8×8 pieces rounded to tf32, summed in float32."""

from __future__ import annotations

import numpy as np

from ....device import cuda
from .compile import device_function
from .intrinsics import load2, load4, mma_tf32, tf32
from .tile import Arithmetic


@device_function
def two_steps(x, count, spacing, pitch, deep, stages, at):
    """Loads x[n · count + i], number i of step n of those that this thread needs, 0 ≤ n < 2, rounded to tf32."""
    if deep:
        for i in range(count):
            x0, x1 = load2(stages, at + i * spacing * pitch)
            x[i], x[count + i] = tf32(x0), tf32(x1)
    else:
        for n in range(2):
            for i in range(0, count, 4):
                x0, x1, x2, x3 = load4(stages, at + (n * pitch + i * spacing))
                m = n * count + i
                x[m], x[m + 1], x[m + 2], x[m + 3] = tf32(x0), tf32(x1), tf32(x2), tf32(x3)


def tensor_cores(dtype, tile, deep_a, deep_b):
    """tile.Arithmetic of float32, each thread's sums in pairs of neighbours `across`.

    The instruction multiplies 16 rows by 8 steps with 8 steps by 8 columns. In a warp, lane 4 g + q holds of a the rows
    g and g + 8 and of b the column g, at the steps q and q + 4; of the result the same rows, and the columns 2 q and
    2 q + 1. Which rows, columns and steps of the tile are called so is free: a thread's rows g and g + 8 are any two
    of those that it loads, and its steps q and q + 4 are 2 q and 2 q + 1, neighbours in memory.
    """
    U = np.uint32
    ACROSS, DOWN = tile.columns // tile.wide, tile.rows // tile.tall
    WARPS, TALL, WIDE, TWO_A, TWO_B = U(ACROSS // 8), tile.tall, tile.wide, 2 * tile.tall, 2 * tile.wide
    PITCH_A, PITCH_B = tile.stage(deep_a, tile.rows)[1], tile.stage(deep_b, tile.columns)[1]
    STEP_A, STEP_B = U(8 if deep_a else 8 * PITCH_A), U(8 if deep_b else 8 * PITCH_B)
    GROUP, SPAN = U(ACROSS * DOWN // 2), tile.depth // tile.slices
    END_A = U(SPAN // 8 * STEP_A)

    @device_function
    def corner(thread):
        warp, g, q = U(thread % GROUP // U(32)), U(thread % U(32) // U(4)), U(thread % U(4))
        across, step = U(warp % WARPS * U(8)), U(thread // GROUP * U(SPAN) + q * U(2))
        return U(warp // WARPS * U(8) + g), U(across + g), step, U(across + q * U(2))

    @device_function
    def multiply(sums, stages, from_a, from_b):
        a, b = cuda.local.array(TWO_A, np.uint32), cuda.local.array(TWO_B, np.uint32)
        end = U(from_a + END_A)
        while from_a < end:
            two_steps(a, TALL, DOWN, PITCH_A, deep_a, stages, from_a)
            two_steps(b, WIDE, ACROSS, PITCH_B, deep_b, stages, from_b)
            for i in range(0, TALL, 2):
                for j in range(WIDE):
                    m, n = (i * WIDE + j) * 2, ((i + 1) * WIDE + j) * 2
                    sums[m], sums[m + 1], sums[n], sums[n + 1] = mma_tf32(
                        sums[m], sums[m + 1], sums[n], sums[n + 1],
                        a[i], a[i + 1], a[TALL + i], a[TALL + i + 1], b[j], b[WIDE + j],
                    )  # fmt: skip
            from_a, from_b = U(from_a + STEP_A), U(from_b + STEP_B)

    return Arithmetic(2, corner, multiply)
