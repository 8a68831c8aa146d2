"""How an op's row of the table is put to the test: the package's own checks, which `tinyvae bench` uses too.
It knows the guard bands that tests ask for; the checks themselves are in tinyvae/bench/verify.py."""

from tinyvae.bench.verify import (
    TERMS,
    VARIANTS,
    Guarded,
    assert_close,
    call,
    call_reference,
    cases,
    depth_of,
    example,
    magnitudes,
    widened,
)

GUARD = {"tiny": 67, "ragged": 67, "model": 64}  # elements: 67 leaves the array unaligned

__all__ = [
    "GUARD", "TERMS", "VARIANTS", "Guarded", "assert_close", "call", "call_reference", "cases", "depth_of", "example",
    "magnitudes", "widened",
]  # fmt: skip
