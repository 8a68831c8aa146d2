"""Chapter 14, CUDA: the cycles of a load from shared memory, a kernel with its guard, a product by tiles.
It knows the arithmetic, its typical mistakes and its hints; the text is in tutorials/."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..exercise import Chapter, Exercise, Function, Mistake

if TYPE_CHECKING:
    from ...device import cuda  # `_launch` puts it there: to list the chapters must not load Numba

TILE = 4
PREAMBLE = f"""\
import math

import numpy as np
from numba import cuda

# A kernel is graded in Numba's simulator; @cuda.jit in front of it may be there or not.
TILE = {TILE}"""


def cycles(words):
    """The cycles that shared memory takes to answer one load of a warp.

    words: whole numbers, for each thread the place of the 4-byte word that it wants. Word w lies in bank w % 32. In a
    cycle each bank serves one word, and all threads that want that word get it. Returns a whole number.
    """
    different = np.unique(words)
    return int(np.bincount(different % 32).max())


def sample_kernel(z_mean, z_log_sigma, eps, z):
    """A kernel: z[i] = z_mean[i] + exp(z_log_sigma[i]) · eps[i], by a thread for each i. All (n,); z is filled.

    The grid has one dimension, and may have more threads than there are numbers. A thread has math.exp.
    """
    i = cuda.grid(1)
    if i < z.size:
        z[i] = z_mean[i] + math.exp(z_log_sigma[i]) * eps[i]


def grad_w_kernel(x, grad_y, grad_w):
    """A kernel: grad_w[k, n] = Σ_b x[b, k] · grad_y[b, n], by tiles in shared memory, TILE rows of the batch at a time.

    x: (B, K). grad_y: (B, N). grad_w: (K, N), filled. A block has (TILE, TILE) threads and makes TILE × TILE elements
    of grad_w, x of the thread counting columns n; the grid has blocks enough, and B, K, N need not be multiples.
    Shared memory: cuda.shared.array((TILE, TILE), np.float64), each on a line of its own.
    """
    row, column = cuda.threadIdx.y, cuda.threadIdx.x
    k, n = cuda.blockIdx.y * TILE + row, cuda.blockIdx.x * TILE + column
    first = cuda.blockIdx.y * TILE + column  # the column of x that this thread fetches
    x_tile = cuda.shared.array((TILE, TILE), np.float64)
    g_tile = cuda.shared.array((TILE, TILE), np.float64)
    total = 0.0
    for b0 in range(0, x.shape[0], TILE):
        b = b0 + row
        x_tile[row, column] = x[b, first] if b < x.shape[0] and first < x.shape[1] else 0.0
        g_tile[row, column] = grad_y[b, n] if b < x.shape[0] and n < grad_y.shape[1] else 0.0
        cuda.syncthreads()
        for s in range(TILE):
            total += x_tile[s, row] * g_tile[s, column]
        cuda.syncthreads()
    if k < grad_w.shape[0] and n < grad_w.shape[1]:
        grad_w[k, n] = total


def _launch(kernel: Function, blocks, threads, *arguments) -> None:
    from ...device import cuda

    function = getattr(kernel, "py_func", kernel)  # without the learner's @cuda.jit, if it is there
    function.__globals__.setdefault("cuda", cuda)
    cuda.jit(function)[blocks, threads](*arguments)


def _line(kernel: Function, z_mean, z_log_sigma, eps, z) -> None:
    """4 threads to a block, and blocks enough."""
    _launch(kernel, -(-z.size // 4), 4, z_mean, z_log_sigma, eps, z)


def _tiles(kernel: Function, x, grad_y, grad_w) -> None:
    K, N = grad_w.shape
    _launch(kernel, (-(-N // TILE), -(-K // TILE)), (TILE, TILE), x, grad_y, grad_w)


def _words(rng: np.random.Generator, case: int) -> tuple:
    """8 apart in pairs; anywhere near; a column of a tile whose lines are 33 long, and other words."""
    pairs = np.arange(32) // 2 * 8
    column = np.concatenate([33 * np.arange(12), 5 + 32 * np.arange(5), np.full(3, 12)])
    return ((pairs, rng.integers(0, 256, 24), column)[case],)


def _line_arrays(rng: np.random.Generator, case: int) -> tuple:
    n = (8, 7, 9)[case]  # whole blocks first
    return rng.standard_normal(n), rng.standard_normal(n), rng.standard_normal(n), np.full(n, np.nan)


def _tile_arrays(rng: np.random.Generator, case: int) -> tuple:
    B, K, N = ((8, 4, 12), (9, 3, 5), (6, 5, 2))[case]  # whole tiles first
    return rng.standard_normal((B, K)), rng.standard_normal((B, N)), np.full((K, N), np.nan)


def _element(value, number=lambda: cuda.grid(1), guard=lambda i, z: i < z.size):
    """A kernel that writes value(z_mean, z_log_sigma, eps) into one element."""

    def kernel(z_mean, z_log_sigma, eps, z):
        i = number()
        if guard(i, z):
            z[i] = value(z_mean[i], z_log_sigma[i], eps[i])

    return kernel


def _right(mean, log_sigma, eps):
    return mean + math.exp(log_sigma) * eps


def _product(terms):
    """A kernel that writes terms(x, grad_y, k, n), in no tiles."""

    def kernel(x, grad_y, grad_w):
        n, k = cuda.grid(2)
        if k < grad_w.shape[0] and n < grad_w.shape[1]:
            grad_w[k, n] = terms(x, grad_y, k, n)

    return kernel


def _sum(x, grad_y, k, n, rows):
    """The sum over these rows of the batch."""
    return sum(x[b, k] * grad_y[b, n] for b in rows)


def _last(B):
    """The first row of the last tile."""
    return (B - 1) // TILE * TILE


def _unguarded(x, grad_y, grad_w):
    n, k = cuda.grid(2)
    rows = -(-x.shape[0] // TILE) * TILE
    grad_w[k, n] = _sum(x, grad_y, k, n, range(rows))


def _turned(x, grad_y, k, n):
    """x's tile read with row and column changed round; zeros outside."""
    first, total = k // TILE * TILE, 0.0
    for b0 in range(0, x.shape[0], TILE):
        for s in range(TILE):
            b, column = b0 + k - first, first + s
            if b < x.shape[0] and column < x.shape[1] and b0 + s < x.shape[0]:
                total += x[b, column] * grad_y[b0 + s, n]
    return total


CHAPTER = Chapter(
    "14",
    "CUDA: the same ladder on a GPU",
    "14_cuda.md",
    (
        Exercise(
            cycles,
            _words,
            (
                Mistake("the most threads at one bank: threads that want the same word are served together",
                        lambda w: int(np.bincount(w % 32).max())),
                Mistake("the number of different words: those of different banks come in the same cycle",
                        lambda w: len(np.unique(w))),
                Mistake("the number of banks that are asked: they answer at the same time",
                        lambda w: len(np.unique(w % 32))),
                Mistake("the most threads at one word, which is served to all of them at once",
                        lambda w: int(np.bincount(w).max())),
                Mistake("the cycles if word after word lay in the same bank, 32 of them: bank w // 32",
                        lambda w: int(np.bincount(np.unique(w) // 32).max())),
                Mistake("the cycles that are lost, without the one that is needed anyway",
                        lambda w: cycles(w) - 1),
                Mistake("1, as if no two words ever shared a bank", lambda w: 1),
            ),
            (
                "The banks work at the same time, so only the busiest one counts. What makes a bank busy?",
                "Different words of the same bank. The same word, wanted by many, counts once: np.unique.",
                "np.bincount counts how often each number occurs: take the largest, of the different words' banks.",
            ),
        ),
        Exercise(
            sample_kernel,
            _line_arrays,
            (
                Mistake("the right numbers and writes behind the last one: a guard is missing, or lets too many pass",
                        _element(_right, guard=lambda i, z: True)),
                Mistake("the first block's numbers only: threadIdx alone is the same in every block",
                        _element(_right, number=lambda: cuda.threadIdx.x)),
                Mistake("a number for each block, not for each thread: blockIdx alone",
                        _element(_right, number=lambda: cuda.blockIdx.x)),
                Mistake("all numbers but the last: the guard is one too strict",
                        _element(_right, guard=lambda i, z: i < z.size - 1)),
                Mistake("z with exp(z_log_sigma / 2): z_log_sigma is no log-variance",
                        _element(lambda m, s, e: m + math.exp(s / 2) * e)),
                Mistake("z with exp(2 z_log_sigma), the variance, where the standard deviation belongs",
                        _element(lambda m, s, e: m + math.exp(2 * s) * e)),
                Mistake("z_mean + z_log_sigma · eps, without exp", _element(lambda m, s, e: m + s * e)),
                Mistake("z without the noise: eps is left out", _element(lambda m, s, e: m + math.exp(s))),
            ),
            (
                "Which number is this thread's? Its block's number, times the threads of a block, plus its own.",
                "cuda.grid(1) is that sum. A thread whose number is z.size or more has nothing to do.",
                "Three lines: the number, the guard, and the formula for this one element.",
            ),
            writes=("z",),
            run=_line,
        ),
        Exercise(
            grad_w_kernel,
            _tile_arrays,
            (
                Mistake("the last tile's terms only: the sum begins anew for each tile",
                        _product(lambda x, g, k, n: _sum(x, g, k, n, range(_last(x.shape[0]), x.shape[0])))),
                Mistake("the first tile's terms only: the loop over the batch is missing",
                        _product(lambda x, g, k, n: _sum(x, g, k, n, range(min(TILE, x.shape[0]))))),
                Mistake("the whole tiles' terms only: the rows that are left over are missing",
                        _product(lambda x, g, k, n: _sum(x, g, k, n, range(x.shape[0] // TILE * TILE)))),
                Mistake("one of each tile's terms: the loop over the tile's rows is missing",
                        _product(lambda x, g, k, n: _sum(x, g, k, n, range(0, x.shape[0], TILE)))),
                Mistake("the sum with x's tile turned: its first index must be the batch's, as it was fetched",
                        _product(_turned)),
                Mistake("the mean over the batch where the sum belongs",
                        _product(lambda x, g, k, n: _sum(x, g, k, n, range(x.shape[0])) / x.shape[0])),
                Mistake("the right numbers, and reads or writes outside: what lies outside must be 0 in the tiles, and "
                        "grad_w needs its guard", _unguarded),
            ),
            (
                "As in rung 3: fetch, barrier, sum, barrier. Here both factors have the batch along their rows.",
                "Each thread fetches x[b0 + row, blockIdx.y · TILE + column] and grad_y[b0 + row, n], or 0 outside.",
                "Over the tile's rows s: total += x_tile[s, row] · g_tile[s, column]; total is set to 0 once.",
            ),
            writes=("grad_w",),
            run=_tiles,
        ),
    ),
    PREAMBLE,
    {"NUMBA_ENABLE_CUDASIM": "1"},
)  # fmt: skip
