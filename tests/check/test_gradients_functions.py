"""gradcheck_fn, the checker for plain functions: it passes what is right, fails what is wrong, and says why in words a
learner can use. Layers, models and the table are in test_gradients_checker.py."""

import math

import numpy as np
import pytest

from tinyvae import gradcheck_fn
from tinyvae.check import Plan
from tinyvae.check.differences import Line, relative_error
from tinyvae.check.subjects import FunctionSubject
from tinyvae.errors import ConfigError

RNG = np.random.default_rng(0)
X, W, B = RNG.standard_normal((4, 3)), RNG.standard_normal((3, 5)), RNG.standard_normal(5)


def dense(x, w, b):
    return x @ w + b


def dense_grad(grad_y, x, w, b):
    return grad_y @ w.T, x.T @ grad_y, grad_y.sum(axis=0)


def changed(**wrong):
    """dense_grad with some of its results changed: changed(w=lambda g: 2 * g)."""

    def backward(grad_y, x, w, b):
        grads = dict(zip("xwb", dense_grad(grad_y, x, w, b), strict=True))
        return tuple(wrong[name](grad) if name in wrong else grad for name, grad in grads.items())

    return backward


# ---------------------------------------------------------------------------------------------- plain functions


def test_right_functions_pass():
    report = gradcheck_fn(dense, dense_grad, X, W, B)
    assert report.ok
    assert report.failures == []
    assert report.checked == 12 + 15 + 5
    assert {row.what for row in report.rows if row.checked} == {"x", "w", "b"}
    assert report.worst < 1e-7


def test_the_report_is_a_table():
    text = str(gradcheck_fn(dense, dense_grad, X, W, B))
    for words in (
        "gradient check of dense(x, w, b)",
        "4×3",
        "skipped at kinks: 0 of 32 (0.00 %)",
        "all gradients right",
    ):
        assert words in text
    text = str(gradcheck_fn(dense, changed(w=lambda g: 2 * g), X, W, B))
    assert "WRONG" in text
    assert "dense: gradient of w[0, 0]: the backward pass says" in text


@pytest.mark.parametrize("wrt", [(0,), ("x",), ("w", 2)])
def test_wrt_chooses_arrays(wrt):
    names = [n if isinstance(n, str) else "xwb"[n] for n in wrt]

    def backward(grad_y, x, w, b):
        grads = dict(zip("xwb", dense_grad(grad_y, x, w, b), strict=True))
        return tuple(grads[n] for n in names)

    report = gradcheck_fn(dense, backward, X, W, B, wrt=wrt)
    assert report.ok, report
    assert [row.what for row in report.rows if row.checked] == names


def test_numbers_integers_and_scalars():
    assert gradcheck_fn(lambda x: float(np.sum(x**3)), lambda g, x: 3 * g * x**2, X).ok
    assert gradcheck_fn(np.exp, lambda g, x: g * np.exp(x), np.float64(0.3)).ok
    labels = np.array([2, 0, 1, 1])

    def pick(x, labels):
        return x[np.arange(len(x)), labels]

    def pick_grad(grad_y, x, labels):
        grad = np.zeros_like(x)
        grad[np.arange(len(x)), labels] = grad_y
        return grad, None

    report = gradcheck_fn(pick, pick_grad, X, labels)
    assert report.ok, report
    assert [row.what for row in report.rows if row.checked] == ["x"]


def test_float32_arrays_are_checked_in_float64():
    assert gradcheck_fn(dense, dense_grad, *(a.astype(np.float32) for a in (X, W, B))).ok


def edges(x):
    """Each pixel plus its right neighbour, zero outside."""
    y = x.copy()
    y[:, :, :-1] += x[:, :, 1:]
    return y


def edges_grad(g, x):
    grad = g.copy()
    grad[:, :, 1:] += g[:, :, :-1]
    return grad


def edges_wrapped(g, x):
    return g + np.roll(g, 1, axis=2)


IMAGES = RNG.standard_normal((2, 4, 5, 3))
SQUARE = RNG.standard_normal((4, 4))
CAUSES = {
    "twice": (dense, changed(w=lambda g: 2 * g), (X, W, B), "twice the true one"),
    "half": (dense, changed(w=lambda g: g / 2), (X, W, B), "half the true one"),
    "minus": (dense, changed(x=lambda g: -g), (X, W, B), "the sign is wrong"),
    "summed": (dense, changed(w=lambda g: 4 * g), (X, W, B), "4 times the true one, the batch size"),
    "averaged": (dense, changed(b=lambda g: g / 4), (X, W, B), "1/4 of the true one, the batch size: averaged once"),
    "constant": (dense, changed(w=lambda g: 0.3 * g), (X, W, B), "0.3 times the true one"),
    "zero": (dense, changed(b=np.zeros_like), (X, W, B), "zero everywhere"),
    "nan": (dense, changed(b=lambda g: g * np.nan), (X, W, B), "5 of 5 elements are NaN"),
    "infinite": (dense, changed(b=lambda g: g + np.inf), (X, W, B), "NaN or infinite"),
    "transposed": (dense, changed(w=lambda g: g.T.reshape(g.shape)), (X, W, B), "transposed gradient, forced"),
    "square": (lambda x, w: x @ w, lambda g, x, w: (g @ w.T, g.T @ x), (SQUARE, SQUARE[::-1]), "only a square shape"),
    "ignored": (np.tanh, lambda g, x: 1 - np.tanh(x) ** 2, (X,), "upstream gradient is ignored"),
    "clipped": (np.tanh, lambda g, x: np.clip(g, -9, 9) * (1 - np.tanh(x) ** 2), (X,), "not linear in grad_y"),
    "last": (dense, changed(b=lambda g: np.r_[g[:-1], 0]), (X, W, B), "wrong only at the last index of axis 0"),
    "half of it": (
        lambda h: h[:, :2] + np.exp(h[:, 2:]),
        lambda g, h: np.concatenate([g, g], axis=1),
        (RNG.standard_normal((3, 4)),),
        "wrong only in the second half of the last axis",
    ),
    "edges": (edges, edges_wrapped, (IMAGES,), "wrong only at the first index of axis 2"),
    "order": (
        lambda x: 1.0 * x.reshape(2, -1),
        lambda g, x: g.reshape(2, 3, 4, 5).transpose(0, 2, 3, 1),
        (IMAGES,),
        "right numbers in the wrong places",
    ),
    "axes": (
        lambda x: x**2,
        lambda g, x: 2 * (g * x).T.reshape(x.shape),
        (IMAGES,),
        "in the order of axes (3, 2, 1, 0)",
    ),
    "factor": (
        lambda x, s: x * s,
        lambda g, x, s: (g, (g * x).sum(axis=0)),
        (X, np.array([0.5, 2.0, 3.0])),
        "depends on the place along axis 1",
    ),
    "signs": (np.tanh, lambda g, x: g * (1 - np.tanh(x)), (X,), "all signs are right"),
    "left out": (lambda x, b: 2 * x, lambda g, x, b: (2 * g, g.sum(axis=0)), (X, B[:3]), "forward pass leaves it out"),
    "mask": (lambda x: np.maximum(x, 0), lambda g, x: g * 1.0, (X,), "a mask or a case distinction"),
    "log of 0": (lambda x: np.full(4, np.nan) * x[:, 0], lambda g, x: 0 * x, (X,), "the outputs are not finite"),
}


@pytest.mark.parametrize("name", list(CAUSES))
def test_likely_causes(name):
    forward, backward, arrays, words = CAUSES[name]
    report = gradcheck_fn(forward, backward, *arrays)
    assert not report.ok
    assert words in str(report.failures[0])


FRIENDLY = {
    "one none": (changed(w=lambda g: None), "returned None for grad_w; is a return statement missing?"),
    "too few": (lambda g, x, w, b: (g @ w.T, x.T @ g), "returned 2 gradients, but there are 3 arrays"),
    "kept batch": (lambda g, x, w, b: (g @ w.T, x.T @ g, g), "(5,), got (4, 5); sum over the batch axis, .sum(axis=0)"),
    "transposed": (changed(w=lambda g: g.T), "the shape of w, (3, 5), got (5, 3); it looks transposed"),
    "number": (changed(b=np.sum), "did a sum run over too many axes?"),
    "words": (changed(b=lambda g: "grad"), "must be an array of numbers, got str"),
}


@pytest.mark.parametrize("name", list(FRIENDLY))
def test_gradients_of_the_wrong_form(name):
    backward, words = FRIENDLY[name]
    report = gradcheck_fn(dense, backward, X, W, B)
    assert not report.ok
    assert words in str(report)


def test_a_forgotten_return():
    report = gradcheck_fn(np.tanh, lambda g, x: None, X, name="tanh")
    assert "tanh: shapes: backward returned None for grad_x; is a return statement missing?" in str(report)
    report = gradcheck_fn(lambda x: None, lambda g, x: g, X)
    assert "forward returned None; is a return statement missing?" in str(report)


def test_outputs_of_the_wrong_form():
    report = gradcheck_fn(lambda x: x.astype(np.float32), lambda g, x: g, X)
    assert "forward gives float32 for float64 arrays" in str(report)
    report = gradcheck_fn(lambda x: (x, x[0]), lambda g, x: g, X)
    assert "forward must return one array or a number, got tuple" in str(report)


def test_wrong_use_of_gradcheck_fn():
    with pytest.raises(ConfigError, match="at least one array"):
        gradcheck_fn(dense, dense_grad)
    with pytest.raises(ConfigError, match="has no array 'q'; it has x, w, b"):
        gradcheck_fn(dense, dense_grad, X, W, B, wrt=["q"])
    with pytest.raises(ConfigError, match="holds floats"):
        gradcheck_fn(dense, dense_grad, np.arange(3))


def test_harm_memory_and_chance_are_found():
    counter = [0]

    def counting(x):
        counter[0] += 1
        return x * counter[0]

    def in_place(x):
        x *= 2
        return x

    def harmful(g, x):
        x += 1
        return 2 * g

    total = np.zeros_like(X)

    def piling(g, x):
        total[...] += 2 * g
        return total.copy()

    for forward, backward, words in (
        (counting, lambda g, x: g, "is noise drawn inside?"),
        (in_place, lambda g, x: 2 * g, "forward changed x in place"),
        (lambda x: 2 * x, harmful, "backward changed x in place"),
        (lambda x: 2 * x, piling, "does it add to what the last call left"),
        (lambda x: 2 * x, lambda g, x: 2 * g + 1e-3, "a zero upstream gradient must give zero gradients"),
    ):
        report = gradcheck_fn(forward, backward, X)
        assert not report.ok
        assert words in str(report)


# ---------------------------------------------------------------------------------------------- kinks and numerics


def relu(x):
    return np.maximum(x, 0)


def relu_grad(g, x):
    return g * (x > 0)


def test_kinks_are_skipped_and_too_many_are_a_failure():
    far = np.concatenate([X.reshape(-1), np.full(100, 1.0)])
    report = gradcheck_fn(relu, relu_grad, np.r_[far, 0.0], kinks=lambda x: x)
    assert report.ok, report
    assert report.skipped == 1
    assert "skipped at kinks: 1 of 113 (0.88 %)" in str(report)
    report = gradcheck_fn(relu, relu_grad, np.r_[X[0], 0.0], kinks=lambda x: [x])
    assert not report.ok
    assert "1 of 4 elements stand at a kink" in str(report)
    assert not gradcheck_fn(relu, relu_grad, np.r_[X[0], 0.0]).ok  # without kinks= it is a wrong derivative


def test_a_kink_close_by_is_no_false_alarm():
    x = np.array([2e-6, -3e-7, 8e-5, 1.0, -1.0])  # closer than the usual step
    assert gradcheck_fn(relu, relu_grad, x).ok
    report = gradcheck_fn(relu, relu_grad, x, kinks=lambda x: x)
    assert report.ok
    assert report.skipped == 0


def test_a_wrong_gradient_at_a_kink_is_not_skipped_if_it_is_nan():
    report = gradcheck_fn(relu, lambda g, x: g * np.where(x == 0, np.nan, x > 0), np.r_[X[0], 0.0], kinks=lambda x: x)
    assert "NaN" in str(report.failures)


def test_second_look_where_the_step_is_too_long():
    """sin(500 x) bends so much that the first difference is wrong by 4e-6; extrapolation finds the derivative."""
    x = np.linspace(0.1, 0.2, 7)
    report = gradcheck_fn(lambda x: np.sin(500 * x), lambda g, x: 500 * g * np.cos(500 * x), x)
    assert report.ok, report
    assert not gradcheck_fn(lambda x: np.sin(500 * x), lambda g, x: 500.01 * g * np.cos(500 * x), x).ok


def test_ridders_is_as_good_as_it_says():
    x = np.array([0.7])
    subject = FunctionSubject("exp", np.exp, lambda g, x: g * np.exp(x), {"x": x}, ["x"], None, 0)
    found = Line(subject, "x", np.ones((1, 1)), 0).ridders(0)
    assert abs(found.value[0] - math.exp(0.7)) <= found.noise[0] < 1e-9


def test_saturated_functions_are_no_false_alarm():
    x = np.array([-40.0, -36, -5, 0.1, 5, 20, 30, 36, 40, 300])
    assert gradcheck_fn(np.tanh, lambda g, x: g * (1 - np.tanh(x) ** 2), x).ok
    assert gradcheck_fn(lambda x: 1 / (1 + np.exp(-x)), lambda g, x: g / (2 + 2 * np.cosh(x)), x).ok
    assert gradcheck_fn(lambda x: np.logaddexp(0, x), lambda g, x: g / (1 + np.exp(-x)), x).ok


@pytest.mark.parametrize("error", [3e-6, 1e-5, 1e-3])
def test_small_relative_errors_are_found(error):
    assert not gradcheck_fn(np.tanh, lambda g, x: (1 + error) * g * (1 - np.tanh(x) ** 2), X).ok


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_passes(value):
    assert relative_error(value, 1.0, 1e9) == math.inf
    assert relative_error(1.0, value, 1e9) == math.inf
    assert relative_error(value, value, 1e9) == math.inf


def test_large_tensors_go_by_directions():
    """One wrong element among 4,800, most likely not among the 200 that are looked at."""
    big = RNG.standard_normal((60, 80))

    def wrong(g, x):
        grad = 2 * g * x
        grad[41, 7] *= 1.01
        return grad

    report = gradcheck_fn(np.square, lambda g, x: 2 * g * x, big)
    assert report.ok
    assert report.checked == 220
    report = gradcheck_fn(np.square, wrong, big, plan=Plan(sampled=0, directions=20))
    assert not report.ok
    assert "along direction" in str(report.failures[0])


def test_no_elements_no_praise():
    report = gradcheck_fn(np.square, lambda g, x: 2 * g * x, X, plan=Plan(elements=0, sampled=0, directions=0))
    assert report.checked == 0
    assert not report.ok
