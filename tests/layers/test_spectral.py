"""SpectralNorm: the largest singular value of what the inner layer computes with, gradients, twins and state.
PyTorch is the judge of values and gradients where it is installed."""

from dataclasses import replace

import numba
import numpy as np
import pytest

import tinyvae
from tinyvae import gradcheck
from tinyvae.check import Plan
from tinyvae.check.harness import LayerHarness
from tinyvae.datasets import Dataset
from tinyvae.errors import KernelError, ShapeError
from tinyvae.kernels import OPS, lacking, load
from tinyvae.kernels.check import assert_close, call, call_reference, example, example_at, magnitudes, widened
from tinyvae.layers import Conv2d, ConvTranspose2d, Dense, Flatten, Reshape, Sequential, SpectralNorm
from tinyvae.models import GAN
from tinyvae.training.trainer import train

CLOSE = {"rtol": 1e-9, "atol": 1e-11}
INNER = {
    "dense": (lambda: Dense(7, 4, "tanh"), (7,)),
    "conv2d": (lambda: Conv2d(2, 3, (3, 2), (1, 2), (2, 0)), (5, 7, 2)),
    "transposed": (lambda: ConvTranspose2d(3, 2, 3, (7, 5), 2, 1, bias=False), (4, 3, 3)),
}
EACH = pytest.mark.parametrize("name", INNER)


@pytest.fixture
def device(device):
    """Each device that has the ops."""
    if "spectral_norm" in lacking(device):
        pytest.skip(f"the {device} column lacks spectral_norm")
    return device


def bench_of(name, device="numpy", batch=3, unsettled=True, **options):
    """The layer on the bench, by itself at the end of its power iteration, or else with another u."""
    make, shape = INNER[name]
    bench = LayerHarness(SpectralNorm(make()), (shape,), batch, device=device, **options)
    if unsettled:
        u = bench.table.view("layer.u")
        bench.device.put(np.random.default_rng(4).uniform(-1, 1, u.size), u)
        bench.state = bench.device.get(bench.table.state)
    return bench


def matrix(bench):
    weight = bench.device.get(bench.table.view("layer.inner.weight"))
    return weight.reshape(-1, weight.shape[-1])


def largest(array):
    return np.linalg.svd(array, compute_uv=False)[0]


# ------------------------------------------------------------------------------------------------ against PyTorch


def pytorchs(torch, name, bench):
    """Module, its weight from ours, and the axis that stands for our last one; images channels first."""
    weight = torch.tensor(bench.device.get(bench.table.view("layer.inner.weight")))
    if name == "dense":
        module, turned = torch.nn.Linear(7, 4), weight.T
    elif name == "conv2d":
        module, turned = torch.nn.Conv2d(2, 3, (3, 2), (1, 2), (2, 0)), weight.permute(3, 2, 0, 1)
    else:
        module, turned = torch.nn.ConvTranspose2d(3, 2, 3, 2, 1, bias=False), weight.permute(3, 2, 0, 1)
    module = module.double()
    module.weight.data = turned.contiguous()
    if module.bias is not None:
        module.bias.data = torch.tensor(bench.device.get(bench.table.view("layer.inner.bias")))
    return module


def first(a):
    return np.moveaxis(a, -1, 1).copy() if a.ndim == 4 else a


def last(a):
    return np.moveaxis(a, 1, -1) if a.ndim == 4 else a


def assert_pytorchs(torch, name, bench, module, leaf):
    """y, grad_x and the gradients of weight and bias of one more forward and backward pass."""
    x = torch.tensor(first(bench.given[0]), requires_grad=True)
    out = torch.tanh(module(x)) if name == "dense" else module(x)
    y = bench.device.get(bench.twin.forward(bench.xs[0]))
    np.testing.assert_allclose(y, last(out.detach().numpy()), **CLOSE)
    grad_y = np.random.default_rng(1).standard_normal(y.shape)
    leaf.grad = None
    module.zero_grad()
    out.backward(torch.tensor(first(grad_y)))
    bench.fill_grads()
    (grad_x,), grads = bench.backward(grad_y), bench.grads()
    np.testing.assert_allclose(grad_x, last(x.grad.numpy()), **CLOSE)
    theirs = leaf.grad.numpy()
    theirs = theirs.T if name == "dense" else theirs.transpose(2, 3, 1, 0)
    np.testing.assert_allclose(grads["inner.weight"], theirs, **CLOSE)
    if module.bias is not None:
        np.testing.assert_allclose(grads["inner.bias"], module.bias.grad.numpy(), **CLOSE)


@EACH
def test_each_step_is_pytorchs(device, name):
    """From the same u, while the weight moves: W̄ with its gradients, and u. This form of PyTorch's begins with v."""
    torch = pytest.importorskip("torch")
    bench = bench_of(name, device)
    module = torch.nn.utils.spectral_norm(pytorchs(torch, name, bench), dim=0)
    module.weight_u.data = torch.tensor(bench.device.get(bench.table.view("layer.u")))
    move = 0.3 * np.random.default_rng(2).standard_normal(bench.table.view("layer.inner.weight").shape)
    for _ in range(4):
        assert_pytorchs(torch, name, bench, module, module.weight_orig)
        np.testing.assert_allclose(bench.device.get(bench.table.view("layer.u")), module.weight_u.numpy(), **CLOSE)
        weight = bench.table.view("layer.inner.weight")
        bench.device.put(bench.device.get(weight) + move, weight)
        module.weight_orig.data += torch.tensor(move.T if name == "dense" else move.transpose(3, 2, 0, 1).copy())


@EACH
def test_the_end_of_the_iteration_is_pytorchs(device, name):
    """Where u and v no longer move, their order does not matter, and evaluation is training."""
    torch = pytest.importorskip("torch")
    bench = bench_of(name, device, unsettled=False)
    module = torch.nn.utils.parametrizations.spectral_norm(pytorchs(torch, name, bench), dim=0)
    for _ in range(2000):
        _ = module.weight
    assert_pytorchs(torch, name, bench, module, module.parametrizations.weight.original)
    evaluation = bench.layer.bind(replace(bench.site, train=False, weight_grad="skip"))
    out = module.eval()(torch.tensor(first(bench.given[0]))).detach().numpy()
    y = bench.device.get(evaluation.forward(bench.xs[0]))
    np.testing.assert_allclose(y, last(np.tanh(out) if name == "dense" else out), **CLOSE)


# ------------------------------------------------------------------------------------------------ the norm


@EACH
def test_the_largest_singular_value_comes_to_1(device, name):
    """From a little above, one iteration in each training forward."""
    bench, found = bench_of(name, device), []
    for _ in range(300):
        bench.twin.forward(bench.xs[0])
        found.append(largest(bench.device.get(bench.twin.normalised)))
    assert 1 <= found[0] < 2
    assert np.all(np.diff(found) <= 1e-12)
    assert found[-1] == pytest.approx(1, abs=1e-6)
    sigma = bench.device.get(bench.twin.sigma)[0]
    assert sigma == pytest.approx(largest(matrix(bench)), rel=1e-6)
    np.testing.assert_allclose(bench.device.get(bench.twin.normalised) * sigma, matrix(bench), rtol=1e-12)


def test_a_dense_layer_brings_outputs_no_further_apart(device):
    bench = bench_of("dense", device, unsettled=False, batch=40)
    y, x = bench.forward(), bench.given[0]
    apart = np.linalg.norm(y[1:] - y[:-1], axis=1) / np.linalg.norm(x[1:] - x[:-1], axis=1)
    assert 0.1 < apart.max() <= 1


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e6])
def test_the_size_of_the_weight_does_not_matter(device, size):
    """W̄ is that of W / size; in float32, whose squares would be zero or infinite."""
    results = []
    weight, u = np.random.default_rng(0).standard_normal((9, 5)), np.random.default_rng(1).uniform(-1, 1, 5)
    for w in (weight, size * weight):
        given = [a.astype(np.float32) for a in (w, u, np.zeros(9), np.zeros(1), np.zeros((9, 5)))]
        results.append(call("spectral_norm", [given[0], 3, *given[1:]], device)["normalised"])
    if size == 1e-30:  # as good as zero: left alone, not made large
        assert np.array_equal(results[1], (size * weight).astype(np.float32))
    else:
        np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-6)


def test_a_zero_weight_is_neither_nan_nor_stuck(device):
    """sigma is 1 there: the gradient is that of the inner layer alone, and u waits for a weight."""
    bench = LayerHarness(SpectralNorm(Dense(5, 3)), ((5,),), 2, device=device)
    bench.device.fill(bench.table.view("layer.inner.weight"), 0)
    u = np.array([0.5, -1.0, 0.25])
    bench.device.put(u, bench.table.view("layer.u"))
    bench.state = bench.device.get(bench.table.state)
    y, grad_y = bench.forward(), np.random.default_rng(0).standard_normal((2, 3))
    bias = bench.parameters()["inner.bias"]
    np.testing.assert_allclose(y, np.broadcast_to(bias, y.shape), rtol=1e-12)
    bench.backward(grad_y)
    np.testing.assert_allclose(bench.grads()["inner.weight"], bench.given[0].T @ grad_y, rtol=1e-12)
    assert np.array_equal(bench.device.get(bench.table.view("layer.u")), u)
    bench.device.put(np.eye(5, 3) * [1, 2, 3], bench.table.view("layer.inner.weight"))
    for _ in range(60):
        bench.twin.forward(bench.xs[0])
    assert bench.device.get(bench.twin.sigma)[0] == pytest.approx(3)


# ------------------------------------------------------------------------------------------------ twins and state


def test_evaluation_changes_nothing(device):
    """It gives what the next training forward would give, as often as it is asked."""
    bench = bench_of("conv2d", device)
    evaluation = bench.layer.bind(replace(bench.site, train=False, weight_grad="skip"))
    before = bench.device.get(bench.table.state)
    outputs = [bench.device.get(evaluation.forward(bench.xs[0])) for _ in range(2)]
    assert np.array_equal(before, bench.device.get(bench.table.state))
    outputs.append(bench.device.get(bench.twin.forward(bench.xs[0])))
    assert outputs[0].tobytes() == outputs[1].tobytes() == outputs[2].tobytes()
    assert not np.array_equal(before, bench.device.get(bench.table.state))


@EACH
def test_two_twins_share_weight_and_state(device, name):
    """Forward, forward, back, back: each goes back with the u and v of its own forward; the second adds."""
    bench = bench_of(name, device)
    real, fake = (bench.layer.bind(replace(bench.site, weight_grad=mode)) for mode in ("write", "add"))
    rng = np.random.default_rng(6)
    xs = [rng.standard_normal(bench.shapes[0]) for _ in range(2)]
    ys = [twin.forward(bench.device.put(x)) for twin, x in zip((real, fake), xs, strict=True)]
    grads_y = [rng.standard_normal(y.shape) for y in ys]
    bench.fill_grads()
    for twin, grad_y in zip((real, fake), grads_y, strict=True):
        twin.backward(bench.device.put(grad_y))
    together = bench.grads()

    alone = bench_of(name, device)
    found = []
    for x, grad_y in zip(xs, grads_y, strict=True):
        alone.twin.forward(alone.device.put(x))
        alone.fill_grads()
        alone.backward(grad_y)
        found.append(alone.grads())
    for tensor, grad in together.items():
        np.testing.assert_allclose(grad, found[0][tensor] + found[1][tensor], **CLOSE)
    assert np.array_equal(bench.device.get(bench.table.state), alone.device.get(alone.table.state))


@EACH
def test_a_shut_gate(device, name):
    """grad_x alone, and the weights' gradients afterwards from the same forward: written, and added."""
    for mode in ("write", "add"):
        bench = bench_of(name, device, weight_grad=mode)
        y = bench.forward()
        grads_y = np.random.default_rng(7).standard_normal((2, *y.shape))
        start = {n: np.random.default_rng(8).standard_normal(g.shape) for n, g in bench.grads().items()}
        for n, value in start.items():
            bench.device.put(value, bench.table.grad(f"layer.{n}"))
        bench.site.gate.open = False
        (judged,) = bench.backward(grads_y[0])
        assert all(np.array_equal(g, start[n]) for n, g in bench.grads().items())
        bench.site.gate.open = True
        bench.backward(grads_y[1])
        alone = bench_of(name, device)
        alone.forward()
        (grad_x,) = alone.backward(grads_y[0])
        assert np.array_equal(judged, grad_x)
        alone.backward(grads_y[1])
        for n, grad in alone.grads().items():
            np.testing.assert_allclose(bench.grads()[n], grad + (start[n] if mode == "add" else 0), **CLOSE)


@EACH
def test_adjoint(device, name):
    """<f(x) − f(0), g> = <x, grad_x>: linear in x but for the activation."""
    make, shape = INNER[name]
    inner = make()
    inner.act = 0
    bench = LayerHarness(SpectralNorm(inner), (shape,), 3, device=device)
    x, y = bench.given[0], bench.forward()
    g = np.random.default_rng(1).standard_normal(y.shape)
    (grad_x,) = bench.backward(g)
    bench.given = [np.zeros(x.shape)]
    left, right = np.sum((y - bench.forward()) * g), np.sum(x * grad_x)
    assert abs(left - right) <= 1e-12 * np.sum(np.abs(y * g))


@pytest.mark.parametrize(("K", "N"), [(1, 1), (1, 33), (65, 1), (16, 32), (17, 31), (15, 64), (63, 65), (130, 7)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_edges_of_rows_and_columns(device, K, N, dtype):
    """Sizes one off those that are taken at a time, against float64."""
    for name, lengths in (("spectral_norm", {"iterations": 2}), ("spectral_norm_grad", {"add": 1})):
        arguments = example_at(name, {"K": K, "N": N} | lengths, dtype, seed=K + N)
        want = call_reference(name, widened(arguments))
        assert_close(name, call(name, arguments, device, 67), want, magnitudes(name, arguments), K * N, dtype)


def test_other_threads_give_the_same_bits():
    threads = numba.get_num_threads()
    for name in ("spectral_norm", "spectral_norm_grad"):
        arguments, bits = example(name, "model", np.float32), []
        try:
            for n in {1, threads}:
                numba.set_num_threads(n)
                bits.append({k: a.tobytes() for k, a in call(name, arguments, "numba").items()})
        finally:
            numba.set_num_threads(threads)
        assert bits[0] == bits[-1], name


# ------------------------------------------------------------------------------------------------ in a model


SHAPE = (4, 3, 1)


def game(device="numpy", dtype="float32"):
    """A GAN whose discriminator is normalised in every layer."""
    generator = Sequential(Dense(2, 9, "relu"), Dense(9, 12, "sigmoid"), Reshape(*SHAPE))
    discriminator = Sequential(
        SpectralNorm(Conv2d(1, 4, 3, 1, 1, "leaky_relu")), Flatten(), SpectralNorm(Dense(48, 6, "leaky_relu")),
        SpectralNorm(Dense(6, 1)),
    )  # fmt: skip
    return GAN(generator, discriminator, 2, SHAPE, device=device, dtype=dtype, seed=1)


def pictures(n):
    images = np.random.default_rng(3).integers(0, 256, (n, *SHAPE), np.uint8)
    return Dataset("noise", images[: n - 4], images[n - 4 :])


def test_gradients_of_both_players(device):
    """A GAN's, on one forward of all: through the discriminator with its gate shut, and its own on both kinds."""
    report = gradcheck(game(device), seed=0, plan=Plan(elements=40, sampled=20, directions=3))
    assert report.ok, report


def test_resumed_training_is_the_uninterrupted_one(device, tmp_path):
    """Two epochs, and one with another resumed: rows, weights and u, to the last bit."""
    data, rows, buffers = pictures(23), [], []
    for run, epochs in (("whole", (2,)), ("parts", (1, 2))):
        for n in epochs:
            model = game(device)
            found = train(model, data, epochs=n, batch_size=8, out=tmp_path / run, resume=n == 2 and run == "parts")
        rows.append([{k: v for k, v in row.items() if k != "seconds"} for row in found])
        buffers.append([model.device.get(getattr(model.table, b)).tobytes() for b in ("values", "state")])
    assert rows[0] == rows[1]
    assert buffers[0] == buffers[1]
    assert np.isfinite(list(rows[0][-1]["train"].values())).all()
    again = tinyvae.load(tmp_path / "parts" / "checkpoint.safetensors", into=game(device))
    assert again.device.get(again.table.state).tobytes() == buffers[0][1]


def test_u_follows_the_weight_in_training(device):
    """After an epoch of small steps sigma is the largest singular value, and u has length 1."""
    model = game(device)
    start = {name: model.device.get(model.table.view(name)) for name in model.table.names("state")}
    train(model, pictures(400), epochs=3, batch_size=8, lr=1e-3)
    for name, before in start.items():
        u = model.device.get(model.table.view(name))
        weight = model.device.get(model.table.view(name[:-1] + "inner.weight")).reshape(-1, u.size)
        assert not np.array_equal(u, before)
        assert np.linalg.norm(u) == pytest.approx(1, abs=1e-5)
        assert np.linalg.norm(weight @ u) == pytest.approx(largest(weight), rel=0.02), name


# ------------------------------------------------------------------------------------------------ what cannot be


WRONG = [
    (lambda: SpectralNorm(Flatten()), r"takes Dense, Conv2d or ConvTranspose2d, got Flatten\(\); wrap each by itself"),
    (lambda: SpectralNorm(Sequential(Dense(3, 3))), "takes Dense, Conv2d or ConvTranspose2d, got Sequential"),
    (lambda: SpectralNorm(Dense(3, 3), 0), "iterations=0 must be an integer of at least 1"),
    (lambda: SpectralNorm(Dense(4, 3)), r"inner: Dense\(4, 3, 'identity'\): expected input \(4,\), got \(3,\)"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_what_cannot_be(make, message):
    with pytest.raises(ShapeError, match=message):
        make().declare((3,))


def test_an_iteration_at_least():
    arguments = example("spectral_norm", "ragged", np.float32)
    arguments[[arg.name for arg in OPS["spectral_norm"].args].index("iterations")] = 0
    with pytest.raises(KernelError, match="spectral_norm: iterations=0 must be a whole number of at least 1"):
        load("numpy").spectral_norm(*arguments)


def test_it_says_what_it_is():
    assert repr(SpectralNorm(Dense(3, 2))) == "SpectralNorm(Dense(3, 2, 'identity'))"
    assert repr(SpectralNorm(Dense(3, 2), 4)) == "SpectralNorm(Dense(3, 2, 'identity'), iterations=4)"
