"""Chapter 08: right answers as learners write them, with loops, lists, other formulas; three to an exercise."""

import numba
import numpy as np


def blocked_by_matmul(a, b, c, depth):
    c[...] = 0
    for start in range(0, len(b), depth):
        c += a[:, start : start + depth] @ b[start : start + depth]
    return c  # nobody asked for it, nobody minds


def blocked_last_block_first(a, b, c, depth):
    starts = list(range(0, len(b), depth))
    total = np.zeros(c.shape, np.float32)
    while starts:
        k = starts.pop()
        total = total + np.einsum("ik,kj->ij", a[:, k : k + depth], b[k : k + depth])
    np.copyto(c, total)


@numba.njit
def blocked_compiled(a, b, c, depth):
    c[:] = 0
    for k0 in range(0, a.shape[1], depth):
        for i in range(a.shape[0]):
            for k in range(k0, min(k0 + depth, a.shape[1])):
                for j in range(b.shape[1]):
                    c[i, j] += a[i, k] * b[k, j]


def pack_panel_by_questions(b, j, columns):
    rows = []
    for row in b:
        rows.append([row[j + q] if j + q < len(row) else 0 for q in range(columns)])
    return rows


def pack_panel_by_slices(b, j, columns):
    panel = np.zeros((len(b), columns), np.float32)  # as the chapter's tile wants it
    panel[:, : b.shape[1] - j] = b[:, j : j + columns]
    return panel


def micro_kernel_in_place(a_panel, b_panel, c):
    for k in range(len(a_panel)):
        for i in range(c.shape[0]):
            c[i] += a_panel[k, i] * b_panel[k]


def micro_kernel_one_number_at_a_time(a_panel, b_panel, c):
    for i, j in np.ndindex(c.shape):
        c[i, j] = c[i, j] + sum(a_panel[:, i] * b_panel[:, j])


ANSWERS = {
    "roof": (
        lambda peak, bandwidth, f: peak if bandwidth * f > peak else bandwidth * f,
        lambda peak, bandwidth, f: 1 / max(1 / peak, 1 / (bandwidth * f)),
        lambda peak, bandwidth, f: np.minimum(peak, f * bandwidth),
    ),
    "blocked": (blocked_by_matmul, blocked_last_block_first, blocked_compiled),
    "pack_panel": (
        pack_panel_by_questions,
        pack_panel_by_slices,
        lambda b, j, columns: np.pad(b, ((0, 0), (0, columns)))[:, j : j + columns],
    ),
    "micro_kernel": (
        micro_kernel_in_place,
        micro_kernel_one_number_at_a_time,
        lambda a_panel, b_panel, c: np.add(c, a_panel.T @ b_panel, out=c),
    ),
}
