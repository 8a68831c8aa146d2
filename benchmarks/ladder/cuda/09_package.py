"""Rung 9, the package: tinyvae's own op `dense` on the device `cuda`, y = act(x w + b) without bias and activation.

At its heart is rung 7: two buffers or more, filled in the background, and 8 × 8 sums to a thread. What comes with it is
what a product needs that is not 4096 × 4096:

- tiles from 128 × 128 down to 16 × 32, the one with which a large GPU is done first; in the small ones four groups of
  threads share the steps of k, and their sums are added at the end, always in the same order;
- one loop for any size and place: where 4 does not divide a row, the copies bring one number at a time;
- a warp is 4 × 8 threads and not 2 × 16: a load of A and one of B bring 12 different quads where rung 7's bring 18;
- sums leave by way of shared memory, so that neighbouring threads store neighbours; bias and activation on the way;
- the transposed products of the backward pass, float64, and rung 8's instruction, by the same loop.

Look at: tinyvae/kernels/cuda/engine/product.py, tile.py and dense.py, now that you know every idea in them.
"""

from importlib import import_module

from tinyvae.kernels import IDENTITY
from tinyvae.kernels.cuda.dense import dense
from tinyvae.kernels.cuda.engine.tile import SMALL

IDEA = "tinyvae's op: tiles for every size"
# as in rung 5, where the largest tile is taken
FLOP_PER_BYTE = import_module("05_register_tile").FLOP_PER_BYTE
SIDE, DEPTH = SMALL.rows, SMALL.depth  # of a tile for small sizes


def product(a, b, c):
    """c (M, N) = a (M, K) b (K, N)."""
    no_bias = c.reshape(-1)[:0]
    dense(a, b, no_bias, IDENTITY, c)
