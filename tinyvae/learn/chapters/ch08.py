"""Chapter 08, Numba on the CPU: the roof over a program, blocks of k, a packed panel, and the loop inside the tile.
It knows the arithmetic, its typical mistakes and its hints; the text is in tutorials/."""

from __future__ import annotations

import numpy as np

from ..exercise import Chapter, Exercise, Mistake

ROOFS = ((120.0, 150.0, 1 / 6), (120.0, 150.0, 4.9), (60.0, 40.0, 2 / 3))
BLOCKED = ((2, 7, 3, 3), (4, 5, 6, 2), (3, 9, 2, 4))  # M, K, N, depth
PANELS = ((3, 7, 4, 4), (5, 6, 3, 5), (2, 9, 3, 4))  # K, N, first column, columns
FLOAT32 = 1e-6  # the chapter's arrays are float32, and so may be the learner's
TILES = ((5, 2, 3), (1, 4, 6), (7, 3, 2))  # K, rows, columns


def roof(peak, bandwidth, flop_per_byte):
    """The most that a loop can reach, in GFLOP/s, on a core that makes `peak` GFLOP/s and moves `bandwidth` GB/s.

    flop_per_byte: how many flop the loop makes for each byte that it loads or stores. Returns a number.
    """
    return min(peak, bandwidth * flop_per_byte)


def blocked(a, b, c, depth):
    """c = a b, the sum over k in blocks: first what k = 0 … depth − 1 give to all of c, then the next `depth` of them.

    a: (M, K). b: (K, N). c: (M, N), full of NaN at first; the function fills it. The last block may be shorter.
    """
    c[:] = 0
    for k0 in range(0, a.shape[1], depth):
        for i in range(a.shape[0]):
            for k in range(k0, min(k0 + depth, a.shape[1])):
                for j in range(b.shape[1]):
                    c[i, j] += a[i, k] * b[k, j]


def pack_panel(b, j, columns):
    """Columns j … j + columns − 1 of b, copied so that each row lies behind the one before; zeros where b has ended.

    b: (K, N), j < N. Returns (K, columns), also where fewer columns than that are left.
    """
    panel = np.zeros((b.shape[0], columns))
    for k in range(b.shape[0]):
        for q in range(min(columns, b.shape[1] - j)):
            panel[k, q] = b[k, j + q]
    return panel


def micro_kernel(a_panel, b_panel, c):
    """The loop inside the tile, c += Σ_k a_panel[k, i] · b_panel[k, j]: one k after another, sums kept to the end.

    a_panel: (K, rows), packed so that the numbers of one k are neighbours. b_panel: (K, columns). c: (rows, columns),
    which holds what earlier blocks of k gave; the function adds to it.
    """
    sums = np.zeros(c.shape)
    for k in range(len(a_panel)):
        for i in range(c.shape[0]):
            for j in range(c.shape[1]):
                sums[i, j] += a_panel[k, i] * b_panel[k, j]
    c += sums


def _blocked_cases(rng: np.random.Generator, case: int) -> tuple:
    M, K, N, depth = BLOCKED[case]
    return rng.standard_normal((M, K)), rng.standard_normal((K, N)), np.full((M, N), np.nan), depth


def _panel_cases(rng: np.random.Generator, case: int) -> tuple:
    K, N, j, columns = PANELS[case]
    return rng.standard_normal((K, N)), j, columns


def _tile_cases(rng: np.random.Generator, case: int) -> tuple[np.ndarray, ...]:
    K, rows, columns = TILES[case]
    return rng.standard_normal((K, rows)), rng.standard_normal((K, columns)), rng.standard_normal((rows, columns))


def _into(c, value):
    c[...] = value


def _parts(a, b, depth, width=None):
    """What each block of k gives to c; width: how many k of a block count."""
    starts = range(0, a.shape[1], depth)
    return [a[:, k : k + (width or depth)] @ b[k : k + (width or depth)] for k in starts]


def _columns(b, j, columns, mode):
    return np.take(b, np.arange(j, j + columns), axis=1, mode=mode)


CHAPTER = Chapter(
    "08",
    "Numba on the CPU: from three loops to the machine's peak",
    "08_numba_on_the_cpu.md",
    (
        Exercise(
            roof,
            lambda rng, case: ROOFS[case],
            (
                Mistake("the slanted roof alone: nobody gets above the peak", lambda p, b, f: b * f),
                Mistake("the flat roof alone: the peak, as if bytes cost nothing", lambda p, b, f: p),
                Mistake("the higher of the two roofs, where the lower one holds", lambda p, b, f: max(p, b * f)),
                Mistake("bandwidth / flop per byte, where they are multiplied", lambda p, b, f: min(p, b / f)),
                Mistake("the bandwidth where bandwidth · flop per byte belongs", lambda p, b, f: min(p, b)),
                Mistake("the rate as if bytes and flop had to wait for each other: their times added",
                        lambda p, b, f: 1 / (1 / p + 1 / (b * f))),
            ),
            (
                "There are two limits, and the loop must keep to both.",
                "One is the peak. The other: so many bytes in a second, and so many flop for each byte.",
                "GB/s times flop per byte is GFLOP/s. Which of the two limits is met first, the lower or the higher?",
            ),
        ),
        Exercise(
            blocked,
            _blocked_cases,
            (
                Mistake("the product without the last block, where it is shorter than depth",
                        lambda a, b, c, d: _into(c, sum(_parts(a[:, : a.shape[1] // d * d], b, d)))),
                Mistake("the last block's part alone: each block overwrites c, = where += belongs",
                        lambda a, b, c, d: _into(c, _parts(a, b, d)[-1])),
                Mistake("the first block's part alone", lambda a, b, c, d: _into(c, _parts(a, b, d)[0])),
                Mistake("NaN, what c held before: set it to 0 in place, then add to it (c = … names another array)",
                        lambda a, b, c, d: _into(c, c + a @ b)),
                Mistake("one k of each block: the loop inside the block is missing",
                        lambda a, b, c, d: _into(c, sum(_parts(a, b, d, 1)))),
                Mistake("blocks that overlap: the first k of the next block counts twice",
                        lambda a, b, c, d: _into(c, sum(_parts(a, b, d, d + 1)))),
            ),
            (
                "c collects what the blocks give, so it must begin as zeros and only ever be added to.",
                "Two loops make one: k0 in range(0, K, depth), and inside it k from k0 to the block's end.",
                "The block ends at min(k0 + depth, K): the last one may be shorter.",
            ),
            writes=("c",),
            tolerance=FLOAT32,
        ),
        Exercise(
            pack_panel,
            _panel_cases,
            (
                Mistake("a panel that repeats the last column where b has ended: zeros belong there",
                        lambda b, j, n: _columns(b, j, n, "clip")),
                Mistake("a panel that begins again with the first column where b has ended",
                        lambda b, j, n: _columns(b, j, n, "wrap")),
                Mistake("a panel that is narrower where b has ended: the tile reads all its columns",
                        lambda b, j, n: b[:, j : j + n]),
                Mistake("the last columns of b, moved back until they fit: then the tile would have to move too",
                        lambda b, j, n: b[:, min(j, b.shape[1] - n) :][:, :n]),
                Mistake("the panel's columns one behind the other: the rows must be",
                        lambda b, j, n: pack_panel(b, j, n).T.reshape(len(b), n)),
                Mistake("the panel that begins at column j · columns: j is a column, not the number of a panel",
                        lambda b, j, n: pack_panel(b, min(j * n, b.shape[1]), n)),
            ),
            (
                "Begin with an array of zeros of the panel's shape, and copy what there is.",
                "How many columns are left from j on? N − j, but never more than the panel is wide.",
                "panel[k, q] comes from b[k, j + q], for the first min(columns, N − j) of the q.",
            ),
            tolerance=FLOAT32,
        ),
        Exercise(
            micro_kernel,
            _tile_cases,
            (
                Mistake("the sum alone: what c held from earlier blocks of k is lost",
                        lambda a, b, c: _into(c, a.T @ b)),
                Mistake("c plus the last k's part: the sums are overwritten, not added to",
                        lambda a, b, c: _into(c, c + np.outer(a[-1], b[-1]))),
                Mistake("the last k's part alone: = where += belongs",
                        lambda a, b, c: _into(c, np.outer(a[-1], b[-1]))),
                Mistake("the sum without the first k", lambda a, b, c: _into(c, c + a[1:].T @ b[1:])),
                Mistake("the sum without the last k", lambda a, b, c: _into(c, c + a[:-1].T @ b[:-1])),
                Mistake("the product of the two panels' sums: each k has its own pair",
                        lambda a, b, c: _into(c, c + np.outer(a.sum(axis=0), b.sum(axis=0)))),
                Mistake("c minus the sum", lambda a, b, c: _into(c, c - a.T @ b)),
                Mistake("the sum with c added at every k", lambda a, b, c: _into(c, len(a) * c + a.T @ b)),
            ),
            (
                "Three loops, k outermost: what one k gives to all of the tile, then the next k.",
                "Keep rows × columns sums, zeros at first; a_panel[k, i] times b_panel[k, j] goes to the sum (i, j).",
                "Only behind the loop over k do the sums meet c, and they are added to it.",
            ),
            writes=("c",),
            tolerance=FLOAT32,
        ),
    ),
    preamble="import numba\nimport numpy as np",
)  # fmt: skip
