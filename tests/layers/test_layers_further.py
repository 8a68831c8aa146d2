"""BatchNorm, LayerNorm, Dropout, Corrupt, Residual, WithLabel, Upsample: what they promise beside right gradients.
PyTorch is the judge of the normalisations and of upsampling where it is installed."""

from dataclasses import replace

import numpy as np
import pytest

from tinyvae import kernels
from tinyvae.check.harness import LayerHarness
from tinyvae.device import open_device
from tinyvae.errors import ConfigError, KernelError, ShapeError
from tinyvae.kernels import OPS
from tinyvae.layers import (
    BatchNorm,
    Corrupt,
    Dense,
    Dropout,
    Flatten,
    LayerNorm,
    Reshape,
    Residual,
    Sequential,
    Upsample,
    WithLabel,
)
from tinyvae.layers.params import ParamTable
from tinyvae.models import VAE

CLOSE = {"rtol": 1e-10, "atol": 1e-11}


def evaluated(bench):
    """A twin of the bench's layer that is bound for evaluation."""
    return bench.layer.bind(replace(bench.site, train=False, weight_grad="skip"))


# ------------------------------------------------------------------------------------------------ against PyTorch


@pytest.mark.parametrize("shape", [(4,), (3, 5, 2)], ids=str)
def test_batch_norm_is_pytorchs(device, shape):
    """Output, gradients, running statistics after two batches, and evaluation."""
    torch = pytest.importorskip("torch")
    bench = LayerHarness(BatchNorm(0.3), (shape,), 6, device=device)
    C = shape[-1]
    theirs = (torch.nn.BatchNorm1d if len(shape) == 1 else torch.nn.BatchNorm2d)(C, momentum=0.3).double()
    rng = np.random.default_rng(0)
    gamma, beta = rng.standard_normal((2, C))
    for name, value in (("gamma", gamma), ("beta", beta)):
        bench.device.put(value, bench.table.view(f"layer.{name}"))
    theirs.weight.data, theirs.bias.data = torch.tensor(gamma), torch.tensor(beta)
    first = (lambda a: np.moveaxis(a, -1, 1)) if len(shape) == 3 else (lambda a: a)
    last = (lambda a: np.moveaxis(a, 1, -1)) if len(shape) == 3 else (lambda a: a)
    for _ in range(2):
        x, grad_y = rng.normal(1, 2, (6, *shape)), rng.standard_normal((6, *shape))
        y = bench.device.get(bench.twin.forward(bench.device.put(x)))
        (grad_x,), grads = bench.backward(grad_y), bench.grads()
        there = torch.tensor(first(x).copy(), requires_grad=True)
        theirs.zero_grad()
        out = theirs(there)
        out.backward(torch.tensor(first(grad_y).copy()))
        np.testing.assert_allclose(y, last(out.detach().numpy()), **CLOSE)
        np.testing.assert_allclose(grad_x, last(there.grad.numpy()), **CLOSE)
        np.testing.assert_allclose(grads["gamma"], theirs.weight.grad.numpy(), **CLOSE)
        np.testing.assert_allclose(grads["beta"], theirs.bias.grad.numpy(), **CLOSE)
    for name in ("running_mean", "running_var"):
        mine = bench.device.get(bench.table.view(f"layer.{name}"))
        np.testing.assert_allclose(mine, getattr(theirs, name).numpy(), **CLOSE)
    y = bench.device.get(evaluated(bench).forward(bench.device.put(x)))
    np.testing.assert_allclose(y, last(theirs.eval()(torch.tensor(first(x).copy())).detach().numpy()), **CLOSE)


@pytest.mark.parametrize("shape", [(4,), (3, 5, 2)], ids=str)
def test_layer_norm_is_pytorchs(device, shape):
    torch = pytest.importorskip("torch")
    bench, rng = LayerHarness(LayerNorm(), (shape,), 3, device=device), np.random.default_rng(0)
    gamma, beta, grad_y = rng.standard_normal((2, *shape)), rng.standard_normal(shape), rng.standard_normal((3, *shape))
    for name, value in (("gamma", gamma[0]), ("beta", beta)):
        bench.device.put(value, bench.table.view(f"layer.{name}"))
    x, weight, bias = (torch.tensor(a, requires_grad=True) for a in (bench.given[0], gamma[0], beta))
    out = torch.nn.functional.layer_norm(x, shape, weight, bias)
    out.backward(torch.tensor(grad_y))
    np.testing.assert_allclose(bench.forward(), out.detach().numpy(), **CLOSE)
    np.testing.assert_allclose(bench.backward(grad_y)[0], x.grad.numpy(), **CLOSE)
    for name, leaf in (("gamma", weight), ("beta", bias)):
        np.testing.assert_allclose(bench.grads()[name], leaf.grad.numpy(), **CLOSE)


def test_upsample_is_pytorchs(device):
    torch = pytest.importorskip("torch")
    bench = LayerHarness(Upsample(3), ((2, 4, 3),), 2, device=device)
    x = torch.tensor(bench.given[0].transpose(0, 3, 1, 2).copy(), requires_grad=True)
    out = torch.nn.functional.interpolate(x, scale_factor=3, mode="nearest")
    grad_y = np.random.default_rng(0).standard_normal((2, 6, 12, 3))
    out.backward(torch.tensor(grad_y.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_array_equal(bench.forward(), out.detach().numpy().transpose(0, 2, 3, 1))
    np.testing.assert_allclose(bench.backward(grad_y)[0], x.grad.numpy().transpose(0, 2, 3, 1), **CLOSE)


# ------------------------------------------------------------------------------------------------ promises


LINEAR = {
    "upsample": lambda: (Upsample(2), (2, 3, 2)),
    "dropout": lambda: (Dropout(0.4), (7,)),
    "masking": lambda: (Corrupt("masking", 0.4), (3, 2, 1)),
    "residual": lambda: (Residual(Dense(5, 5, bias=False)), (5,)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_adjoint(device, name):
    """<L(x), g> = <x, grad_x>: no step size is needed."""
    layer, shape = LINEAR[name]()
    bench = LayerHarness(layer, (shape,), 3, device=device)
    y = bench.forward()
    g = np.random.default_rng(1).standard_normal(y.shape)
    left, right = np.sum(y * g), np.sum(bench.given[0] * bench.backward(g)[0])
    assert abs(left - right) <= 1e-12 * np.sum(np.abs(y * g))


def test_batch_norm_in_evaluation_sees_one_image_at_a_time(device):
    """An image's output does not depend on its neighbours, and statistics stay as they are."""
    bench = LayerHarness(BatchNorm(), ((3,),), 4, device=device)
    for _ in range(3):
        bench.twin.forward(bench.xs[0])
    twin, before = evaluated(bench), bench.device.get(bench.table.state)
    x = np.random.default_rng(2).standard_normal((4, 3))
    alone = bench.device.get(twin.forward(bench.device.put(x)))
    beside = bench.device.get(twin.forward(bench.device.put(np.concatenate([x[:1], 100 * x[1:]]))))
    assert np.array_equal(alone[0], beside[0])
    assert np.array_equal(before, bench.device.get(bench.table.state))
    with pytest.raises(KernelError, match="layer 'layer': BatchNorm goes only forward in evaluation"):
        twin.backward(alone)


def test_running_statistics_are_state_of_a_model(device, tmp_path):
    """Saved and loaded with the weights, moved by training steps, not by the optimiser and not by evaluation."""
    import tinyvae
    from tinyvae.config import TrainConfig
    from tinyvae.training.step import Feed, Step, evaluate_pass

    def build():
        encoder = Sequential(Flatten(), Dense(6, 5), BatchNorm(), Dropout(0.2), LayerNorm(), Dense(5, 4))
        decoder = Sequential(Dense(2, 6), Residual(Dense(6, 6, "tanh")), Reshape(3, 2, 1))
        return VAE(encoder, decoder, 2, (3, 2, 1), device=device, seed=1)

    model, images = build(), np.random.default_rng(0).integers(0, 256, (20, 3, 2, 1), np.uint8)
    step = Step(model, Feed(model, images), TrainConfig(epochs=9, batch_size=8))
    start = model.device.get(model.table.state)
    for _ in range(4):
        step.run()
    moved = model.device.get(model.table.state)
    assert (start != moved).any()
    first = evaluate_pass(model, Feed(model, images), 20)
    assert evaluate_pass(model, Feed(model, images), 7) == pytest.approx(first, rel=1e-5)  # no neighbour, no dropout
    assert np.array_equal(moved, model.device.get(model.table.state))
    tinyvae.save(model, tmp_path / "model.safetensors")
    again = tinyvae.load(tmp_path / "model.safetensors", into=build())
    assert np.array_equal(again.device.get(again.table.state), moved)
    assert again.reconstruct(images).tobytes() == model.reconstruct(images).tobytes()


def test_dropout_passes_everything_in_evaluation(device):
    bench = LayerHarness(Dropout(0.6), ((50,),), 4, device=device)
    y = bench.forward()
    assert 0.3 < (y == 0).mean() < 0.9
    assert np.array_equal(bench.device.get(evaluated(bench).forward(bench.xs[0])), bench.given[0])


def test_an_op_that_cuda_lacks_is_named_with_its_layer():
    """Where the layer binds. The column is looked at as a table; no GPU is needed."""
    lacking = set(kernels.lacking("cuda"))
    assert "batch_norm" in lacking < set(OPS)
    column = {name: op for name, op in kernels.COLUMNS["numpy"].items() if name not in lacking}
    bench = LayerHarness(Sequential(Dense(3, 3), BatchNorm()), ((3,),), 2)
    poor = replace(bench.site, kernels=kernels.Kernels("cuda", column, unchecked=True))
    with pytest.raises(
        KernelError, match=r"layer 'layer\.batchnorm1': op 'batch_norm' has no version for device 'cuda'"
    ):
        bench.layer.bind(poor)


WRONG = [
    (lambda: Dropout(1.0), (3,), ConfigError, "rate=1.0 must be below 1"),
    (lambda: Dropout(-0.1), (3,), ConfigError, "rate=-0.1 must be a number of at least 0"),
    (lambda: BatchNorm(0), (3,), ShapeError, "momentum=0 must be a number above 0 and at most 1"),
    (lambda: Corrupt("salt"), (3,), ConfigError, "noise='salt' is not known; use one of 'masking', 'gaussian'"),
    (lambda: Upsample(0), (2, 2, 1), ShapeError, "the factor must be an integer of at least 1"),
    (lambda: Upsample(2), (4,), ShapeError, r"expected images \(H, W, C\), got \(4,\)"),
    (lambda: Residual(Dense(3, 4)), (3,), ShapeError, r"gives \(4,\) for \(3,\); a sum needs equal shapes"),
    (lambda: Residual(3), (3,), ShapeError, "Residual takes a layer, got 3"),
    (lambda: Residual(Dense(4, 4)), (3,), ShapeError, r"expected input \(4,\), got \(3,\)"),
    (lambda: WithLabel(Dense(5, 2)), ((3,), (3,)), ShapeError, r"expected input \(5,\), got \(6,\)"),
]


@pytest.mark.parametrize(("make", "shape", "error", "message"), WRONG)
def test_what_cannot_be(make, shape, error, message):
    with pytest.raises(error, match=message):
        make().declare(*(shape if isinstance(shape[0], tuple) else (shape,)))


@pytest.mark.parametrize("layer", [BatchNorm(), LayerNorm()], ids=repr)
def test_normalisation_begins_as_the_identity_behind_it(layer):
    """gamma = 1 and beta = 0 exactly."""
    layer.declare((5,))
    table = ParamTable({"part": layer}, "float64", open_device("numpy"), 0)
    assert (table.view("part.gamma") == 1).all()
    assert (table.view("part.beta") == 0).all()
