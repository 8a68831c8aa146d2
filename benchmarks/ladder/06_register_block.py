"""Rung 6, register block: 4 rows of C take 4 values of k in one go, so that a number once loaded serves four times.

Rung 5 moves three numbers for each multiply-add, and a core can do fewer loads and stores in a cycle than
multiply-adds: the arithmetic units wait. Registers are the one memory without that limit. Here 4 × 4 numbers of A stay
in registers while the inner loop walks along the rows. In each round it loads 4 numbers of B and 4 of C, makes 16
multiply-adds, and stores the 4 of C: a number of B serves 4 rows, a number of C 4 values of k. 12 numbers moved for 16
multiply-adds instead of 48.

This is about as far as plain loops go. A larger block would need more registers than there are (16 vectors with AVX2,
32 with AVX-512 and NEON): the compiler would then put some of them back into memory, which is what was to be avoided.
And C still travels, since plain loops give no way to say that a sum must stay in a register.

Look at: % of peak, and how far the point moves to the right on the roofline: more flop for each byte.
"""

import numba
from numba import prange

IDEA = "4 × 4 numbers of A in registers"
# load 4 of B and 4 of C, store 4 of C: 48 bytes for 16 multiply-adds
FLOP_PER_BYTE = 2 * 16 / 48
DEPTH, WIDTH = 64, 512
STRIP = 64


@numba.njit(parallel=True)
def product(a, b, c):
    """c (M, N) = a (M, K) b (K, N)."""
    M, K = a.shape
    N = b.shape[1]
    for strip in prange((M + STRIP - 1) // STRIP):
        i0, i1 = strip * STRIP, min(strip * STRIP + STRIP, M)
        c[i0:i1] = 0
        for j in range(0, N, WIDTH):
            for k0 in range(0, K, DEPTH):
                k1 = min(k0 + DEPTH, K)
                i4, k4 = i1 - (i1 - i0) % 4, k1 - (k1 - k0) % 4  # to here by fours
                for i in range(i0, i4, 4):
                    for k in range(k0, k4, 4):
                        four_by_four(a, b, c, i, k, slice(j, j + WIDTH))
                plain(a, b, c, i0, i4, k4, k1, slice(j, j + WIDTH))
                plain(a, b, c, i4, i1, k0, k1, slice(j, j + WIDTH))


@numba.njit
def four_by_four(a, b, c, i, k, js):
    """Rows i … i + 3 of c, columns js, += their products with k … k + 3. p, q, r, s: the numbers of four rows of a."""
    p0, p1, p2, p3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
    q0, q1, q2, q3 = a[i + 1, k], a[i + 1, k + 1], a[i + 1, k + 2], a[i + 1, k + 3]
    r0, r1, r2, r3 = a[i + 2, k], a[i + 2, k + 1], a[i + 2, k + 2], a[i + 2, k + 3]
    s0, s1, s2, s3 = a[i + 3, k], a[i + 3, k + 1], a[i + 3, k + 2], a[i + 3, k + 3]
    b0, b1, b2, b3 = b[k, js], b[k + 1, js], b[k + 2, js], b[k + 3, js]
    c0, c1, c2, c3 = c[i, js], c[i + 1, js], c[i + 2, js], c[i + 3, js]
    for j in range(c0.size):
        x0, x1, x2, x3 = b0[j], b1[j], b2[j], b3[j]
        c0[j] = c0[j] + p0 * x0 + p1 * x1 + p2 * x2 + p3 * x3
        c1[j] = c1[j] + q0 * x0 + q1 * x1 + q2 * x2 + q3 * x3
        c2[j] = c2[j] + r0 * x0 + r1 * x1 + r2 * x2 + r3 * x3
        c3[j] = c3[j] + s0 * x0 + s1 * x1 + s2 * x2 + s3 * x3


@numba.njit
def plain(a, b, c, i0, i1, k0, k1, js):
    """The same for the rows and the k that four does not divide, by the loops of rung 3."""
    for i in range(i0, i1):
        for k in range(k0, k1):
            c_row, b_row, number = c[i, js], b[k, js], a[i, k]
            for j in range(c_row.size):
                c_row[j] += number * b_row[j]
