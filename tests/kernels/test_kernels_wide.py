"""The compiled products and convolutions at many more shapes than the table's examples: every path and every edge of
it, against the float64 reference. The shapes follow the tile of this machine; nothing here asks how long it takes."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from tinyvae import zoo
from tinyvae.config import TrainConfig
from tinyvae.errors import KernelError
from tinyvae.kernels import IDENTITY, OPS, RELU, TANH, output_size
from tinyvae.kernels.check import assert_close, call, call_reference, example_at, magnitudes, widened
from tinyvae.kernels.cpu import conv, dense
from tinyvae.kernels.cpu.engine import product, sparse
from tinyvae.kernels.cpu.engine.tile import ACROSS, MIDDLE, TALL, VECTOR_BYTES
from tinyvae.kernels.scratch import NARROW, TASKS, WIDEST, partial_sums
from tinyvae.training.step import Feed, Step

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
CONVS = ("conv2d", "conv2d_grad_x", "conv2d_grad_w")
PRODUCTS = ("dense", "dense_grad_x", "dense_grad_w")
UNALIGNED = 67  # elements of a guard band: 67 leaves the array unaligned

several_cores = pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one core")


def check(name, lengths, arguments, dtype, guard=UNALIGNED):
    """Runs the compiled op between guard bands and holds it against the float64 reference. Returns what it wrote."""
    got = call(name, arguments, "numba", guard)
    want = call_reference(name, widened(arguments))
    assert_close(name, got, want, magnitudes(name, arguments), OPS[name].depth(lengths), dtype)
    return got


def bits(written):
    return {name: array.tobytes() for name, array in written.items()}


# ------------------------------------------------------------------------------------------------ convolutions


def geometry(B, H, W, C, F, kernel, stride, padding, act=IDENTITY, bias=True, add=0):
    """Lengths and options of one convolution, for all three ops. bias: whether b, or grad_b, is there."""
    OH, OW = (output_size(n, kernel[i], stride[i], padding[i]) for i, n in enumerate((H, W)))
    return {
        "B": B, "H": H, "W": W, "C": C, "F": F, "KH": kernel[0], "KW": kernel[1], "OH": OH, "OW": OW,
        "stride": stride, "padding": padding, "act": act, "add": add, "no_b": not bias, "no_grad_b": not bias,
    }  # fmt: skip


SHAPES = {
    "one number": geometry(1, 1, 1, 1, 1, (1, 1), (1, 1), (0, 0), bias=False),
    "one channel, a digit's layer": geometry(3, 11, 9, 1, 14, (4, 4), (2, 2), (1, 1), RELU),
    "one channel, KW·C = 31": geometry(2, 3, 34, 1, 3, (2, 31), (1, 1), (0, 1), TANH),
    "one channel, KW·C = 32": geometry(2, 3, 34, 1, 3, (2, 32), (1, 1), (0, 1), bias=False, add=1),
    "3 channels": geometry(5, 7, 8, 3, 15, (3, 3), (2, 3), (1, 1), RELU, add=1),
    "3 channels, KW·C = 33": geometry(2, 4, 13, 3, 28, (1, 11), (1, 1), (0, 5), TANH),
    "3 channels, taps missing": geometry(2, 8, 9, 3, 1, (1, 2), (3, 4), (0, 0), RELU),
    "7 channels, KW·C = 28, wide padding": geometry(2, 5, 6, 7, 33, (3, 4), (2, 2), (3, 5), bias=False),
    "7 channels, KW·C = 35, rows not read": geometry(2, 8, 9, 7, 3, (3, 5), (3, 3), (0, 0), RELU, add=1),
    "15 channels, KW·C = 30": geometry(3, 6, 5, 15, 14, (3, 2), (2, 1), (1, 0), TANH, bias=False),
    "15 channels, KW·C = 45": geometry(1, 7, 7, 15, 70, (2, 3), (2, 2), (1, 1)),
    "16 channels, KW·C = 16": geometry(2, 5, 5, 16, 15, (1, 1), (1, 1), (0, 0), RELU),
    "16 channels, KW·C = 32": geometry(3, 7, 6, 16, 3, (2, 2), (2, 2), (0, 0), TANH, add=1),
    "16 channels, taps missing": geometry(2, 9, 8, 16, 14, (1, 2), (3, 3), (1, 0), RELU, add=1),
    "16 channels, taps missing, no bias": geometry(2, 9, 8, 16, 14, (2, 1), (3, 2), (0, 1), bias=False),
    "17 channels, rows not read": geometry(2, 10, 9, 17, 28, (3, 3), (2, 3), (0, 0), RELU, bias=False),
    "17 channels, wide padding": geometry(1, 3, 4, 17, 33, (2, 3), (1, 1), (4, 3), TANH),
    "17 channels, padding beyond the kernel, stride": geometry(2, 5, 6, 17, 1, (2, 2), (3, 2), (3, 2), RELU, add=1),
    "33 channels": geometry(4, 5, 7, 33, 15, (4, 4), (2, 2), (1, 1), RELU, add=1),
    "33 channels, kernel 1, stride 2": geometry(3, 5, 7, 33, 70, (1, 1), (2, 2), (0, 0), TANH),
    "64 channels": geometry(2, 4, 4, 64, 33, (4, 4), (2, 2), (1, 1), RELU),
    "64 channels, kernel as large as the image": geometry(3, 3, 5, 64, 3, (3, 5), (1, 1), (0, 0), bias=False),
    "a column": geometry(9, 12, 1, 17, 14, (4, 1), (2, 1), (1, 0), RELU, add=1),
    "sums cut within an image": geometry(5, 16, 16, 16, 3, (3, 2), (1, 1), (1, 1), add=1),
    "sums cut within an image, one channel": geometry(5, 17, 33, 1, 14, (4, 4), (1, 2), (1, 1), RELU),
    "more images than are summed at once": geometry(19, 4, 4, 17, 3, (2, 2), (1, 1), (0, 0)),
    "one image, many windows": geometry(1, 40, 9, 2, 15, (2, 2), (1, 1), (0, 0)),
}


@DTYPES
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CONVS)
def test_convolutions(name, shape, dtype):
    check(name, SHAPES[shape], example_at(name, SHAPES[shape], dtype, seed=len(shape)), dtype)


def test_the_shapes_cross_every_path():
    """Both ways to either gradient, phases without taps, pixels that no window reads, sums cut within an image."""
    shapes = list(SHAPES.values())
    assert {1, 3, 7, 15, 16, 17, 33, 64} <= {d["C"] for d in shapes}
    assert {1, 3, 14, 15, 28, 33, 70} <= {d["F"] for d in shapes}
    assert {WIDEST - 2, WIDEST - 1, WIDEST, WIDEST + 1} <= {d["KW"] * d["C"] for d in shapes}
    for side in (lambda d: d["C"] < NARROW, lambda d: d["C"] >= NARROW):
        here = [d for d in shapes if side(d)]
        assert any(d["KH"] < d["stride"][0] and d["KW"] < d["stride"][1] for d in here)
        assert any((d["H"] + 2 * d["padding"][0] - d["KH"]) % d["stride"][0] for d in here)
        assert any(d["padding"][0] >= d["KH"] and d["padding"][1] >= d["KW"] for d in here)
        assert {(d["act"], d["no_b"]) for d in here} > {(RELU, False), (TANH, False), (IDENTITY, True)}
    cut = [d for d in shapes if partial_sums(d["B"] * d["OH"] * d["OW"]) > 1]
    assert any(d["B"] * d["OH"] // partial_sums(d["B"] * d["OH"] * d["OW"]) % d["OH"] for d in cut)
    taps = [d["KH"] * d["KW"] * d["C"] for d in shapes]
    assert any(K % MIDDLE == 0 and K % TALL for K in taps)
    assert any(K % MIDDLE for K in taps)


MANY = {
    "scattering": geometry(19, 5, 6, 3, 15, (3, 3), (2, 2), (1, 1), RELU),
    "phases": geometry(19, 5, 6, 17, 15, (3, 3), (2, 2), (1, 1), RELU),
}


@DTYPES
@pytest.mark.parametrize("shape", MANY)
@pytest.mark.parametrize("name", CONVS[:2])
def test_a_batch_in_pieces_has_the_bits_of_the_whole(name, shape, dtype, monkeypatch):
    """Pieces that do not divide the batch, up to as many as the scratch has room for."""
    arguments, found = example_at(name, MANY[shape], dtype), []
    for tasks in (1, 4, TASKS):
        monkeypatch.setattr(conv, "_tasks", lambda grad_y, w, tasks=tasks: tasks)
        found.append(bits(check(name, MANY[shape], arguments, dtype)))
    assert found[0] == found[1] == found[2]


# ------------------------------------------------------------------------------------------------ lists


def lanes_of(dtype):
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def narrowest(dtype):
    """The fewest columns for which lists are made."""
    return sparse.WIDE * lanes_of(dtype)


LISTS = {  # columns beyond the fewest, in vectors and numbers; depth K
    "as narrow as can be": (0, 0, 70),
    "a number more": (0, 1, 70),
    "a number less than a vector more": (1, -1, 67),
    "whole vectors": (7, 0, 65),
    "two strips and a half": (1.5 * sparse.WIDE, 3, 90),
    "as deep as a list": (2, 0, sparse.DEEP),
    "deeper than a list": (2, 0, sparse.DEEP + 77),
    "three blocks, ragged": (sparse.WIDE, 0, 2 * sparse.DEEP + 1),
}


def list_case(name, shape, dtype, nonzero=0.2, **options):
    """Lengths and arguments of an op whose left factor A (M, K) has `nonzero` of its numbers not zero; A as a view."""
    vectors, numbers, K = LISTS[shape]
    N = narrowest(dtype) + int(vectors) * lanes_of(dtype) + numbers
    M = max(9, -(-product.SMALL // (K * N)) | 1)  # an odd number of rows, enough of them
    dims = {"dense": (M, K, N), "dense_grad_x": (M, N, K), "dense_grad_w": (K, M, N)}[name]
    lengths = dict(zip("BKN", dims, strict=True)) | {"act": IDENTITY, "add": 0} | options
    arguments = example_at(name, lengths, dtype, seed=3)
    rng, stored = np.random.default_rng(4), arguments[0]
    stored[rng.random(stored.shape) >= nonzero] = 0
    A = stored.T if name == "dense_grad_w" else stored
    if nonzero < 1:
        A[[0, 1, 6]] = 0  # both of a pair, one of a pair
        A[-1, : K // 2] = 0
        A[:, [0, K - 1]] = rng.standard_normal((M, 2))
        A[1] = 0
        A[0] = 0
    return lengths, arguments, A


@pytest.fixture
def ways(monkeypatch):
    """The names of the functions that made each product, as they are called."""
    taken = []

    def spy_on(name, function):
        def spy(*arguments):
            taken.append(name)
            return function(*arguments)

        monkeypatch.setattr(dense, name, spy)

    for name in ("dense_listed", "grad_x_listed", "grad_w_listed", "product"):
        spy_on(name, getattr(dense, name))
    return taken


LISTED = {"dense": "dense_listed", "dense_grad_x": "grad_x_listed", "dense_grad_w": "grad_w_listed"}
VARIED = {  # the options that go with a shape, in turn
    "dense": [{}, {"no_b": True}, {"act": RELU}, {"act": TANH}, {"act": RELU, "no_b": True}],
    "dense_grad_x": [{}],
    "dense_grad_w": [{}, {"no_grad_b": True}],
}


@DTYPES
@pytest.mark.parametrize(("place", "shape"), list(enumerate(LISTS)))
@pytest.mark.parametrize("name", PRODUCTS)
def test_lists(name, place, shape, dtype, ways):
    """Mostly zeros go by lists, everything else by the tile; both are right."""
    options = VARIED[name][place % len(VARIED[name])]
    for nonzero, listed in ((0.2, True), (1.0, False)):
        lengths, arguments, A = list_case(name, shape, dtype, nonzero, **options)
        N = arguments[-1 if name != "dense_grad_w" else 1].shape[1]
        assert sparse.pays(arguments[0], N, A.shape[1]) is listed
        check(name, lengths, arguments, dtype)
        assert ways.pop() == (LISTED[name] if listed else "product")
        assert not ways


@DTYPES
@pytest.mark.parametrize("options", VARIED["dense"], ids=str)
@pytest.mark.parametrize("shape", ["a number more", "deeper than a list"])
def test_lists_with_every_bias_and_activation(shape, options, dtype, ways):
    lengths, arguments, _ = list_case("dense", shape, dtype, **options)
    check("dense", lengths, arguments, dtype)
    assert ways == ["dense_listed"]


@DTYPES
@pytest.mark.parametrize("name", PRODUCTS)
def test_nothing_but_zeros(name, dtype, ways):
    """Lists without an entry: the bias alone, and zeros that are written."""
    lengths, arguments, _ = list_case(name, "deeper than a list", dtype)
    arguments[0][...] = 0
    got = check(name, lengths, arguments, dtype)
    assert ways == [LISTED[name]]
    if name == "dense":
        assert (got["y"] == arguments[2]).all()
    else:
        assert not got["grad_x" if name == "dense_grad_x" else "grad_w"].any()


@DTYPES
def test_when_lists_are_not_made(dtype):
    """Too many numbers, too few columns, too little work; too deep where vectors of a row overlap."""
    N, K = narrowest(dtype), 100
    A = np.zeros((-(-product.SMALL // (K * N)), K), dtype)
    few = int(sparse.SHARE * A.size)
    A.reshape(-1)[:few] = 1
    assert sparse.pays(A, N, K) is True
    assert sparse.pays(A, N - 1, K) is False
    assert sparse.pays(A[: len(A) // 2], N, K) is False
    deep = np.zeros((product.SMALL // (sparse.DEEP * N) + 1, sparse.DEEP + 1), dtype)
    assert sparse.pays(deep, N, sparse.DEEP + 1) is True
    assert sparse.pays(deep, N + 1, sparse.DEEP + 1) is False
    A.reshape(-1)[few] = np.nan
    assert sparse.pays(A, N, K) is False


@DTYPES
def test_the_lists_have_stretches_of_both_widths(dtype):
    columns = [narrowest(dtype) + int(vectors) * lanes_of(dtype) + numbers for vectors, numbers, _ in LISTS.values()]
    assert {sparse.strip_for(N, np.dtype(dtype).itemsize) for N in columns} == {sparse.WIDE, sparse.SLIM}


def test_gradients_that_are_added_go_by_the_tile(ways):
    lengths, arguments, _ = list_case("dense_grad_w", "whole vectors", np.float32, add=1)
    check("dense_grad_w", lengths, arguments, np.float32)
    assert ways == ["product"]


@DTYPES
@pytest.mark.parametrize("shape", ["a number more", "deeper than a list"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("dense", {}), ("dense", {"act": RELU}), ("dense", {"act": TANH}), ("dense_grad_x", {}), ("dense_grad_w", {})],
    ids=str,
)
def test_what_is_not_finite_comes_through_a_list(name, options, shape, dtype, ways):
    _, arguments, A = list_case(name, shape, dtype, **options)
    A[2, 5], A[5, 0], A[-1, -1], A[7, -2] = np.nan, np.inf, -np.inf, np.nan
    with np.errstate(invalid="ignore"):
        want = call_reference(name, widened(arguments))
        got = call(name, arguments, "numba")
    assert ways == [LISTED[name]]
    tolerance = 1e-4 if dtype == np.float32 else 1e-12
    assert any(np.isnan(array).any() for array in want.values())
    for argument, array in got.items():
        np.testing.assert_allclose(array, want[argument], rtol=tolerance, atol=tolerance * 100)


# ------------------------------------------------------------------------------------------------ products


PANEL = ACROSS * VECTOR_BYTES // 4  # columns of a float32 tile; a float64 tile has half
BLOCK = product.DEPTH_BYTES // 4  # k of a float32 block
SIZES = [
    (1, 1, 1), (1, 7, 33), (7, 1, 1), (7, 33, 7), (33, 7, 33), (33, 33, 1), (72, 73, 74),
    (TALL - 1, 5, PANEL - 1), (TALL, 6, PANEL), (TALL + 1, 7, PANEL + 1), (2 * TALL + 1, 3, PANEL // 2 + 1),
    (3, BLOCK - 1, 9), (TALL, BLOCK, PANEL), (4, BLOCK + 1, PANEL + 2), (5, BLOCK // 2 + 1, 17),
    (13, 383, 31), (14, 384, 32), (15, 385, 33), (385, 15, 384), (31, 14, 385),
    (33, 256, 34), (17, 512, 33), (19, 35, 256), (15, 21, 512), (256, 13, 256), (7, 128, 128),
    (product.TILES * TALL + 3, 256, 5), (4, product.TILES * TALL + 116, 6), (5, 512, 256), (150, 130, 256),
    (4 * product.TILES * TALL + 15, 3, product.GROUP * PANEL + 1), (2, 4 * product.TILES * TALL + 15, 131),
]  # fmt: skip


@DTYPES
@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize(("place", "size"), list(enumerate(SIZES)))
def test_products(name, place, size, dtype):
    lengths = dict(zip("BKN", size, strict=True))
    lengths |= {"act": (IDENTITY, RELU, TANH)[place % 3], "add": place // 2 % 2}
    lengths |= {"no_b": place % 4 == 1, "no_grad_b": place % 4 == 1}
    check(name, lengths, example_at(name, lengths, dtype, seed=place), dtype, (UNALIGNED, 64)[place % 2])


# ------------------------------------------------------------------------------------------------ scratch


FULL = {  # every room of the scratch in use
    "wide": geometry(TASKS, 5, 5, 16, 3, (2, 2), (2, 2), (0, 0)),
    "narrow": geometry(TASKS, 5, 5, 3, 14, (2, 2), (2, 2), (0, 0)),
    "sums of wide images": geometry(TASKS, 23, 24, 16, 1, (1, 2), (1, 1), (0, 0)),
    "sums of narrow images": geometry(TASKS, 23, 24, 1, 3, (1, 2), (1, 1), (0, 0)),
}


def shapes_of(name, arguments):
    return [a.shape for arg, a in zip(OPS[name].args, arguments, strict=True) if arg.role in ("in", "inout", "out")]


@DTYPES
@pytest.mark.parametrize("shape", FULL)
@pytest.mark.parametrize("name", CONVS)
def test_scratch_of_exactly_the_stated_size(name, shape, dtype, monkeypatch):
    """All pieces at work, the scratch at every distance from a vector's boundary: the bits do not change, and nothing
    beside it is written. A number less is refused."""
    monkeypatch.setattr(conv, "_tasks", lambda grad_y, w: TASKS)
    lengths = FULL[shape]
    if shape.startswith("sums"):
        assert partial_sums(lengths["B"] * lengths["OH"] * lengths["OW"]) == TASKS
        if name != "conv2d_grad_w":
            return
    arguments = example_at(name, lengths, dtype)
    place = next(i for i, arg in enumerate(OPS[name].args) if arg.role == "work")
    options = {"stride": lengths["stride"], "padding": lengths["padding"]}
    assert arguments[place].size == OPS[name].work_size(*shapes_of(name, arguments), options=options)
    first = bits(check(name, lengths, arguments, dtype))
    for guard in range(256, 256 + lanes_of(dtype)):
        assert bits(call(name, arguments, "numba", guard)) == first
    arguments[place] = arguments[place][:-1]
    with pytest.raises(KernelError, match=f"{name}: work has "):
        call(name, arguments, "numba")


@DTYPES
@pytest.mark.parametrize("name", PRODUCTS[1:])
def test_scratch_of_lists(name, dtype, ways):
    for shape in ("a number more", "two strips and a half"):
        lengths, arguments, A = list_case(name, shape, dtype)
        work = next(a for arg, a in zip(OPS[name].args, arguments, strict=True) if arg.role == "work")
        assert work.size == OPS[name].work_size(*shapes_of(name, arguments)) >= A.size * (name == "dense_grad_w")
        first = bits(check(name, lengths, arguments, dtype, guard=256))
        assert bits(call(name, arguments, "numba", guard=257)) == first
    assert ways == [LISTED[name]] * 4


# ------------------------------------------------------------------------------------------------ threads


LARGE = {
    "phases": geometry(7, 26, 25, 17, 30, (3, 3), (2, 2), (1, 1), RELU),
    "scattered": geometry(7, 27, 25, 3, 30, (4, 4), (2, 2), (1, 1), RELU),
    "one channel": geometry(11, 28, 28, 1, 32, (4, 4), (2, 2), (1, 1), RELU),
}
DENSE = {"B": 131, "K": 157, "N": 397, "act": RELU, "add": 0}


def thread_cases():
    """(name, lengths, arguments) of calls that are large enough for threads."""
    for name in CONVS:
        for shape in LARGE.values():
            assert OPS[name].flops(shape) >= 2 * product.SMALL
            assert partial_sums(shape["B"] * shape["OH"] * shape["OW"]) > 1
            yield name, shape, example_at(name, shape, np.float32)
    for name in PRODUCTS:
        yield name, DENSE, example_at(name, DENSE, np.float32)
        for shape in ("two strips and a half", "deeper than a list"):
            options = {"act": RELU} if name == "dense" else {}
            yield name, *list_case(name, shape, np.float32, **options)[:2]


def same_at_all_threads(counts, repeats):
    """Every case has the same bits at each number of threads, each time, and is right."""
    before = numba.get_num_threads()
    try:
        for name, lengths, arguments in thread_cases():
            numba.set_num_threads(max(counts))
            want = bits(check(name, lengths, arguments, np.float32))
            for threads in counts:
                numba.set_num_threads(threads)
                for _ in range(repeats):
                    assert bits(call(name, arguments, "numba")) == want, f"{name} at {threads} threads, {lengths}"
    finally:
        numba.set_num_threads(before)


@several_cores
def test_the_bits_at_one_and_two_threads():
    same_at_all_threads((1, 2), 5)


def test_the_bits_at_four_threads():
    """In a process that has four, on however many cores."""
    script = (
        "import numba, test_kernels_wide as t; t.same_at_all_threads((1, 2, 4), 20); print(numba.get_num_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"NUMBA_NUM_THREADS": "4"}, cwd=Path(__file__).parent,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.strip() == "4", done.stderr


# ------------------------------------------------------------------------------------------------ loss curves


def losses(device, name, shape, dtype, steps=200):
    model = zoo.build(name, shape, 3, (24,), device=device, dtype=dtype)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 1, 1, shape[2]), np.uint8) * rng.integers(0, 2, shape, np.uint8)
    step = Step(model, Feed(model, images), TrainConfig(batch_size=5, lr=1e-3))
    return np.array([float(model.device.get(step.run().metrics)[0]) for _ in range(steps)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "shape"), [("vae", (6, 5, 1)), ("conv-vae", (9, 10, 1)), ("conv-vae", (18, 17, 3))])
def test_loss_curves_overlay(name, shape, dtype):
    """200 steps on the reference and on the compiled ops are the same run, up to rounding."""
    want, got = (losses(device, name, shape, dtype) for device in ("numpy", "numba"))
    assert want[-1] < 0.9 * want[0]
    off = np.abs(got / want - 1)
    if dtype == "float64":
        assert off.max() < 1e-10
    else:
        assert off[:10].max() < 1e-5
        assert off.max() < 5e-3
