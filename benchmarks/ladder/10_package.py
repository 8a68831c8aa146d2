"""Rung 10, the package: tinyvae's own op `dense` on the device `numba`, y = act(x w + b) without bias and activation.

At its heart is the tile of rung 8. What comes with it is what a product needs that is not 512 × 512:

- the sum over k is cut into blocks, so that the strip of A and the panel of B that are in use stay in the near caches
  however large K is;
- copies only where they pay, into small buffers on the stack;
- smaller tiles and masked loads at the edges: a layer's 400 outputs or 20 latents do not divide by 14 and 32;
- bias and activation added while the block is in the cache, float64 by the same code, checked arguments.

Look at: tinyvae/kernels/cpu/engine/tile.py and product.py, now that you know every idea in them.
"""

from importlib import import_module

import numpy as np

from tinyvae import kernels

IDEA = "tinyvae's op: blocks of k, edge tiles"
# the tile of rung 8
FLOP_PER_BYTE = import_module("08_vector_tile").FLOP_PER_BYTE

dense = kernels.load("numba").dense
NO_BIAS = np.empty(0, np.float32)


def product(a, b, c):
    """c (M, N) = a (M, K) b (K, N)."""
    dense(a, b, NO_BIAS, kernels.IDENTITY, c)
