"""Rung 4, blocking: a piece of B that fits the cache is used for all rows of A before the next piece is fetched.

Rung 3 reads all of B, 4·K·N bytes, for each row of C. While B fits some cache that is bearable: at 512 × 512 it is 1
MiB, at 2,048 × 2,048 16 MiB. At 4,096 × 4,096 it is 64 MiB, more than most third levels hold: all of B then comes from
memory 4,096 times, 4 bytes for each multiply-add. A block of DEPTH × WIDTH = 64 × 512 numbers is 128 KiB. It comes from
afar once, and then serves all M rows out of the second level: 4 / M bytes from afar for each multiply-add. The piece of
C's row that goes with it, 2 KiB, stays in the first level for 64 rounds of k; C as a whole is fetched and written K /
64 times.

The inner loop is what it was, 12 bytes loaded and stored for 2 flop. So the point on the roofline moves straight up:
the same traffic, from a nearer place.

Look at: --only 3 4 --size 512 4096 --rounds 1. Where B fits a cache anyway and the processor fetches ahead, there is
little to gain.
"""

import numba

IDEA = "blocks of B that stay in cache"
# as in rung 3: load B, load C, store C for a multiply-add; they come from a nearer cache
FLOP_PER_BYTE = 2 / 12
DEPTH, WIDTH = 64, 512


@numba.njit
def product(a, b, c):
    """c (M, N) = a (M, K) b (K, N)."""
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
