"""The exercises that are graded in Numba's CUDA simulator: of them is asked what test_learn.py asks of the others.
The simulator wants a process of its own: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/cuda/test_cuda_learn.py."""

import math

import numpy as np
import pytest
import test_learn as every
from numba import cuda

from tinyvae.learn import chapter_of, grade
from tinyvae.learn.child_process import is_here

CHAPTER = chapter_of("14")
pytestmark = pytest.mark.skipif(not is_here(CHAPTER), reason="the CUDA simulator is off: NUMBA_ENABLE_CUDASIM=1")
CHECKS = (
    every.test_the_solution_passes,
    every.test_the_stub_fails_and_says_so,
    every.test_every_planted_mistake_is_named,
    every.test_cases_differ_in_shape_and_none_is_square,
    every.test_hints_do_not_hold_the_answer,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("test_"))
@pytest.mark.parametrize("exercise", CHAPTER.exercises, ids=lambda e: e.name)
def test_exercise(exercise, check):
    check(exercise)


# ------------------------------------------------------------------------------------------------ written otherwise

TILE = 4


def cycles_by_sets(words):
    banks = {}
    for word in words:
        banks.setdefault(int(word) % 32, set()).add(int(word))
    return max(len(bank) for bank in banks.values())


def cycles_by_rounds(words):
    """Cycle after cycle: each bank serves one word that is left."""
    left, rounds = {int(w) for w in words}, 0
    while left:
        left -= {min(w for w in left if w % 32 == bank) for bank in {w % 32 for w in left}}
        rounds += 1
    return rounds


def cycles_by_table(words):
    wanted = np.zeros((max(words) // 32 + 1, 32))
    wanted[words // 32, words % 32] = 1
    return wanted.sum(axis=0).max()


@cuda.jit
def sample_by_hand(z_mean, z_log_sigma, eps, z):
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if i >= len(z):
        return
    z[i] = eps[i] * np.exp(z_log_sigma[i]) + z_mean[i]


def sample_by_strides(z_mean, z_log_sigma, eps, z):
    """Right for a grid of any size: each thread takes every so many numbers."""
    for i in range(cuda.grid(1), z.shape[0], cuda.gridsize(1)):
        z[i] = z_mean[i] + math.exp(z_log_sigma[i]) * eps[i]


def sample_across_blocks(z_mean, z_log_sigma, eps, z):
    """Neighbours in different blocks: slow on a GPU, and right."""
    i = cuda.threadIdx.x * cuda.gridDim.x + cuda.blockIdx.x
    if i < z.size:
        z[i] = z_mean[i] + math.e ** z_log_sigma[i] * eps[i]


def grad_w_turned(x, grad_y, grad_w):
    """x's tile lies turned in shared memory; the whole index is checked where it is fetched."""
    i, j = cuda.threadIdx.x, cuda.threadIdx.y
    n, k = cuda.grid(2)
    x_tile = cuda.shared.array((TILE, TILE), np.float64)
    g_tile = cuda.shared.array((TILE, TILE), np.float64)
    total = 0
    for step in range((x.shape[0] + TILE - 1) // TILE):
        x_tile[j, i] = 0
        g_tile[j, i] = 0
        if step * TILE + i < x.shape[0] and k < x.shape[1]:
            x_tile[j, i] = x[step * TILE + i, k]
        if step * TILE + j < x.shape[0] and n < grad_y.shape[1]:
            g_tile[j, i] = grad_y[step * TILE + j, n]
        cuda.syncthreads()
        for s in range(TILE):
            total += x_tile[j, s] * g_tile[s, i]
        cuda.syncthreads()
    if k < grad_w.shape[0] and n < grad_w.shape[1]:
        grad_w[k, n] = total


def grad_w_without_tiles(x, grad_y, grad_w):
    n, k = cuda.grid(2)
    if k < grad_w.shape[0] and n < grad_w.shape[1]:
        total = 0.0
        for b in range(x.shape[0]):
            total += x[b, k] * grad_y[b, n]
        grad_w[k, n] = total


@cuda.jit
def grad_w_flat(x, grad_y, grad_w):
    """Flat tiles, and rows left over are left out of the sum in place of zeros."""
    row, column = cuda.threadIdx.y, cuda.threadIdx.x
    k0, n0 = cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE
    tiles = cuda.shared.array(2 * TILE * TILE, np.float64)
    sums = cuda.local.array(1, np.float64)
    sums[0] = 0
    for b0 in range(0, x.shape[0], TILE):
        rows = min(TILE, x.shape[0] - b0)
        if row < rows:
            if k0 + column < x.shape[1]:
                tiles[row * TILE + column] = x[b0 + row, k0 + column]
            if n0 + column < grad_y.shape[1]:
                tiles[TILE * TILE + row * TILE + column] = grad_y[b0 + row, n0 + column]
        cuda.syncthreads()
        if k0 + row < grad_w.shape[0] and n0 + column < grad_w.shape[1]:
            for s in range(rows):
                sums[0] += tiles[s * TILE + row] * tiles[TILE * TILE + s * TILE + column]
        cuda.syncthreads()
    if k0 + row < grad_w.shape[0] and n0 + column < grad_w.shape[1]:
        grad_w[k0 + row, n0 + column] = sums[0]


WAYS = {
    "cycles": (cycles_by_sets, cycles_by_rounds, cycles_by_table),
    "sample_kernel": (sample_by_hand, sample_by_strides, sample_across_blocks),
    "grad_w_kernel": (grad_w_turned, grad_w_without_tiles, grad_w_flat),
}


@pytest.mark.parametrize("name", WAYS)
def test_right_answers_written_otherwise_pass(name):
    for way in WAYS[name]:
        verdict = grade(CHAPTER.exercise(name), way)
        assert verdict.ok, f"{way}: {verdict.text}"


@pytest.mark.parametrize(("change", "raced"), [(0, False), (1, True)])
def test_a_kernel_whose_numbers_change_is_told_of_barriers(change, raced):
    """What a missing barrier does depends on the threads' order; here a count stands for it."""
    launches = []

    def unsteady(z_mean, z_log_sigma, eps, z):
        i = cuda.grid(1)
        if i < z.size:
            launches.append(change)
            z[i] = sum(launches)

    verdict = grade(CHAPTER.exercise("sample_kernel"), unsteady)
    assert not verdict.ok
    assert ("is a barrier missing?" in verdict.text) == raced
