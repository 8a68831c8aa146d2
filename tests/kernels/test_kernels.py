"""What follows from the op table by itself, for every op, example, dtype and device; and naive twins of the arithmetic.
A new row of the table, or a new column, is tested by being there."""

import inspect
import re
from importlib import import_module
from pkgutil import iter_modules
from types import SimpleNamespace

import naive_ops as naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyvae import kernels, zoo
from tinyvae.device import open_device
from tinyvae.errors import KernelError
from tinyvae.kernels import ACTIVATIONS, IDENTITY, OPS, RELU, output_size
from tinyvae.kernels.check import (
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
from tinyvae.kernels.clock import COUNTERS, CURSOR, ROW, SEED, STEP
from tinyvae.kernels.op import FLOATS

CASES = [pytest.param(name, label, id=f"{name}-{label}") for name, label in cases()]
GUARD = {"tiny": 67, "ragged": 67, "model": 64}  # elements: 67 leaves the array unaligned
DTYPES = pytest.mark.parametrize("dtype", FLOATS, ids=str)
ALL_OPS = pytest.mark.parametrize("name", OPS)


def skip_where_lacking(device, *names):
    lacking = set(names) & kernels.lacking(device)
    if lacking:
        pytest.skip(f"the {device} column lacks {', '.join(sorted(lacking))}")


# ------------------------------------------------------------------------------------------------ every row


@DTYPES
@pytest.mark.parametrize(("name", "label"), CASES)
def test_op_on_its_examples(device, name, label, dtype):
    """Overwrites its outputs, leaves inputs and surroundings alone, gives the same bits twice, and is accurate."""
    skip_where_lacking(device, name)
    arguments, guard = example(name, label, dtype), GUARD[label.split(" ")[0]]
    first, second = (call(name, arguments, device, guard) for _ in range(2))
    for argument, array in first.items():
        assert array.tobytes() == second[argument].tobytes(), f"{name}: {argument} has other bits the second time"
    want = call_reference(name, widened(arguments))
    assert_close(name, first, want, magnitudes(name, arguments), depth_of(name, label), dtype)


@ALL_OPS
def test_outputs_do_not_depend_on_what_was_in_them(device, name):
    """A zero in an output beforehand gives the same bits as a NaN."""
    skip_where_lacking(device, name)
    poisoned = example(name, "ragged", np.float32)
    cleared = [
        np.zeros_like(a) if arg.role == "out" else a for arg, a in zip(OPS[name].args, poisoned, strict=True)
    ]  # fmt: skip
    first, second = (call(name, arguments, device) for arguments in (poisoned, cleared))
    assert {k: a.tobytes() for k, a in first.items()} == {k: a.tobytes() for k, a in second.items()}


@pytest.mark.parametrize("ruin", ["one wrong entry", "one NaN", "all zero"])
@ALL_OPS
def test_the_bound_notices_a_wrong_result(name, ruin):
    """The checks above can fail: a result that is off by 1 % in its largest entry does not pass, nor does NaN."""
    arguments = example(name, "ragged", np.float64)
    want = call_reference(name, widened(arguments))
    for argument in want:
        wrong = {k: a.copy() for k, a in want.items()}
        if not wrong[argument].any() or (ruin == "one NaN" and wrong[argument].dtype.kind != "f"):
            continue
        place = np.unravel_index(np.abs(wrong[argument].astype(float)).argmax(), wrong[argument].shape)
        if ruin == "all zero":
            wrong[argument][...] = 0
        else:
            wrong[argument][place] = np.nan if ruin == "one NaN" else 0.99 * wrong[argument][place]
        with pytest.raises(AssertionError):
            assert_close(name, wrong, want, magnitudes(name, arguments), depth_of(name, "ragged"), np.float64)


def test_the_guards_notice_a_write_beside_the_array(monkeypatch):
    def too_far(x, y):
        y[...] = 0
        y.base[70] = 0  # right behind the array's 3 elements

    monkeypatch.setitem(kernels.COLUMNS, "numpy", dict(kernels.COLUMNS["numpy"]) | {"silu": too_far})
    x, y = np.ones(3), np.ones(3)
    with pytest.raises(AssertionError, match="silu on numpy writes beside y"):
        call("silu", [x, y], guard=67)

    def on_input(x, y):
        y[...] = x[...] = 0

    monkeypatch.setitem(kernels.COLUMNS, "numpy", dict(kernels.COLUMNS["numpy"]) | {"silu": on_input})
    with pytest.raises(AssertionError, match="silu on numpy changes its input x"):
        call("silu", [x, y], guard=67)


# ------------------------------------------------------------------------------------------------ the table itself


# a GPU has the ops of the two reference VAEs; a new op that it lacks is added here
LACKED_BY_CUDA = {
    "gather_labels", "importance_weights", "importance_grad", "importance_objective", "add", "concat_label",
    "concat_label_grad", "upsample", "upsample_grad", "continuous_bernoulli_nll", "gaussian_scalar_nll",
    "gaussian_pixel_nll", "gaussian_optimal_nll", "discretized_logistic_nll", "categorical_nll", "dropout",
    "add_noise", "batch_norm", "batch_norm_frozen", "batch_norm_grad", "layer_norm", "layer_norm_grad",
    "targeted_objective", "spectral_norm", "spectral_norm_grad",
}  # fmt: skip


def test_a_page_has_a_row_for_each_function_and_a_function_for_each_row():
    for page in kernels.PAGES.values():
        functions = {
            name for name, f in vars(page).items()
            if inspect.isfunction(f) and not name.startswith("_") and f.__module__ == page.__name__
        }  # fmt: skip
        assert functions == {op.name for op in page.OPS}, page.__name__
    assert len(OPS) == sum(len(page.OPS) for page in kernels.PAGES.values()), "an op on two pages"


@pytest.mark.parametrize("device", list(kernels.COLUMNS))
def test_a_column_has_every_op_but_those_it_is_known_to_lack(device):
    assert kernels.lacking(device) == (LACKED_BY_CUDA if device == "cuda" else set())
    assert kernels.ops_of(device) == [name for name in OPS if name not in kernels.lacking(device)]


@pytest.mark.parametrize("device", ["numba", "cuda"])
def test_a_columns_files_have_the_pages_names_and_an_op_stands_in_its_own(device):
    """Only there it is found; what else is public in such a file is a helper, and no op."""
    package = kernels.COLUMNS[device].package()
    files = {module.name for module in iter_modules(package.__path__) if not module.ispkg}
    assert files <= set(kernels.PAGES)
    for subject in files:
        file = import_module(f"{package.__name__}.{subject}")
        own = {name for name, f in vars(file).items() if inspect.isfunction(f) and f.__module__ == file.__name__}
        assert own & set(OPS) <= {op.name for op in kernels.PAGES[subject].OPS}, file.__name__


@ALL_OPS
def test_reference_has_the_arguments_of_the_table(name):
    assert list(inspect.signature(kernels.meaning(name)).parameters) == [arg.name for arg in OPS[name].args]


@ALL_OPS
def test_docstring_names_the_shape_of_every_array(name):
    text = inspect.getdoc(kernels.meaning(name)) or ""
    named = {word for group in re.findall(r"((?:\w+, )*\w+): \(", text) for word in group.split(", ")}
    arrays = {arg.name for arg in OPS[name].args if arg.role not in ("option", "work")}
    assert arrays <= named, f"{name}: no shape for {arrays - named}"


@ALL_OPS
def test_arguments_stand_in_the_agreed_order(name):
    """Inputs, options, work, arrays updated in place, outputs; at least one of the last two kinds."""
    place = {"in": 0, "option": 1, "work": 2, "inout": 3, "out": 4}
    order = [place[arg.role] for arg in OPS[name].args]
    assert order == sorted(order)
    assert order[-1] >= 3


@ALL_OPS
def test_costs_are_stated(name):
    op = OPS[name]
    assert list(op.examples) == ["tiny", "ragged", "model"]
    for lengths in op.examples.values():
        assert op.flops(lengths) > 0
        assert op.bytes(lengths, 4) > 0
        assert op.depth(lengths) >= 1
    model = example(name, "model", np.float32)
    moved = [
        a.nbytes * (2 if arg.role == "inout" else 1)
        for arg, a in zip(op.args, model, strict=True)
        if arg.role not in ("option", "work")
    ]
    assert op.bytes(op.examples["model"], 4) == sum(moved)


@ALL_OPS
def test_work_size_follows_from_the_shapes(name):
    op = OPS[name]
    for label in op.examples:
        arguments = example(name, label, np.float32)
        shapes = [
            a.shape for arg, a in zip(op.args, arguments, strict=True) if arg.role not in ("option", "work")
        ]  # fmt: skip
        options = {arg.name: op.examples[label][arg.name] for arg in op.args if arg.role == "option"}
        assert op.work_size(*shapes, options=options) == op.work(op.examples[label])


def test_ragged_examples_have_no_square_shapes():
    """A transposed index shows only where the lengths differ."""
    for name, op in OPS.items():
        lengths = {k: v for k, v in op.examples["ragged"].items() if k.isupper() and k in "".join(_symbols(op))}
        if {"R", "B"} <= set(lengths):
            assert lengths["R"] > lengths["B"]
        assert len(set(lengths.values())) == len(lengths), f"{name}: {lengths}"


def _symbols(op):
    return {symbol for arg in op.args for symbol in arg.dims}


def test_a_variant_names_options_and_terms_name_what_is_written():
    for name, op in OPS.items():
        options = {arg.name for arg in op.args if arg.role == "option"}
        optional = {f"no_{arg.name}" for arg in op.args if arg.optional}
        assert all(set(variant) <= options | optional for variant in op.variants), name
        arguments = dict(zip((arg.name for arg in op.args), example(name, "ragged", np.float64), strict=True))
        assert set(op.terms(arguments)) <= {arg.name for arg in op.args if arg.role in ("inout", "out")}, name


# ------------------------------------------------------------------------------------------------ naive twins


def run(device, name, *arguments):
    """The op on the device; what it wrote, in order (NaN before, guard bands around)."""
    return list(call(name, arguments, device, guard=67).values())


def blank(*shape, dtype=np.float64):
    return np.full(shape, np.nan, dtype)


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_activations(device, act):
    x = np.concatenate([np.linspace(-8, 8, 201), [0.0, -0.0, 1e-9, -1e-9, 30.0, -30.0]])
    (y,) = run(device, "activate", x, ACTIVATIONS[act], blank(x.size))
    close(y, [naive.activation(act, a) for a in x])
    grad = np.random.default_rng(0).standard_normal(x.size)
    (got,) = run(device, "act_grad", y, ACTIVATIONS[act], grad)
    close(got, [g * naive.activation_slope(act, a) for g, a in zip(grad, x, strict=True)])


@pytest.mark.parametrize("act", ACTIVATIONS)
@DTYPES
def test_activations_at_the_ends(device, act, dtype):
    """Neither overflow nor NaN at ±1000, value and slope."""
    x = np.array([-1000, 1000], dtype)
    (y,) = run(device, "activate", x, ACTIVATIONS[act], blank(2, dtype=dtype))
    want = {"relu": [0, 1000], "leaky_relu": [-200, 1000], "elu": [-1, 1000], "tanh": [-1, 1], "sigmoid": [0, 1],
            "softplus": [0, 1000], "identity": [-1000, 1000]}[act]  # fmt: skip
    np.testing.assert_allclose(y, want, rtol=1e-6)
    slope = {"relu": [0, 1], "leaky_relu": [0.2, 1], "elu": [0, 1], "tanh": [0, 0], "sigmoid": [0, 0],
             "softplus": [0, 1], "identity": [1, 1]}[act]  # fmt: skip
    np.testing.assert_allclose(run(device, "act_grad", y, ACTIVATIONS[act], np.ones(2, dtype))[0], slope, rtol=1e-6)


def test_silu(device):
    x = np.concatenate([np.linspace(-8, 8, 201), [0.0, 40.0, -40.0]])
    close(run(device, "silu", x, blank(x.size))[0], [naive.silu(a) for a in x])
    grad = np.random.default_rng(0).standard_normal(x.size)
    close(run(device, "silu_grad", x, grad)[0], [g * naive.silu_slope(a) for g, a in zip(grad, x, strict=True)])
    for dtype in FLOATS:
        ends = np.array([-1000, 1000], dtype)
        np.testing.assert_array_equal(run(device, "silu", ends, blank(2, dtype=dtype))[0], [0, 1000])
        np.testing.assert_array_equal(run(device, "silu_grad", ends, np.ones(2, dtype))[0], [0, 1])


lengths = st.integers(1, 6)
seeds = st.integers(0, 2**32 - 1)
EMPTY = np.empty(0)


@given(B=lengths, K=lengths, N=lengths, act=st.sampled_from(list(ACTIVATIONS)), bias=st.booleans(), seed=seeds)
def test_dense(device, B, K, N, act, bias, seed):
    rng = np.random.default_rng(seed)
    x, w, grad_y = rng.standard_normal((B, K)), rng.standard_normal((K, N)), rng.standard_normal((B, N))
    b = rng.standard_normal(N) if bias else EMPTY
    (y,) = run(device, "dense", x, w, b, ACTIVATIONS[act], blank(B, N))
    close(y, naive.dense(x, w, b, act))
    (grad_x,) = run(device, "dense_grad_x", grad_y, w, work("dense_grad_x", grad_y, w), blank(B, K))
    close(grad_x, naive.dense_grad_x(grad_y, w))
    grad_w, grad_b = naive.dense_grad_w(x, grad_y)
    check_weight_grads(device, "dense_grad_w", (x, grad_y), (), grad_w, grad_b if bias else EMPTY)


def work(name, *arrays, geometry=((1, 1), (0, 0))):
    """Scratch of the size that the table asks for, poisoned."""
    options = dict(zip(("stride", "padding"), geometry, strict=True))
    return blank(OPS[name].work_size(*(a.shape for a in arrays), options=options))


def check_weight_grads(device, name, arrays, geometry, grad_w, grad_b):
    """Written with add = 0, added with add = 1."""
    scratch = work(name, *arrays, grad_w, geometry=geometry or ((1, 1), (0, 0)))
    got = run(device, name, *arrays, *geometry, 0, scratch, blank(*grad_w.shape), blank(grad_b.size))
    for array, want in zip(got, (grad_w, grad_b), strict=True):
        close(array, want)
    start = [np.random.default_rng(1).standard_normal(a.shape) for a in (grad_w, grad_b)]
    got = run(device, name, *arrays, *geometry, 1, scratch, *start)
    for array, before, want in zip(got, start, (grad_w, grad_b), strict=True):
        close(array, before + want)


@given(R=lengths, N=lengths, add=st.integers(0, 1), seed=seeds)
def test_bias_grad(device, R, N, add, seed):
    rng = np.random.default_rng(seed)
    grad_y, start = rng.standard_normal((R, N)), rng.standard_normal(N)
    (got,) = run(device, "bias_grad", grad_y, add, work("bias_grad", grad_y), start)
    close(got, [sum(column) + add * s for column, s in zip(grad_y.T, start, strict=True)])


@st.composite
def convolutions(draw):
    """Any kernel, stride and padding, square or not; the kernel fits into the padded image."""
    axes = []
    for _ in range(2):
        size, padding = draw(st.integers(1, 6)), draw(st.integers(0, 2))
        kernel, stride = draw(st.integers(1, min(4, size + 2 * padding))), draw(st.integers(1, 5))
        axes.append((size, kernel, stride, padding, output_size(size, kernel, stride, padding)))
    sizes, kernel, stride, padding, out = zip(*axes, strict=True)
    return SimpleNamespace(
        B=draw(st.integers(1, 3)), C=draw(st.integers(1, 3)), F=draw(st.integers(1, 3)), hw=sizes, kernel=kernel,
        stride=stride, padding=padding, out=out, seed=draw(seeds), bias=draw(st.booleans()),
    )  # fmt: skip


def assert_convolution(device, c, act="identity"):
    rng = np.random.default_rng(c.seed)
    x, w = rng.standard_normal((c.B, *c.hw, c.C)), rng.standard_normal((*c.kernel, c.C, c.F))
    grad_y, geometry = rng.standard_normal((c.B, *c.out, c.F)), (c.stride, c.padding)
    b, b_x = (rng.standard_normal(n) if c.bias else EMPTY for n in (c.F, c.C))
    activated = np.vectorize(lambda a: naive.activation(act, a))

    want = activated(naive.conv2d(x, w, b, *geometry, c.out))
    scratch = work("conv2d", x, w, geometry=geometry)
    (y,) = run(device, "conv2d", x, w, b, *geometry, ACTIVATIONS[act], scratch, blank(*grad_y.shape))
    close(y, want)
    want = activated(naive.conv2d_grad_x(grad_y, w, b_x, *geometry, c.hw))
    scratch = work("conv2d_grad_x", grad_y, w, np.array(0.0), x, geometry=geometry)
    (grad_x,) = run(device, "conv2d_grad_x", grad_y, w, b_x, *geometry, ACTIVATIONS[act], scratch, blank(*x.shape))
    close(grad_x, want)
    grad_w, grad_b = naive.conv2d_grad_w(x, grad_y, c.kernel, *geometry)
    check_weight_grads(device, "conv2d_grad_w", (x, grad_y), geometry, grad_w, grad_b if c.bias else EMPTY)


@given(convolutions())
def test_convolution_against_seven_loops(device, c):
    assert_convolution(device, c)


@pytest.mark.parametrize("act", ["identity", "elu"])
@pytest.mark.parametrize("case", naive.HARD)
def test_hard_convolutions(device, case, act):
    B, C, F, hw, kernel, stride, padding = naive.HARD[case]
    out = tuple(output_size(hw[i], kernel[i], stride[i], padding[i]) for i in (0, 1))
    c = SimpleNamespace(
        B=B, C=C, F=F, hw=hw, kernel=kernel, stride=stride, padding=padding, out=out, seed=3, bias=True
    )  # fmt: skip
    assert_convolution(device, c, act)


@given(B=st.integers(1, 4), k=st.integers(1, 3), L=lengths, seed=seeds)
def test_latent(device, B, k, L, seed):
    rng = np.random.default_rng(seed)
    h, eps, grad_z = rng.standard_normal((B, 2 * L)), rng.standard_normal((B * k, L)), rng.standard_normal((B * k, L))
    z, kl = run(device, "latent", h, eps, blank(B * k, L), blank(B, L))
    for got, want in zip((z, kl), naive.latent(h, eps), strict=True):
        close(got, want)
    weight = rng.random(L)
    (grad_h,) = run(device, "latent_grad", h, eps, grad_z, weight, blank(B, 2 * L))
    close(grad_h, naive.latent_grad(h, eps, grad_z, weight))


@given(B=st.integers(1, 3), k=st.integers(1, 3), P=lengths, seed=seeds, sigma=st.floats(0.3, 3))
def test_likelihoods(device, B, k, P, seed, sigma):
    rng = np.random.default_rng(seed)
    R = B * k
    outputs, x, scale = rng.standard_normal((R, P)), rng.random((B, P)), rng.standard_normal(R)
    for got, want in zip(
        run(device, "bernoulli_nll", outputs, x, scale, blank(R), blank(R, P)),
        naive.bernoulli_nll(outputs, x, scale), strict=True,
    ):  # fmt: skip
        close(got, want)
    for got, want in zip(
        run(device, "gaussian_nll", outputs, x, scale, sigma, blank(R), blank(R, P)),
        naive.gaussian_nll(outputs, x, sigma, scale), strict=True,
    ):  # fmt: skip
        close(got, want)
    (scaled,) = run(device, "scale_rows", scale, outputs)
    close(scaled, [[s * a for a in row] for s, row in zip(scale, outputs, strict=True)])


def test_objective(device):
    rng = np.random.default_rng(0)
    nll, kl, weight, sums = rng.random(6), rng.random((3, 2)), np.array([0.5, 2.0]), np.array([1.0, 2, 3, 4])
    sums, metrics = run(device, "objective", nll, kl, weight, sums, blank(3))
    recon, each = sum(nll) / 6, [sum(kl[:, i]) / 3 for i in (0, 1)]
    close(metrics, [recon + 0.5 * each[0] + 2 * each[1], recon, sum(each)])
    close(sums, [1 + 3 * metrics[0], 2 + 3 * metrics[1], 3 + 3 * metrics[2], 4 + 3])


def test_a_deterministic_model_has_no_kl(device):
    sums, metrics = run(device, "objective", np.array([2.0, 4]), np.empty((2, 0)), EMPTY, np.zeros(4), blank(3))
    assert metrics.tolist() == [3, 3, 0]
    assert sums.tolist() == [6, 6, 0, 2]


def test_gather(device):
    """Rows in order from the cursor on; bytes are scaled, floats taken as they are."""
    images = np.arange(15, dtype=np.uint8).reshape(5, 3)
    order, counters = np.array([4, 0, 2, 2, 1]), np.zeros(COUNTERS, np.uint64)
    counters[CURSOR] = 1
    for dtype in FLOATS:
        (x,) = run(device, "gather", images, order, counters, 1 / 255, blank(3, 3, dtype=dtype))
        np.testing.assert_allclose(x, images[[0, 2, 2]] / 255, rtol=3e-7)
        (x,) = run(device, "gather", images.astype(dtype), order, counters, 1.0, blank(3, 3, dtype=dtype))
        np.testing.assert_array_equal(x, images[[0, 2, 2]])


SIZES = [(1, 1, 1), (1, 7, 33), (33, 1, 7), (7, 33, 1), (72, 73, 74), (15, 16, 17), (17, 15, 16), (31, 33, 32),
         (64, 63, 65), (14, 128, 32), (13, 129, 31), (97, 5, 96)]  # fmt: skip


@DTYPES
@pytest.mark.parametrize(("B", "K", "N"), SIZES)
def test_tile_edges(device, B, K, N, dtype):
    """Sizes one off the widths of register tiles, against float64 sums."""
    rng = np.random.default_rng(B * K + N)
    arrays = {k: rng.standard_normal(s).astype(dtype) for k, s in {"x": (B, K), "w": (K, N), "g": (B, N)}.items()}
    scratch_x = np.empty(OPS["dense_grad_x"].work_size((B, N), (K, N)), dtype)
    scratch_w = np.empty(OPS["dense_grad_w"].work_size((B, K), (B, N)), dtype)
    none, calls = np.empty(0, dtype), {}
    calls["dense"] = (arrays["x"], arrays["w"], none, IDENTITY, blank(B, N, dtype=dtype)), K, "bk,kn->bn"
    calls["dense_grad_x"] = (arrays["g"], arrays["w"], scratch_x, blank(B, K, dtype=dtype)), N, "bn,kn->bk"
    calls["dense_grad_w"] = (arrays["x"], arrays["g"], 0, scratch_w, blank(K, N, dtype=dtype), none), B, "bk,bn->kn"
    for name, (arguments, depth, formula) in calls.items():
        got = run(device, name, *arguments)[0]
        a, b = (v.astype(np.float64) for v in arguments[:2])
        output = OPS[name].args[-1 if name != "dense_grad_w" else -2].name
        want, terms = np.einsum(formula, a, b), np.einsum(formula, abs(a), abs(b))
        assert_close(name, {output: got}, {output: want}, {output: terms}, depth, dtype)


# ------------------------------------------------------------------------------------------------ randomness


PHILOX = {"philox_bits": np.uint32, "philox_uniform": np.float64, "philox_normal": np.float64}


def clock_at(row=0, step=3, seed=0xC0FFEE1234567890):
    counters = np.zeros(COUNTERS, np.uint64)
    counters[[STEP, ROW, SEED]] = np.array([step, row, seed], np.uint64)
    return counters


@given(rows=st.integers(1, 12), width=st.integers(1, 21), first=st.integers(0, 11), seed=seeds)
def test_row_offset(device, rows, width, first, seed):
    """A draw at ROW = r is the large draw from row r on, at any width: evaluation does not see its batch size."""
    p = np.random.default_rng(seed).random((first + rows, width))
    for name, dtype in PHILOX.items():
        (whole,) = run(device, name, clock_at(seed=seed), 17, np.zeros((first + rows, width), dtype))
        (part,) = run(device, name, clock_at(first, seed=seed), 17, np.zeros((rows, width), dtype))
        np.testing.assert_array_equal(part, whole[first:])
    (whole,) = run(device, "philox_bernoulli", p, clock_at(seed=seed), 17, blank(*p.shape))
    (part,) = run(device, "philox_bernoulli", p[first:], clock_at(first, seed=seed), 17, blank(rows, width))
    np.testing.assert_array_equal(part, whole[first:])


def test_draws_are_prefixes_in_flat_order(device):
    """Rows follow each other without a gap: (3, 5) holds the same numbers as (1, 15)."""
    for name, dtype in PHILOX.items():
        square, line = (run(device, name, clock_at(), 16, np.zeros(s, dtype))[0] for s in ((3, 5), (1, 15)))
        np.testing.assert_array_equal(square.reshape(-1), line[0])


def test_bernoulli_is_a_uniform_below_p(device):
    p = np.random.default_rng(0).random((7, 9))
    p[0], p[1] = 0, 1
    (drawn,) = run(device, "philox_bernoulli", p, clock_at(), 16, blank(7, 9))
    (uniform,) = run(device, "philox_uniform", clock_at(), 16, blank(7, 9))
    np.testing.assert_array_equal(drawn, uniform < p)
    assert drawn[0].max() == 0
    assert drawn[1].min() == 1


def test_every_counter_word_matters(device):
    """Seed, step, stream and row each change the words."""
    base = dict(row=0, step=3, seed=5)
    variants = [base, base | {"step": 4}, base | {"seed": 6}, base | {"seed": 5 + 2**32}, base | {"row": 1}]
    drawn = {run(device, "philox_bits", clock_at(**v), 16, np.zeros((1, 4), np.uint32))[0].tobytes() for v in variants}
    drawn.add(run(device, "philox_bits", clock_at(**base), 17, np.zeros((1, 4), np.uint32))[0].tobytes())
    assert len(drawn) == len(variants) + 1


# ------------------------------------------------------------------------------------------------ bad calls


def dense_arguments(dtype=np.float32):
    return [np.ones((2, 3), dtype), np.ones((3, 4), dtype), np.ones(4, dtype), RELU, np.ones((2, 4), dtype)]


def overlapping():
    whole = np.ones(8 + 6 - 1, np.float32)
    return [whole[:6].reshape(2, 3), *dense_arguments()[1:4], whole[5:].reshape(2, 4)]


def read_only():
    arguments = dense_arguments()
    arguments[4].flags.writeable = False
    return arguments


def replaced(index, value):
    arguments = dense_arguments()
    arguments[index] = value
    return arguments


BAD_DENSE = {
    "wrong dtype": (replaced(0, np.ones((2, 3), np.int32)), "dense: argument x must be float32 or float64, got int32"),
    "half precision": (dense_arguments(np.float16), "argument x must be float32 or float64, got float16"),
    "mixed dtypes": (replaced(1, np.ones((3, 4))), "dense: argument w must be float32, got float64; use .astype"),
    "wrong shape": (replaced(1, np.ones((5, 4), np.float32)), r"w must be \(K, N\) with K = 3, got shape \(5, 4\)"),
    "transposed": (replaced(1, np.ones((4, 3), np.float32)), r"w must be \(K, N\) with K = 3, got shape \(4, 3\)"),
    "too few axes": (replaced(0, np.ones(3, np.float32)), r"x must be \(B, K\), got shape \(3,\)"),
    "bias too long": (replaced(2, np.ones(5, np.float32)), r"b must be \(N\) with N = 4, got shape \(5,\)"),
    "output too small": (replaced(4, np.ones((1, 4), np.float32)), r"y must be \(B, N\) with B = 2, got"),
    "not contiguous": (replaced(0, np.ones((3, 2), np.float32).T), "argument x is not contiguous; use np.ascontig"),
    "every other row": (replaced(4, np.ones((4, 4), np.float32)[::2]), "argument y is not contiguous"),
    "overlap": (overlapping(), "dense: y overlaps x in memory; pass an array of its own"),
    "read-only output": (read_only(), "argument y is written but read-only; pass a copy"),
    "unknown activation": (replaced(3, 7), "argument act must be one of the constants IDENTITY … SOFTPLUS, got 7"),
    "activation by name": (replaced(3, "relu"), "argument act must be one of the constants .* got 'relu'"),
    "a list": (replaced(0, [[1.0, 2, 3]] * 2), "argument x must be an array, got list"),
    "no array at all": (replaced(4, None), "argument y must be an array, got NoneType"),
    "too few arguments": (dense_arguments()[:4], r"dense\(x, w, b, act, y\): expected 5 arguments, got 4"),
    "too many arguments": ([*dense_arguments(), 0], r"dense\(x, w, b, act, y\): expected 5 arguments, got 6"),
}


def assert_one_clear_sentence(error):
    assert "\n" not in str(error)
    assert len(str(error)) < 200


@pytest.mark.parametrize("case", BAD_DENSE)
def test_bad_calls(case):
    arguments, message = BAD_DENSE[case]
    with pytest.raises(KernelError, match=message) as caught:
        kernels.load("numpy").dense(*arguments)
    assert_one_clear_sentence(caught.value)


BAD_OPTIONS = [
    ("conv2d", "stride", (0, 1), "stride must be at least 1 and padding at least 0"),
    ("conv2d", "stride", 2, r"stride must be a pair of integers \(h, w\), got 2"),
    ("conv2d", "padding", (1.5, 0), "padding must be a pair of integers"),
    ("conv2d", "padding", (-1, 0), "stride must be at least 1 and padding at least 0"),
    ("conv2d", "padding", (4, 0), "height 10, kernel 4, stride 3, padding 4 give 5, not 3"),
    ("conv2d", "stride", (3, 3), "width 17, kernel 2, stride 3, padding 0 give 6, not 8"),
    ("dense_grad_w", "add", 2, "add must be 0 or 1, got 2"),
    ("gaussian_nll", "sigma", 0.0, "sigma must be a positive number, got 0.0"),
    ("gaussian_nll", "sigma", float("nan"), "sigma must be a positive number, got nan"),
    ("gaussian_nll", "sigma", "small", "sigma must be a positive number, got 'small'"),
    ("grad_norm", "max_norm", -1.0, "max_norm must be a number, 0 or more, got -1.0"),
    ("philox_bits", "stream", -1, "stream must be a number, 0 or more, got -1"),
]


@pytest.mark.parametrize(("name", "option", "value", "message"), BAD_OPTIONS)
def test_bad_options(name, option, value, message):
    arguments = example(name, "ragged", np.float32)
    arguments[[arg.name for arg in OPS[name].args].index(option)] = value
    with pytest.raises(KernelError, match=message) as caught:
        getattr(kernels.load("numpy"), name)(*arguments)
    assert str(caught.value).startswith(f"{name}: ")
    assert_one_clear_sentence(caught.value)


@ALL_OPS
def test_every_op_refuses_every_wrong_array(name):
    """Each array argument in turn: a wrong dtype, an axis too many, not contiguous, read-only where it is written."""
    function, op = getattr(kernels.load("numpy"), name), OPS[name]
    for i, arg in enumerate(op.args):
        if arg.role in ("option", "work"):
            continue
        for ruin in (
            lambda a: a.astype(np.complex64),
            lambda a: a[None],
            lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.size > 1 else a[None],
            lambda a, written=arg.role != "in": read_only_view(a) if written else a[None],
        ):
            arguments = example(name, "ragged", np.float32)
            arguments[i] = ruin(arguments[i])
            with pytest.raises(KernelError, match=arg.name) as caught:
                function(*arguments)
            assert_one_clear_sentence(caught.value)


def read_only_view(array):
    view = array.view()
    view.flags.writeable = False
    return view


@ALL_OPS
def test_every_op_refuses_outputs_that_overlap(name):
    """An output in the memory of any other array of its size and dtype."""
    function, op = getattr(kernels.load("numpy"), name), OPS[name]
    arguments = example(name, "ragged", np.float32)
    for i, out in enumerate(op.args):
        for j, other in enumerate(op.args):
            same = i != j and out.role in ("out", "inout") and other.role not in ("option", "work")
            if not same or arguments[i].shape != arguments[j].shape or arguments[i].dtype != arguments[j].dtype:
                continue
            clash = list(arguments)
            clash[j] = clash[i]
            with pytest.raises(KernelError, match="overlaps"):
                function(*clash)


def test_rows_must_be_a_multiple_of_images():
    arguments = example("latent", "ragged", np.float32)
    arguments[1], arguments[2] = np.zeros((8, 7), np.float32), np.zeros((8, 7), np.float32)
    with pytest.raises(KernelError, match="rows R = 8 must be a multiple of the number of images B = 3"):
        kernels.load("numpy").latent(*arguments)


def test_a_batch_cannot_be_larger_than_the_order():
    arguments = example("gather", "ragged", np.float32)
    arguments[-1] = np.zeros((10, 13), np.float32)
    with pytest.raises(KernelError, match="gather: x has 10 rows, order only 9"):
        kernels.load("numpy").gather(*arguments)


def test_tick_refuses_a_plan_and_rates_that_do_not_fit():
    plan, counters, rates = example("tick", "ragged", np.float64)
    with pytest.raises(KernelError, match=r"tick: plan must have 7 \+ 9·players elements, got 15"):
        kernels.load("numpy").tick(plan[:15].copy(), counters, rates)
    with pytest.raises(KernelError, match=r"tick: rates must have 8·players \+ latent elements, at least 8, got 7"):
        kernels.load("numpy").tick(plan, counters, rates[:7].copy())


def test_inputs_may_share_memory():
    x = np.ones((3, 3))
    y = np.empty((3, 3))
    kernels.load("numpy").dense(x, x, EMPTY, IDENTITY, y)
    assert (y == 3).all()


def test_unknown_ops_and_devices():
    with pytest.raises(KernelError, match=r"there is no op 'conv3d'; tinyvae.kernels.OPS lists them all"):
        _ = kernels.load("numpy").conv3d
    with pytest.raises(KernelError, match="device='tpu' has no kernels; use one of 'numpy'"):
        kernels.load("tpu")


def test_an_op_that_a_device_lacks_names_op_device_and_layer(monkeypatch):
    """When the layer binds, not when the step runs."""
    column = {k: f for k, f in kernels.COLUMNS["numpy"].items() if k != "dense_grad_w"}
    monkeypatch.setitem(kernels.COLUMNS, "fake", column)
    with pytest.raises(KernelError, match="op 'dense_grad_w' has no version for device 'fake'"):
        _ = kernels.load("fake").dense_grad_w
    model = zoo.build("vae", (3, 2, 1), 2, (4,))
    model.kernels = kernels.load("fake", unchecked=True)
    with pytest.raises(
        KernelError, match=r"layer 'encoder\.dense1': op 'dense_grad_w' has no version for device 'fake'"
    ) as caught:
        model.batch("train", 2)
    assert_one_clear_sentence(caught.value)


def test_checked_functions_carry_name_and_docstring():
    loaded = kernels.load("numpy")
    for name in OPS:
        function = getattr(loaded, name)
        assert function.__name__ == name
        assert function.__doc__ == kernels.meaning(name).__doc__


def test_unchecked_functions_are_the_column_itself(device):
    loaded = kernels.load(device, unchecked=True)
    for name, function in kernels.COLUMNS[device].items():
        found = getattr(loaded, name)
        assert getattr(found, "__wrapped__", found) is function  # the first call of a compiled op is watched


def test_guarded_arrays_are_what_they_say():
    dev = open_device("numpy")
    guarded = Guarded(dev, np.arange(6, dtype=np.float32).reshape(2, 3), 67)
    assert guarded.array.flags.c_contiguous
    assert guarded.get().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert guarded.bands_intact()
    assert guarded.unchanged()
    assert np.isnan(guarded.buffer[:67]).all()
    guarded.buffer[66] = 0
    assert not guarded.bands_intact()
