"""Sums over the lines of a matrix: a bias's gradient, and partial results that become one. The order of a sum
depends on the shape alone."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ....device import cuda
from .compile import Kernel, blocks_for, device_function, launch

THREADS = 256
FEW = 16  # lines up to which each thread sums one column


@device_function
def line_sum(source, length, column, first, last, threads, columns, board, thread):
    """The sum of source[line · length + column] over lines first to last, for the block's first `columns` threads.

    A block has `threads` threads, `columns` of them side by side, each with the column it is given; board holds a
    number for each thread.
    """
    U = np.uint32
    total = board.dtype.type(0)
    if column < length:
        line = U(first + thread // U(columns))
        while line < last:
            total += source[U(line * length + column)]
            line = U(line + U(threads // columns))
    board[thread] = total
    cuda.syncthreads()
    if thread < U(columns):
        for i in range(1, threads // columns):
            total += board[U(thread + U(i * columns))]
    return total


@cache
def line_sums(dtype: Any, columns: int) -> Kernel:
    """out[part · length + column] = the sum of that column over the lines of the part, `columns` of them to a block.

    Columns from `split` on go to rest[column − split]; with add = 1 they are added to what is there.
    """
    U, kind = np.uint32, np.dtype(dtype).type

    def line_sums_kernel(source, lines, share, length, split, add, out, rest):
        board = cuda.shared.array(THREADS, kind)
        thread, part = U(cuda.threadIdx.x), U(cuda.blockIdx.y)
        column = U(U(cuda.blockIdx.x) * U(columns) + thread % U(columns))
        first = U(part * share)
        last = U(first + share) if U(first + share) < lines else lines
        total = line_sum(source, length, column, first, last, THREADS, columns, board, thread)
        if thread < U(columns) and column < length:
            if column < split:
                at = U(part * length + column)
                out[at] = out[at] + total if add else total
            else:
                at = U(column - split)
                rest[at] = rest[at] + total if add else total

    return Kernel(line_sums_kernel)


def add_lines(source, lines, length, split, add, out, rest, parts=1):
    """out and rest = the sums over all lines; with parts, out = those of each part."""
    columns = THREADS if lines <= FEW else 32
    grid = (blocks_for(length, columns), parts)
    share = blocks_for(lines, parts)
    launch(line_sums(source.dtype, columns), grid, THREADS, source, lines, share, length, split, add, out, rest)
