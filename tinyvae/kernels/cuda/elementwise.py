"""Ops of one number at a time.
It knows flat arrays; what an op means is said in reference.py."""

from __future__ import annotations

from ...device import cuda
from ..reference import RELU
from .compile import blocks_for, device_function, kernel, launch

THREADS = 256


@device_function
def activated(x, act):
    """act(x); act is the same for every thread, so that no warp takes two ways."""
    if act == RELU:
        return x if x > 0 else x * 0
    return x


@kernel()
def activate_kernel(x, act, n, y):
    i = cuda.grid(1)
    if i < n:
        y[i] = activated(x[i], act)


def activate(x, act, y):
    """reference.activate."""
    launch(activate_kernel, blocks_for(x.size, THREADS), THREADS, x, act, x.size, y)
