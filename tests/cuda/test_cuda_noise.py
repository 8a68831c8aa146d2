"""Draws, batches, optimisers and the clock of the CUDA column in Numba's simulator, beyond the table's examples.
Run it in a process of its own: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/cuda/test_cuda_noise.py."""

import os

import numpy as np
import pytest

from tinyvae.device import open_device
from tinyvae.kernels import OPS
from tinyvae.kernels.check import call, call_reference
from tinyvae.kernels.clock import CLIP, CONSTANT, COSINE, COUNTERS, CURSOR, NORM, RATES, ROW, SEED, STEP, STEPWISE
from tinyvae.kernels.op import FLOATS
from tinyvae.kernels.scratch import SUMMED, norm_sums

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
pytestmark = pytest.mark.skipif(not SIMULATED, reason="the CUDA simulator is off: NUMBA_ENABLE_CUDASIM=1")

DTYPES = pytest.mark.parametrize("dtype", FLOATS, ids=str)
GUARDS = (64, 67)  # elements: 67 leaves the arrays unaligned


def clock_at(row=0, step=3, cursor=0, seed=0xC0FFEE1234567890):
    counters = np.zeros(COUNTERS, np.uint64)
    counters[[STEP, CURSOR, ROW, SEED]] = np.array([step, cursor, row, seed], np.uint64)
    return counters


def blank(shape, dtype):
    """An output that shows where nothing was written."""
    dtype = np.dtype(dtype)
    return np.full(shape, np.nan if dtype.kind == "f" else np.iinfo(dtype).max, dtype)


def same_as_the_reference(name, *arguments, guards=GUARDS, rtol=0.0, atol=0.0):
    """Equal to the reference, or within the tolerance, and the same bits whether the arrays are aligned or not."""
    want, first = call_reference(name, arguments), None
    for guard in guards:
        got = call(name, arguments, "cuda", guard)
        for argument, array in got.items():
            np.testing.assert_allclose(array, want[argument], rtol=rtol, atol=atol, err_msg=f"{name}: {argument}")
            assert first is None or array.tobytes() == first[argument].tobytes()
        first = got
    return first


# ------------------------------------------------------------------------------------------------ draws

KNOWN_ANSWERS = [  # Random123's kat_vectors: counter, key, words of philox4x32-10
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_against_published_words(counter, key, words):
    from tinyvae.kernels.cuda.engine.philox import philox

    low, high, step, stream = counter
    block, seed = np.uint64(low + (high << 32)), np.uint64(key[0] + (key[1] << 32))
    assert tuple(map(int, philox(block, np.uint64(step), np.uint32(stream), seed))) == words


PLACES = [(1, 2, 0), (1, 6, 3), (3, 5, 3), (3, 1, 2), (5, 1, 3), (5, 3, 2), (7, 3, 1), (7, 2, 5), (4, 3, 1), (8, 2, 0)]


@DTYPES
@pytest.mark.parametrize(("width", "rows", "row"), PLACES)
def test_draws_begin_at_any_lane(width, rows, row, dtype):
    """Heads and tails within a block of Philox, at widths and rows that begin at every lane."""
    counters, shape = clock_at(row), (rows, width)
    p = np.random.default_rng(width).random(shape).astype(dtype)
    same_as_the_reference("philox_bits", counters, 17, blank(shape, np.uint32))
    same_as_the_reference("philox_uniform", counters, 17, blank(shape, dtype))
    same_as_the_reference("philox_bernoulli", p, counters, 17, blank(shape, dtype))
    unit = 2.0**-23 if dtype == np.float32 else 2.0**-52
    same_as_the_reference("philox_normal", counters, 17, blank(shape, dtype), atol=16 * unit)


def test_the_places_begin_at_every_lane():
    assert {width * row % 4 for width, _, row in PLACES} == {0, 1, 2, 3}


@pytest.mark.parametrize("step", [0, 2**32 - 1, 2**32 + 5, 2**63 + 2**31])
@pytest.mark.parametrize("row", [0, 2**33 + 1, 2**60 + 3])
def test_large_counters(step, row):
    """A step beyond 32 bits counts by its lower half; a position beyond them reaches the block's upper word."""
    same_as_the_reference("philox_bits", clock_at(row, step, seed=2**64 - 1), 2**32 - 1, blank((2, 5), np.uint32))


@DTYPES
def test_a_chance_equal_to_the_uniform_is_a_zero(dtype):
    """And one that is larger by the last bit of float64 a one, where a byte is the chance."""
    counters, x = clock_at(), blank((1, 4), dtype)
    uniform = call("philox_uniform", [counters, 2, x], "cuda")["out"]
    assert not call("philox_bernoulli", [uniform, counters, 2, x], "cuda")["out"].any()
    images, order = np.ones((1, 4), np.uint8), np.zeros(1, np.int64)
    for i, u in enumerate(uniform[0].astype(np.float64)):
        for scale, coin in ((u, 0), (np.nextafter(u, 1), 1)):
            assert call("gather_binary", [images, order, counters, scale, 2, 1, x], "cuda")["x"][0, i] == coin


def test_a_last_block_for_the_tail():
    """As many numbers as a block of threads writes, but from a later lane on: a second block writes the rest."""
    same_as_the_reference("philox_bits", clock_at(3), 16, blank((512, 1), np.uint32), guards=(64,))
    images, order, scale = batch(511, np.uint8)
    x = blank((1, 511), np.float32)
    same_as_the_reference("gather_binary", images, order, clock_at(1), scale, 2, 1, x, guards=(64,))


# ------------------------------------------------------------------------------------------------ batches


def batch(P, kind, seed=0):
    """Six images, an order of nine, and a cursor in its middle."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (6, P)).astype(np.uint8) if kind == np.uint8 else rng.random((6, P)).astype(kind)
    return images, rng.integers(0, 6, 9), 1 / 255 if kind == np.uint8 else 1.0


@DTYPES
@pytest.mark.parametrize("P", [1, 3, 5, 7, 8, 12, 600])
def test_batches_of_bytes_and_of_floats(P, dtype):
    """Rows that are vectors and rows that are none, and more pixels than one block of threads takes."""
    counters, x, guards = clock_at(cursor=4), blank((3, P), dtype), GUARDS if P < 600 else (64,)
    for kind in (np.dtype(np.uint8), dtype):
        images, order, scale = batch(P, kind)
        same_as_the_reference("gather", images, order, counters, scale, x, guards=guards)


@DTYPES
@pytest.mark.parametrize("dynamic", [0, 1])
@pytest.mark.parametrize(("P", "row"), [(1, 3), (3, 2), (5, 1), (7, 1), (8, 3)])
def test_coins_begin_at_any_lane(P, row, dynamic, dtype):
    for kind in (np.dtype(np.uint8), dtype):
        images, order, scale = batch(P, kind)
        counters = clock_at(row, cursor=4)
        same_as_the_reference("gather_binary", images, order, counters, scale, 2, dynamic, blank((3, P), dtype))


@pytest.mark.parametrize("P", [3, 4])
def test_a_row_without_an_image_is_not_a_number(P):
    """A cursor near the end of the order, and an order that names an image beyond the set."""
    images, order, scale = batch(P, np.uint8)
    order[7] = 6
    for name, options in (("gather", ()), ("gather_binary", (2, 1)), ("gather_binary", (2, 0))):
        x = call(name, [images, order, clock_at(cursor=6), scale, *options, blank((4, P), np.float64)], "cuda")["x"]
        assert np.isnan(x).all(axis=1).tolist() == [False, True, False, True]
        assert np.isfinite(x[[0, 2]]).all()


# ------------------------------------------------------------------------------------------------ optimisers


def scratch(n, dtype):
    return np.full(OPS["grad_norm"].work_size((n,)), np.nan, dtype)


@DTYPES
@pytest.mark.parametrize("n", [0, 5, 3 * SUMMED + 7])
def test_the_norm_of_several_sums(n, dtype):
    assert norm_sums(n) == (3 if n > SUMMED else 1)
    grads = np.random.default_rng(n).standard_normal(n).astype(dtype)
    same_as_the_reference("grad_norm", grads, 0.5, scratch(n, dtype), np.zeros(8), rtol=1e-14)


def test_the_norm_of_more_sums_than_threads():
    from tinyvae.kernels.cuda.engine.compile import launch
    from tinyvae.kernels.cuda.optimise import THREADS, norm_kernel

    device, sums = open_device("cuda"), np.arange(2.0 * THREADS + 5)
    rates = device.put(np.zeros(8))
    launch(norm_kernel, 1, THREADS, device.put(sums), sums.size, 0.0, rates)
    assert device.get(rates)[NORM] == pytest.approx(np.sqrt(sums.sum()), rel=1e-15)


def test_the_sums_stand_where_float64_may(monkeypatch):
    """On 8 bytes, wherever the scratch begins: a GPU refuses what NumPy allows."""
    from tinyvae.device import address
    from tinyvae.kernels.cuda import COLUMN
    from tinyvae.kernels.cuda.engine import compile

    device, seen = open_device("cuda"), []
    monkeypatch.setattr(compile, "on_launch", lambda kernel, blocks, threads, arguments: seen.append(arguments))
    grads, rates = device.put(np.zeros(5, np.float32)), device.put(np.zeros(8))
    whole = device.put(np.zeros(4, np.float32))
    for start in (0, 1):
        COLUMN["grad_norm"](grads, 1.0, whole[start : start + 3], rates)
        assert [(a.size, address(a) % 8) for a in (seen[-2][-1], seen[-1][0])] == [(2, 0), (2, 0)]


def norm_of(grads, max_norm):
    return call("grad_norm", [grads, max_norm, scratch(grads.size, grads.dtype), np.zeros(8)], "cuda")["rates"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_norm_shows_what_is_no_number(bad):
    assert not np.isfinite(norm_of(np.array([1, bad, 2, 3, 4, 5], np.float32), 1.0)[NORM])


def test_the_norm_does_not_overflow():
    rates = norm_of(np.full(100, 1e30, np.float32), 1.0)
    assert rates[NORM] == pytest.approx(1e31, rel=1e-6)
    assert rates[CLIP] == pytest.approx(1e-31, rel=1e-6)


@DTYPES
@pytest.mark.parametrize("n", [0, 1, 4, 7, 515])
def test_optimisers_at_ends_that_are_no_vector(n, dtype):
    rng = np.random.default_rng(n)
    grads, values, m = (rng.standard_normal(n).astype(dtype) for _ in range(3))
    rates, v, near = rng.random(8) + 0.1, rng.random(n).astype(dtype), 16 * np.finfo(dtype).eps
    same_as_the_reference("adam", grads, rates, 0.9, 0.999, 1e-8, values, m, v, rtol=near, atol=near)
    same_as_the_reference("sgd", grads, rates, 0.9, values, m, rtol=near, atol=near)


# ------------------------------------------------------------------------------------------------ the clock

PLAYERS = [  # kind, base lr, warm-up, total, period, gamma, beta1, beta2, every
    (CONSTANT, 1e-3, 0, 60, 10, 0.1, 0.9, 0.999, 1),
    (CONSTANT, 2e-3, 7, 60, 10, 0.1, 0.5, 0.9, 3),
    (STEPWISE, 1e-2, 4, 60, 9, 0.3, 0.0, 0.99, 2),
    (COSINE, 3e-3, 5, 50, 10, 0.1, 0.9, 0.999, 1),
    (COSINE, 1e-1, 0, 1, 10, 0.1, 0.0, 0.0, 5),
]


@pytest.mark.parametrize("head", [(0, 0, 0, 0), (25, 0, 0, 0.3), (7, 10, 0, 0), (25, 0, 12.5, 0)])
def test_tick_over_many_steps(head):
    """Every schedule to beyond its end; warm-up, cycles, a capacity; more KL weights than a warp has threads."""
    plan = np.array([7, 32, 0.7, *head, *np.ravel(PLAYERS)])
    counters, rates = clock_at(step=0), np.zeros(len(PLAYERS) * RATES + 40)
    for step in range(1, 65):
        want = call_reference("tick", [plan, counters, rates])
        got = call("tick", [plan, counters, rates], "cuda")
        np.testing.assert_array_equal(got["counters"], want["counters"])
        np.testing.assert_allclose(got["rates"], want["rates"], rtol=1e-15, atol=1e-18)
        counters, rates = got["counters"], got["rates"]
        assert counters[STEP] == step


def test_tick_of_more_players_than_threads():
    plan = np.array([7, 32, 0.7, 25, 0, 0, 0, *np.ravel(PLAYERS * 7)])
    same_as_the_reference("tick", plan, clock_at(step=2**40), np.zeros(35 * RATES + 1), rtol=1e-15)
