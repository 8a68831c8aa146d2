"""The matrix product c = act(a b + bias) on the GPU, tile by tile: stages in shared memory that are filled in the
background, sums in registers. An Operand says where a tile's numbers come from."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ....device import cuda
from .compile import Kernel, device_function
from .intrinsics import anew, commit_copies, load4, store4, wait_copies
from .scalar_math import activated
from .sums import line_sum
from .tensor import tensor_cores
from .tile import NOWHERE, Arithmetic, Operand, Tile, spot


@device_function
def four_steps(x, count, spacing, pitch, deep, stages, at):
    """Loads x[n · count + i], number i of step k + n of those that this thread needs, 0 ≤ n < 4."""
    if deep:
        for i in range(count):
            x[i], x[count + i], x[2 * count + i], x[3 * count + i] = load4(stages, at + i * spacing * pitch)
    else:
        for n in range(4):
            for i in range(0, count, 4):
                m = n * count + i
                x[m], x[m + 1], x[m + 2], x[m + 3] = load4(stages, at + (n * pitch + i * spacing))


def fused_multiply_add(dtype: Any, tile: Tile, deep_a: bool, deep_b: bool) -> Arithmetic:
    """One product at a time, four steps after another."""
    U, kind = np.uint32, np.dtype(dtype).type
    ACROSS, DOWN = tile.columns // tile.wide, tile.rows // tile.tall
    GROUP, SPAN, WARPS = U(ACROSS * DOWN), tile.depth // tile.slices, U(ACROSS // 8)
    TALL, WIDE, FOUR_A, FOUR_B = tile.tall, tile.wide, 4 * tile.tall, 4 * tile.wide
    PITCH_A, PITCH_B = tile.stage(deep_a, tile.rows)[1], tile.stage(deep_b, tile.columns)[1]
    STEP_A, STEP_B = U(4 if deep_a else 4 * PITCH_A), U(4 if deep_b else 4 * PITCH_B)
    END_A = U(SPAN // 4 * STEP_A)

    @device_function
    def corner(thread):
        # a warp is 4 rows by 8 columns of threads, in a zigzag: fewest different words in each half of a load
        warp, lane = U(thread % GROUP // U(32)), U(thread % U(32))
        down = U(warp // WARPS * U(4) + lane // U(16) * U(2) + lane % U(2))
        across = U(warp % WARPS * U(8) + lane // U(2) % U(8))
        return down, across, U(thread // GROUP * U(SPAN)), across

    @device_function
    def multiply(sums, stages, from_a, from_b):
        a, b = cuda.local.array(FOUR_A, kind), cuda.local.array(FOUR_B, kind)
        end = U(from_a + END_A)
        while from_a < end:
            four_steps(a, TALL, DOWN, PITCH_A, deep_a, stages, from_a)
            four_steps(b, WIDE, ACROSS, PITCH_B, deep_b, stages, from_b)
            for n in range(4):
                for i in range(TALL):
                    for j in range(WIDE):
                        sums[i * WIDE + j] += a[n * TALL + i] * b[n * WIDE + j]
            from_a, from_b = U(from_a + STEP_A), U(from_b + STEP_B)

    return Arithmetic(1, corner, multiply)


@device_function
def load_strip(x, source, at, strip):
    """x ← `strip` neighbours, four or one."""
    if strip == 4:
        x[0], x[1], x[2], x[3] = load4(source, at)
    else:
        x[0] = source[at]


@cache
def product(dtype: Any, tile: Tile, a: Operand, b: Operand, place: Callable[..., Any], quads: bool) -> Kernel:
    """The kernel for grid (tiles of rows, tiles of columns, parts of K) and tile.threads threads. Its arguments:

        a, geometry_a, b, geometry_b, bias, (M, N, K, share), (has_bias, act, add), geometry_c, c, grad_b

    c[to] = act(Σ a b + bias[channel]), added to what is there where add is 1; (to, channel) = place(geometry_c, part,
    row, column), to = NOWHERE where nothing is stored. Part z sums its steps, those of a.steps; share is a multiple of
    tile.depth. Where b is a flat matrix, one more row of blocks computes grad_b, the sums of b's columns, in row 0's
    place. quads: N is a multiple of 4, and four columns are aligned to 16 bytes, in c and in the bias.
    """
    U, kind = np.uint32, np.dtype(dtype).type
    ROWS, COLUMNS, DEPTH, TALL, WIDE, SLICES, STAGES, TENSOR = tile
    THREADS, ACROSS, DOWN, AHEAD = tile.threads, COLUMNS // WIDE, ROWS // TALL, STAGES - 2
    DEEP_A, DEEP_B, NOTES_A, NOTES_B = a.deep, b.deep, a.notes, b.notes
    (LINES_A, PITCH_A), (LINES_B, PITCH_B) = tile.stage(DEEP_A, ROWS), tile.stage(DEEP_B, COLUMNS)
    SIZE_A, SIZE_B = LINES_A * PITCH_A, LINES_B * PITCH_B
    FIRST_B, SIZE = STAGES * SIZE_A, STAGES * (SIZE_A + SIZE_B)
    SHARED, item = SIZE * np.dtype(dtype).itemsize // 16, np.complex128  # shared memory begins on a whole item
    STRIP, PITCH_C, RISE = 4 if quads else 1, COLUMNS + 4, TALL
    while SLICES * RISE * DOWN * PITCH_C > SIZE:
        RISE //= 2  # so many rows of each thread are stored together
    LINES_C = RISE * DOWN
    begin_a, begin_b, fill_a, fill_b, steps = a.begin, b.begin, a.fill, b.fill, a.steps
    PAIR, corner, multiply = (tensor_cores if TENSOR else fused_multiply_add)(dtype, tile, DEEP_A, DEEP_B)
    SUMS = TALL * WIDE * PAIR

    def product_kernel(a, geometry_a, b, geometry_b, bias, sizes, ends, geometry_c, c, grad_b):
        (M, N, K, share), (has_bias, act, add) = sizes, ends
        stages = cuda.shared.array(SHARED, item).view(kind)
        notes_a = cuda.local.array(NOTES_A, U)
        notes_b = cuda.local.array(NOTES_B, U)
        sums = cuda.local.array(SUMS, kind)
        thread, part = U(cuda.threadIdx.x), U(cuda.blockIdx.z)
        row0, column0 = U(U(cuda.blockIdx.x) * U(ROWS)), U(U(cuda.blockIdx.y) * U(COLUMNS))
        k, k_end = steps(geometry_a, part, share, K)
        if row0 >= M and not DEEP_B:
            n = U(column0 + thread % U(COLUMNS))
            total = line_sum(b, N, n, k, k_end, THREADS, COLUMNS, stages, thread)
            if thread < U(COLUMNS) and n < N:
                to, _ = place(geometry_c, part, U(0), n)
                grad_b[to] = grad_b[to] + total if add else total
            return

        begin_a(notes_a, geometry_a, part, row0, thread)
        begin_b(notes_b, geometry_b, part, column0, thread)
        ahead = k  # the first step that is not yet on its way
        for free in range(STAGES - 1):
            if ahead < k_end:
                fill_a(stages, U(free * SIZE_A), a, geometry_a, notes_a, ahead, k_end, thread)
                fill_b(stages, U(FIRST_B + free * SIZE_B), b, geometry_b, notes_b, ahead, k_end, thread)
            commit_copies()
            ahead = U(ahead + U(DEPTH))
        for i in range(SUMS):
            sums[i] = 0
        down, across, first_k, _ = corner(thread)
        from_a = U(down * U(PITCH_A) + first_k) if DEEP_A else U(first_k * U(PITCH_A) + down * U(4))
        from_b = U(across * U(PITCH_B) + first_k) if DEEP_B else U(first_k * U(PITCH_B) + across * U(4))
        stage = U(0)
        while k < k_end:
            wait_copies(AHEAD)
            cuda.syncthreads()  # this stage is filled, and the one before is no longer read
            if ahead < k_end:
                me = anew(thread)
                free = U((stage + U(STAGES - 1)) % U(STAGES))
                fill_a(stages, U(free * U(SIZE_A)), a, geometry_a, notes_a, ahead, k_end, me)
                fill_b(stages, U(U(FIRST_B) + free * U(SIZE_B)), b, geometry_b, notes_b, ahead, k_end, me)
            commit_copies()
            multiply(sums, stages, U(from_a + stage * U(SIZE_A)), U(U(FIRST_B) + from_b + stage * U(SIZE_B)))
            stage = U((stage + U(1)) % U(STAGES))
            k, ahead = U(k + U(DEPTH)), U(ahead + U(DEPTH))

        # the sums go by way of shared memory: there slices are added, and neighbouring threads store neighbours
        thread = anew(thread)
        down, _, _, across = corner(thread)
        y, x = cuda.local.array(STRIP, kind), cuda.local.array(STRIP, kind)
        for turn in range(TALL // RISE):
            cuda.syncthreads()
            for i in range(TALL):
                if i // RISE == turn:
                    line = U((thread // U(THREADS // SLICES) * U(RISE) + U(i % RISE)) * U(DOWN) + down)
                    for j in range(WIDE):
                        for p in range(PAIR):
                            n = spot(DEEP_B, U(j), U(across + U(p)), U(ACROSS))
                            stages[U(line * U(PITCH_C) + n)] = sums[(i * WIDE + j) * PAIR + p]
            cuda.syncthreads()
            e = U(thread * U(STRIP))
            while e < U(LINES_C * COLUMNS):
                line, n = U(e // U(COLUMNS)), U(e % U(COLUMNS))
                i = U(U(turn * RISE) + line // U(DOWN))
                row = U(row0 + spot(DEEP_A, i, U(line % U(DOWN)), U(DOWN)))
                to, channel = NOWHERE, U(0)
                if row < M and U(column0 + n) < N:
                    to, channel = place(geometry_c, part, row, U(column0 + n))
                if to != NOWHERE:
                    load_strip(y, stages, U(line * U(PITCH_C) + n), STRIP)
                    for s in range(1, SLICES):
                        load_strip(x, stages, U((U(s * LINES_C) + line) * U(PITCH_C) + n), STRIP)
                        for p in range(STRIP):
                            y[p] += x[p]
                    if has_bias:
                        load_strip(x, bias, channel, STRIP)
                        for p in range(STRIP):
                            y[p] += x[p]
                    for p in range(STRIP):
                        y[p] = activated(y[p], act)
                    if add:
                        load_strip(x, c, to, STRIP)
                        for p in range(STRIP):
                            y[p] += x[p]
                    if STRIP == 4:
                        store4(c, to, y[0], y[1], y[2], y[3])
                    else:
                        c[to] = y[0]
                e = U(e + U(THREADS * STRIP))

    expect = ("HMMA", "LDGSTS") if TENSOR else ("FFMA", "LDS.128", "LDGSTS")
    blocks = (
        2 if ROWS * COLUMNS <= 16_384 and NOTES_A + NOTES_B <= 4 else 1
    )  # a multiprocessor has registers for so many
    return Kernel(product_kernel, expect, min(255, 65_536 // blocks // THREADS))
