"""Rung 1, three Python loops: the definition of the product, C[i, j] = Σ_k A[i, k] · B[k, j], word for word.

A product of (M, K) and (K, N) is M·N·K multiply-adds, 2 M·N·K flop. For each of them the interpreter takes the next k,
builds the pairs (i, k) and (k, j), asks each array for an item, wraps both numbers in new objects, multiplies them into
a third and adds that into a fourth. That is about 200 ns, and the arithmetic is the smallest part of it: a core that
can make 50 multiply-adds in a nanosecond could have made 10,000. At 512 × 512 one product would take half a minute,
hence LARGEST: this rung is timed on a small size only.

Look at: % of peak. It is about 1/10,000; the nine other rungs win that factor back.
"""

IDEA = "three Python loops"
LARGEST = 64
# a multiply-add (2 flop) reads one number of A and one of B, 4 bytes each; the sum stays in a variable
FLOP_PER_BYTE = 2 / 8


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
