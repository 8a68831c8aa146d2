"""Parts of an op's arrays that are computed side by side, and from how many numbers on that pays."""

from __future__ import annotations

from .compile import jit

CHUNK = 8192  # numbers per part of a flat array: its parts of all arguments stay in the first- and second-level cache
HEAVY = 1 << 16  # numbers from which threads pay, where each costs an exp
LIGHT = 1 << 18  # and where each costs a few products


@jit
def chunks(n):
    """The number of parts of a flat array of n numbers."""
    return (n + CHUNK - 1) // CHUNK


@jit
def part(array, chunk):
    """One part of a flat array, as a view."""
    return array[chunk * CHUNK : min(array.size, (chunk + 1) * CHUNK)]
