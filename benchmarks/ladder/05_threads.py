"""Rung 5, threads: strips of C's rows are shared out among the cores.

Row i of C needs row i of A and all of B, and no other row of C. So strips of rows can be made at the same time by
different threads without any lock: A and C are cut, B is read by all. `prange` is `range` whose rounds may run on
different threads, numba.get_num_threads() of them. Nobody adds into another's sum, so the bits do not depend on the
number of threads.

Every core has arithmetic units and first- and second-level caches of its own, so both roofs of the roofline rise; the
third level and memory are shared. A strip of STRIP = 64 rows uses each block of B 64 times, which makes 128 flop for 4
bytes from afar: enough that the cores do not wait for the memory they share. Entering a parallel loop costs some
microseconds, as much as a product of 64 × 64 × 64.

Look at: the columns for several threads. With one thread nothing changes, and below 64 rows neither.
"""

import numba
from numba import prange

IDEA = "threads: strips of rows"
# as in rung 4: load B, load C, store C for a multiply-add
FLOP_PER_BYTE = 2 / 12
DEPTH, WIDTH = 64, 512
STRIP = 64


@numba.njit(parallel=True)
def product(a, b, c):
    """c (M, N) = a (M, K) b (K, N)."""
    M = a.shape[0]
    for strip in prange((M + STRIP - 1) // STRIP):
        i = strip * STRIP
        blocked(a[i : i + STRIP], b, c[i : i + STRIP])


@numba.njit
def blocked(a, b, c):
    """Rung 4."""
    M, K = a.shape
    N = b.shape[1]
    c[:] = 0
    for j in range(0, N, WIDTH):
        for k0 in range(0, K, DEPTH):
            for i in range(M):
                c_row = c[i, j : j + WIDTH]
                for k in range(k0, min(k0 + DEPTH, K)):
                    b_row, number = b[k, j : j + WIDTH], a[i, k]
                    for q in range(c_row.size):
                        c_row[q] += number * b_row[q]
