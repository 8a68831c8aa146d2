"""The CUDA product in the simulator, path by path: tiles, transposes, edges, parts, epilogues, tensor cores.
Run it in a process of its own: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/cuda/test_cuda_product.py."""

import os
from itertools import cycle

import numpy as np
import pytest

from tinyvae.device import open_device
from tinyvae.kernels import ELU, IDENTITY, RELU, SIGMOID, TANH, meaning, scratch
from tinyvae.kernels.check import Guarded

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
pytestmark = pytest.mark.skipif(not SIMULATED, reason="the CUDA simulator is off: NUMBA_ENABLE_CUDASIM=1")
if SIMULATED:
    from tinyvae.kernels.cuda import dense
    from tinyvae.kernels.cuda.engine import compile, tile
    from tinyvae.kernels.cuda.engine.intrinsics import tf32
    from tinyvae.kernels.cuda.engine.tile import PLAIN, TENSOR, Tile

    ONE = Tile(16, 32, 16, 4, 4, 1, 2)  # a single warp
    BROAD = Tile(64, 64, 16, 8, 8, 1, 4)
    SLICED = Tile(16, 32, 16, 4, 4, 2, 4)
    CORES = Tile(32, 32, 16, 4, 4, 1, 2, tensor=True)
    CORES_SLICED = CORES._replace(slices=2, stages=4)
PAIRS = {"x w": (True, False), "grad_y wT": (True, True), "xT grad_y": (False, False)}
ALIGNED, UNALIGNED = 64, 67  # numbers before each array


def normal(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32).astype(dtype)


def multiplied(tile, pair, sizes, dtype=np.float32, guard=ALIGNED, bias=False, act=IDENTITY, add=0, sums=False, a=None):
    """What multiply gives, the float64 product of the same numbers, and Σ|terms|: {name: array} each."""
    device, (M, N, K), (deep_a, deep_b) = open_device("cuda"), sizes, PAIRS[pair]
    a = normal(M, K, dtype=dtype) if a is None else a
    b, c, v, s = (normal(*shape, dtype=dtype, seed=i) for i, shape in enumerate(((K, N), (M, N), (N,), (N,)), 1))
    on = [
        Guarded(device, np.ascontiguousarray(x), guard)
        for x in (a if deep_a else a.T, b.T if deep_b else b, c if add else c * np.nan, v, s)
    ]
    A, B, C, V, S = (x.array for x in on)
    dense.multiply((tile,), A, deep_a, B, deep_b, sizes, C, V if bias else None, act, add, S if sums else None)
    assert all(x.bands_intact() for x in on)
    assert all(x.unchanged() for x in (on[0], on[1], on[3]))
    a, b, c, v, s = (x.astype(np.float64) for x in (a, b, c, v, s))
    want = a @ b + bias * v
    meaning("activate")(want, act, want)
    got = {"c": on[2].get()} | ({"sums": on[4].get()} if sums else {})
    want = {"c": want + c if add else want, "sums": b.sum(axis=0) + add * s}
    size = {"c": abs(a) @ abs(b) + abs(v) + abs(c), "sums": abs(b).sum(axis=0) + abs(s)}
    return got, want, size


def check(tile, pair, sizes, dtype=np.float32, **options):
    got, want, size = multiplied(tile, pair, sizes, dtype, **options)
    unit = 2.0**-24 if dtype == np.float32 else 2.0**-52
    for name, array in got.items():
        bound = (4 * np.sqrt(sizes[2]) + 8) * unit * size[name]
        assert (abs(array - want[name]) <= bound).all(), (name, array, want[name])


@pytest.mark.parametrize("sizes", [(1, 1, 1), (7, 33, 7), (15, 31, 15), (17, 32, 17), (33, 7, 33), (16, 33, 16)])
@pytest.mark.parametrize("pair", PAIRS)
def test_edges(pair, sizes):
    """Sizes of 1, one less and one more than the tile's; numbers one by one, from unaligned arrays."""
    check(ONE, pair, sizes, guard=UNALIGNED)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pair", PAIRS)
def test_sixteen_bytes_at_a_time(pair, dtype):
    """Aligned arrays take another kernel, unless a row ends amid 16 bytes."""
    check(ONE, pair, (20, 36, 12), dtype)
    seen = []
    compile.on_launch = lambda kernel, *_: seen.append(kernel)
    try:
        for guard, sizes in ((ALIGNED, (20, 36, 12)), (UNALIGNED, (20, 36, 12)), (ALIGNED, (19, 35, 11))):
            multiplied(ONE, pair, sizes, dtype, guard)
    finally:
        compile.on_launch = None
    assert seen[0] is not seen[1]
    assert seen[2] is seen[1]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("which", ["BROAD", "SLICED"])
def test_eight_by_eight_and_slices(which, pair):
    """Eight rows and columns a thread; threads that share a stage's depth; four stages."""
    check(globals()[which], pair, (18, 37, 55))
    check(globals()[which], pair, (17, 36, 20), np.float64)


@pytest.mark.parametrize("act", [RELU, ELU, TANH, SIGMOID])
def test_epilogue(act):
    """Bias and activation, four neighbours at a time and one by one."""
    check(SLICED, "x w", (5, 8, 3), bias=True, act=act)
    check(ONE, "x w", (5, 7, 3), np.float64, bias=True, act=act)


@pytest.mark.parametrize("guard", [ALIGNED, UNALIGNED])
@pytest.mark.parametrize("add", [0, 1])
def test_sums_and_adding(add, guard):
    """The sums of b's columns beside the product, written and added to what is there."""
    check(ONE, "xT grad_y", (17, 36, 21), add=add, sums=True, guard=guard)
    check(SLICED, "xT grad_y", (3, 33, 9), np.float64, add=add, sums=True, guard=guard)


@pytest.mark.parametrize("kind", ["PLAIN", "TENSOR"])
def test_tiles_of_every_size(kind):
    """The tiles that are used, each with a stage and an edge of it."""
    for itemsize, tiles in PLAIN.items() if kind == "PLAIN" else [(4, TENSOR[1:])]:
        for tile, pair in zip(tiles, cycle(PAIRS), strict=False):
            sizes = (5, 9, tile.depth + 4)
            if tile.tensor:
                close(tile, pair, sizes)
            else:
                check(tile, pair, sizes, np.dtype(f"f{itemsize}").type)


@pytest.mark.parametrize("add", [0, 1])
@pytest.mark.parametrize("no_b", [False, True])
def test_parts(monkeypatch, add, no_b):
    """A deep product in parts, of which the last is empty; partial sums are joined in order."""
    monkeypatch.setattr(scratch, "SHALLOW", 16)
    device, (B, K, N) = open_device("cuda"), (50, 5, 7)
    assert scratch.depth_parts(K, N, B) == 3
    x, grad_y, w, b = normal(B, K), normal(B, N), normal(K, N), normal(0 if no_b else N)
    work = np.full(scratch.depth_parts_workspace(K, N, B), np.nan, np.float32)
    on = [Guarded(device, array, ALIGNED) for array in (x, grad_y, work, w, b)]
    X, GRAD_Y, WORK, W, GRAD_B = (g.array for g in on)
    dense.dense_grad_w(X, GRAD_Y, add, WORK, W, GRAD_B, (ONE,))
    assert all(g.bands_intact() for g in on)
    np.testing.assert_allclose(on[3].get(), x.T @ grad_y + add * w, rtol=1e-5, atol=1e-5)
    if not no_b:
        np.testing.assert_allclose(on[4].get(), grad_y.sum(axis=0) + add * b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("add", [0, 1])
def test_bias_grad_in_parts(monkeypatch, add):
    """Many lines of few numbers: first the parts, then their sum."""
    monkeypatch.setattr(scratch, "SHALLOW", 16)
    device, grad_y, b = open_device("cuda"), normal(50, 33), normal(33)
    work = np.full(scratch.line_parts_workspace({"R": 50, "N": 33}), np.nan, np.float32)
    assert work.size == 3 * 33
    on = [Guarded(device, array, UNALIGNED) for array in (grad_y, work, b)]
    dense.bias_grad(on[0].array, add, on[1].array, on[2].array)
    assert all(g.bands_intact() for g in on)
    np.testing.assert_allclose(on[2].get(), grad_y.sum(axis=0) + add * b, rtol=1e-5, atol=1e-5)


def test_nothing_to_sum():
    """No rows in the batch: the gradient of the weight is 0, and outputs without elements launch nothing."""
    device = open_device("cuda")
    x, grad_y, work, w, b = (device.put(normal(*s)) for s in ((0, 3), (0, 5), (99,), (3, 5), (5,)))
    dense.dense_grad_w(x, grad_y, 0, work, w, b)
    assert not device.get(w).any()
    assert not device.get(b).any()
    dense.dense(x, w, b, IDENTITY, device.put(normal(0, 5)))


@pytest.mark.parametrize("tile", ["ONE", "CORES"])
def test_nan_stays_where_it_is(tile):
    """A NaN spoils its row and no other; an infinity likewise."""
    a = normal(6, 9)
    a[2, 8], a[4, 0] = np.nan, np.inf
    got = product_of(globals()[tile], a, normal(9, 3))
    assert np.isnan(got[2]).all()
    assert not np.isfinite(got[4]).any()
    assert np.isfinite(got[[0, 1, 3, 5]]).all()


# ---------------------------------------------------------------------------------------------- tensor cores


def product_of(tile, a, b, act=IDENTITY):
    device = open_device("cuda")
    c = device.empty((a.shape[0], b.shape[1]), a.dtype)
    dense.multiply((tile,), device.put(a), True, device.put(b), False, (*c.shape, a.shape[1]), c, None, act)
    return device.get(c)


def rounded(x):
    """float32 with 10 bits behind the point, the nearest; halves away from zero."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.trunc(mantissa * 2**11 + np.copysign(0.5, mantissa)), exponent - 11)


def close(tile, pair, sizes, **options):
    got, want, size = multiplied(tile, pair, sizes, **options)
    assert (abs(got["c"] - want["c"]) <= 1e-3 * size["c"]).all()


@pytest.mark.parametrize("sizes", [(1, 1, 1), (33, 31, 9), (20, 36, 12)])
@pytest.mark.parametrize("pair", PAIRS)
def test_tensor_cores(pair, sizes):
    """The fragments of every lane, at the edges, and 16 bytes at a time."""
    close(CORES, pair, sizes)


@pytest.mark.parametrize("pair", PAIRS)
def test_tensor_cores_in_slices(pair):
    close(CORES_SLICED, pair, (9, 33, 21), bias=True, add=1, sums=pair == "xT grad_y", guard=UNALIGNED)


def test_tensor_cores_round_to_the_nearest():
    """Exactly the product of rounded factors, but for float32's own rounding; not that of the factors themselves."""
    a, b = normal(9, 21), normal(21, 5)
    got, want = product_of(CORES, a, b), rounded(a) @ rounded(b)
    assert abs(got - want).max() < 1e-5
    assert abs(got - a.astype(np.float64) @ b).max() > 1e-4


def test_tf32_of_single_numbers():
    """Halves go away from zero, and what is no number stays none."""
    x = np.array([1, 1 + 2**-11, 1 + 2**-11 - 2**-23, -1 - 2**-11, 0, -3e38, np.inf, -np.inf], np.float32)
    got = np.array([tf32(v) for v in x], np.uint32) & np.uint32(0xFFFFE000)
    np.testing.assert_array_equal(got.view(np.float32)[:6], rounded(x[:6]).astype(np.float32))
    np.testing.assert_array_equal(got.view(np.float32)[6:], x[6:])
    for bits in (0x7FFFFFFF, 0x7FC00000, 0xFFC00000):
        nan = np.array([bits], np.uint32).view(np.float32)[0]
        assert np.isnan(np.array([tf32(nan)], np.uint32).view(np.float32)[0])


def test_tf32_ops():
    """The dense ops on tensor cores; float64 is never rounded."""
    device = open_device("cuda")
    x, w, b, grad_y = normal(6, 10), normal(10, 9), normal(9), normal(6, 9)
    X, W, B, GRAD_Y, WORK = map(device.put, (x, w, b, grad_y, normal(999)))
    y, grad_x, grad_w, grad_b = (device.empty(shape, np.float32) for shape in ((6, 9), (6, 10), (10, 9), (9,)))
    dense.TF32["dense"](X, W, B, RELU, y)
    dense.TF32["dense_grad_x"](GRAD_Y, W, WORK, grad_x)
    dense.TF32["dense_grad_w"](X, GRAD_Y, 0, WORK, grad_w, grad_b)
    for got, want in (
        (y, np.maximum(rounded(x) @ rounded(w) + b, 0)),
        (grad_x, rounded(grad_y) @ rounded(w).T),
        (grad_w, rounded(x).T @ rounded(grad_y)),
        (grad_b, grad_y.sum(axis=0)),
    ):
        np.testing.assert_allclose(device.get(got), want, rtol=0, atol=1e-5)
    y64 = device.empty((6, 9), np.float64)
    dense.TF32["dense"](*(device.put(v.astype(np.float64)) for v in (x, w, b)), IDENTITY, y64)
    np.testing.assert_allclose(device.get(y64), x.astype(np.float64) @ w + b, rtol=0, atol=1e-13)


def test_tiles_are_chosen_by_shapes():
    """Large products take large tiles, the ones of a VAE such as give every multiprocessor something to do."""
    chosen = {(4096, 4096): 128, (1024, 1024): 64, (784, 400): 32, (128, 784): 32, (128, 400): 16, (1, 10): 16}
    assert {sizes: tile.tile_for(PLAIN[4], *sizes).rows for sizes in chosen} == chosen
    assert tile.tile_for(PLAIN[4], 256, 256, 16) == tile.MEDIUM
    assert scratch.depth_parts(784, 400, 128) == 1
    assert scratch.depth_parts(16, 32, 25_088) == 98
