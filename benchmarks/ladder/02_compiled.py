"""Rung 2, compiled: the same three loops, translated by Numba into machine code for arrays of float32.

The types are known before the loop starts, so no object is made and none is asked: what is left for a multiply-add is
two loads, a multiplication, an addition and the loop's own count. Two things still hold it back, and both are in the
order of the loops, not in the arithmetic:

- B is read down a column. Its neighbours in k are N numbers apart, and memory travels in cache lines of 64 bytes: each
  number of 4 bytes brings 60 bytes along that the next k does not want. At N = 512 a column touches 512 lines, 2,048
  bytes apart, which fall on so few places of the first-level cache that they push one another out. The second-level
  cache sends 64 bytes for 2 flop.
- Each addition waits for the one before, some 4 cycles. It may not be split into partial sums, 8 or 16 at a time in a
  vector register: the rounding would differ, and a compiler must keep it (the flag that lifts this is `reassoc`).

Look at: × before, the price of the interpreter; and % of peak, still about 1.
"""

import numba

IDEA = "the same loops, compiled"
LARGEST = 512
# as in rung 1: a number of A and one of B for a multiply-add (16 times as much arrives, in whole cache lines)
FLOP_PER_BYTE = 2 / 8


@numba.njit
def product(a, b, c):
    """c (M, N) = a (M, K) b (K, N)."""
    M, K = a.shape
    N = b.shape[1]
    for i in range(M):
        for j in range(N):
            total = a.dtype.type(0)
            for k in range(K):
                total += a[i, k] * b[k, j]
            c[i, j] = total
