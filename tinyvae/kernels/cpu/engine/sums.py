"""Sums of an array, and over the lines of a matrix; their order depends on the shapes alone."""

from __future__ import annotations

import numpy as np
from numba import prange

from .compile import inner, jit, parallel
from .vector_math import add_in_any_order

LONG = 128  # numbers of the row that short rows are joined to


@inner
def copy(x, y):
    """y ← x, one row."""
    for i in range(y.size):
        y[i] = x[i]


@inner
def add_to(x, total):
    """total += x, one row."""
    for i in range(total.size):
        total[i] += x[i]


@inner
def sum_of(x):
    """Σ x in x's dtype."""
    total = x.dtype.type(0)
    for i in range(x.size):
        total = add_in_any_order(total, x[i])
    return total


@inner
def sum64(x):
    """Σ x in float64."""
    total = 0.0
    for i in range(x.size):
        total = add_in_any_order(total, float(x[i]))
    return total


@inner
def dot64(a, b):
    """Σ a · b in float64."""
    total = 0.0
    for i in range(a.size):
        total = add_in_any_order(total, float(a[i]) * float(b[i]))
    return total


@jit
def column_sums(flat, add, total, parts):
    """total (+)= the sums of columns, in `parts` pieces of the rows that are added in order."""
    sums = np.zeros((parts, total.size), total.dtype)
    for part in range(parts):
        part_sum(flat, sums, part)
    add_parts(sums, add, total)


@jit
def column_sums_spread(flat, add, total, parts):
    """column_sums with the pieces spread over the threads."""
    sums = np.zeros((parts, total.size), total.dtype)
    part_sums(flat, sums)
    add_parts(sums, add, total)


@parallel
def part_sums(flat, sums):
    """part_sum of every part."""
    for part in prange(sums.shape[0]):
        part_sum(flat, sums, np.int64(part))


@inner
def add_parts(sums, add, total):
    """total (+)= the rows of sums, in order."""
    if not add:
        total[:] = 0
    for part in range(sums.shape[0]):
        for j in range(total.size):
            total[j] += sums[part, j]


@inner
def part_sum(flat, sums, part):
    """sums[part] = the column sums of a piece of the rows. Short rows are taken several at a time, as one long row,
    so that whole vectors are added."""
    parts, N = sums.shape
    rows = flat.size // N
    first, last = rows * part // parts, rows * (part + 1) // parts
    together = max(1, LONG // N)
    wide = together * N
    long = np.zeros(wide, flat.dtype)
    whole = (last - first) // together
    for r in range(whole):
        row = flat[first * N + r * wide : first * N + (r + 1) * wide]
        for j in range(wide):
            long[j] += row[j]
    for i in range((first + whole * together) * N, last * N):
        sums[part, i % N] += flat[i]
    for j in range(wide):
        sums[part, j % N] += long[j]
