"""Operands, turns on the clock, and NumPy's product in a process of its own, which sleeps until it is asked: in one
process the threads of NumPy's BLAS and of Numba wait for work actively and take the cores from one another.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

LIMITS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
PAUSE = 0.05  # seconds before a turn, in which threads that wait actively for more work of the last one give up
LINE = 16  # numbers in a cache line


def guarded(rows: int, columns: int) -> np.ndarray:
    """An array full of NaN, on a cache line, with a line of NaN on either side of it; `.base` shows all of it."""
    spare = np.full(rows * columns + 3 * LINE, np.nan, np.float32)
    start = LINE + (-spare.ctypes.data // 4) % LINE
    return spare[start : start + rows * columns].reshape(rows, columns)


def operands(M: int, K: int, N: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a (M, K) and b (K, N) of normal numbers, c (M, N) of NaN."""
    rng = np.random.default_rng(0)
    a, b, c = guarded(M, K), guarded(K, N), guarded(M, N)
    a[:], b[:] = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
    return a, b, c


def turn(work: Callable[[], object], seconds: float) -> list[float]:
    """The seconds of each call of a turn. One call before, if it is short, brings caches and clock up to rate."""
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times[1:] if len(times) > 1 else times


class NumPy:
    """NumPy's a @ b on so many threads, timed on demand."""

    def __init__(self, threads: int) -> None:
        limits = dict.fromkeys(LIMITS, str(threads))
        self.child = subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | limits,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def turn(self, size: int, seconds: float) -> list[float]:
        """turn() in that process."""
        self.child.stdin.write(f"{size} {seconds}\n")
        self.child.stdin.flush()
        return [float(word) for word in self.child.stdout.readline().split()]

    def close(self) -> None:
        """Ends the process."""
        self.child.communicate()


def serve() -> None:
    """Answers each line "size seconds" with the seconds of the calls."""
    for line in sys.stdin:
        size, seconds = line.split()
        a, b, c = operands(*[int(size)] * 3)
        print(*turn(lambda a=a, b=b, c=c: np.matmul(a, b, out=c), float(seconds)), flush=True)


if __name__ == "__main__":
    serve()
