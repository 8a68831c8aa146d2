"""The checker itself, on layers and models with mistakes in them; its harness with guard bands; its table.
Plain functions are in test_gradients_functions.py, mistakes in real ops in test_museum.py."""

import numpy as np
import pytest

import tinyvae
from tinyvae import gradcheck, zoo
from tinyvae.check import Plan, main_table, table
from tinyvae.check.harness import LayerHarness
from tinyvae.check.museum import exhibit, planted
from tinyvae.errors import ConfigError, DeviceError
from tinyvae.kernels import meaning
from tinyvae.kernels.check import GuardedDevice, Runner, WrongResult
from tinyvae.layers import Bernoulli, Conv2d, Dense, Latent, Layer, Sequential, Twin
from tinyvae.layers.params import Tensor

RNG = np.random.default_rng(0)
X, W, B = RNG.standard_normal((4, 3)), RNG.standard_normal((3, 5)), RNG.standard_normal(5)


# ---------------------------------------------------------------------------------------------- layers


class Scale(Layer):
    """y = scale · x, with a mistake in it if asked for."""

    def __init__(self, mistake=""):
        self.mistake = mistake

    def shape(self, *in_shapes):
        self.tensors = (Tensor("scale", in_shapes[0], 0.5),)
        return (9,) if self.mistake == "promise" else in_shapes[0]

    def bind(self, site):
        return ScaleTwin(self, site)


class ScaleTwin(Twin):
    def __init__(self, layer, site):
        self.mistake, self.mode, self.need = layer.mistake, site.weight_grad, site.need_grad_x
        self.scale, self.grad_scale = site.value("scale"), site.grad("scale")
        self.y, self.grad_x = site.empty(site.rows, *layer.in_shapes[0]), site.empty(site.rows, *layer.in_shapes[0])
        self.sum = 0.0
        self.table = site.table

    def forward(self, *xs):
        (x,) = xs
        self.x = x
        if self.mistake == "stale" and not hasattr(self, "first"):
            self.first = np.sign(x)
        if self.mistake == "chance":
            x = x + 1e-3 * np.random.default_rng().random()
        np.multiply(x, self.scale, out=self.y)
        if self.mistake == "harm x":
            x += 1
        if self.mistake == "harm scale":
            self.scale *= 0.5
        return self.y

    def backward(self, grad_y):
        grad = (grad_y * self.x).sum(axis=0)
        if self.mistake == "stale":
            grad = (grad_y * self.first * np.abs(self.x)).sum(axis=0)
        if self.mode == "add" or self.mistake == "pile":
            self.grad_scale += grad
        elif self.mode == "write" or self.mistake == "no skip":
            self.grad_scale[...] = grad
        if self.mistake == "padding":
            self.table.grads[len(self.scale)] = 1.0
        np.multiply(grad_y, self.scale, out=self.grad_x)
        if self.mistake == "offset":
            self.grad_x += 1e-3
        if self.mistake == "shape":
            return self.grad_x[:, :-1]
        if self.mistake == "past the end":
            np.lib.stride_tricks.as_strided(self.grad_x.reshape(-1), (self.grad_x.size + 1,))[-1] = 7.0
        return self.grad_x if self.need or self.mistake == "grad_x" else None


def test_a_layer_of_ones_own():
    report = gradcheck(Scale(), (5,))
    assert report.ok, report
    assert {row.where for row in report.rows} == {"batch 3", "batch 1"}
    names = "shapes", "same bits twice", "inputs unharmed", "no memory", "zero in, zero out", "guard bands"
    assert set(names) <= {row.what for row in report.rows}


MISTAKES = {
    "promise": "declare promised (9,)",
    "stale": "something of the first call was kept",
    "chance": "forward gave another result for the same inputs",
    "harm x": "x0 changed",
    "harm scale": "scale changed",
    "pile": "never written, or added to",
    "no skip": "weight_grad skip",
    "padding": "the padding between tensors was written",
    "offset": "a zero upstream gradient must give zero gradients",
    "shape": "the gradient of x must be (3, 5), got (3, 4)",
    "past the end": "guard bands",
    "grad_x": "without need_grad_x, backward must return None",
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_broken_promises_of_the_layer_protocol(mistake):
    report = gradcheck(Scale(mistake), (5,))
    assert not report.ok
    assert MISTAKES[mistake] in str(report)


def test_linear_layers_get_the_adjoint_test():
    assert "adjoint: ok" in str(gradcheck(Dense(4, 3)))
    assert "adjoint" not in str(gradcheck(Dense(4, 3, "tanh")))
    with planted(exhibit("kernel-flipped-backward")):
        assert "adjoint: WRONG" in str(gradcheck(Conv2d(1, 2, (3, 2)), (5, 6, 1)))


def test_shapes_a_layer_knows_itself():
    assert gradcheck(Dense(4, 3)).ok
    assert gradcheck(Latent(2)).ok
    layer = Sequential(Dense(4, 3, "elu"))
    layer.declare((4,))
    assert gradcheck(layer).ok
    assert gradcheck(Dense(4, 3), 4).ok
    assert gradcheck(Bernoulli(), ((2, 3, 1), (2, 3, 1))).ok
    with pytest.raises(ConfigError, match="in_shape is needed"):
        gradcheck(Conv2d(1, 2, 3))


def test_wrong_use_of_gradcheck():
    with pytest.raises(ConfigError, match="for plain functions there is gradcheck_fn"):
        gradcheck(np.tanh, (3,))
    with pytest.raises(DeviceError):
        gradcheck(Dense(4, 3), device="abacus")


def test_gradcheck_of_a_layer_leaves_no_trace():
    layer = Dense(4, 3, "tanh")
    before = dict(layer.__dict__)
    gradcheck(layer)
    assert layer.in_shapes == ((4,),)  # it is declared now, and nothing else
    assert {k: layer.__dict__[k] for k in before} == before


def test_a_layer_that_sits_at_its_kinks_is_refused():
    layer = Dense(3, 4, "relu", init="zeros")
    layer.declare((3,))
    layer.tensors = tuple(Tensor(t.name, t.shape, 1e-300) for t in layer.tensors)
    layer.shape = lambda *shapes: (4,)
    report = gradcheck(layer, 3)
    assert not report.ok
    assert "stand at a kink" in str(report)


def test_flipped_kernels_and_edges_are_recognised():
    layer = Conv2d(2, 3, (3, 2), padding=(1, 1))
    with planted(exhibit("kernel-flipped-throughout")):
        healthy = meaning("conv2d_grad_w")
        column = tinyvae.kernels.COLUMNS["numpy"]
        tinyvae.kernels.COLUMNS["numpy"] = {**column, "conv2d_grad_w": healthy}
        report = gradcheck(layer, (5, 6, 2))
    assert "the kernel is flipped in both axes" in " ".join(map(str, report.failures))
    with planted(exhibit("wrapped-edges")):
        report = gradcheck(Conv2d(2, 3, (3, 2), padding=(1, 1)), (7, 8, 2))
    assert "only elements at the edges are wrong: look at the padding" in " ".join(map(str, report.failures))


# ---------------------------------------------------------------------------------------------- models


def test_a_model_is_checked_on_a_copy():
    model = zoo.build("vae", (3, 4, 1), 2, (3,), seed=5)
    batch = model.batch("train", 3)
    model.device.fill(batch.x, 0.5)
    model.loss_and_grad(model.players[0], batch)
    before = [model.device.get(a).tobytes() for a in (model.table.values, model.table.grads, model.clock.rates)]
    report = gradcheck(model)
    assert report.ok, report
    assert "float64 copy of the float32 model" in str(report)
    after = [model.device.get(a).tobytes() for a in (model.table.values, model.table.grads, model.clock.rates)]
    assert before == after
    assert model.dtype == np.float32
    assert "encoder.dense1.weight" in str(report)


def test_a_wrong_model_names_its_parameter():
    with planted(exhibit("kl-not-averaged")):
        report = gradcheck(zoo.build("vae", (3, 4, 1), 2, (3,), device="numpy"))
    assert not report.ok
    named = {failure.parameter for failure in report.failures}
    assert "encoder.dense2.bias" in named
    assert not [name for name in named if name.startswith("decoder")]


def test_a_model_checked_by_directions_names_an_element():
    with planted(exhibit("square-not-halved")):
        report = gradcheck(zoo.build("ae", (3, 4, 1), 2, (3,), "gaussian", device="numpy"), plan=Plan(0, 0, 3))
    failure = next(f for f in report.failures if f.parameter == "decoder.dense2.weight")
    assert isinstance(failure.index, tuple)
    assert "twice the true one" in failure.cause


# ---------------------------------------------------------------------------------------------- harness and table


def test_guard_bands_of_the_harness():
    device = GuardedDevice(tinyvae.device.open_device("numpy"))
    buffer = device.empty((2, 3), np.float64)
    assert buffer.ctypes.data % 64 == 0
    assert np.isnan(buffer).all()
    buffer[...] = 1
    assert not device.damaged()
    device.guarded[0].buffer[63] = 0
    assert device.damaged()
    counters = device.empty(4, np.uint32)
    assert (counters == 2**32 - 1).all()


def test_runner_notices_what_an_op_must_not_do():
    with planted(exhibit("one-too-far")), pytest.raises(WrongResult, match="dense on numpy writes beside"):
        Runner()("dense", X, W, B, 0, y=(4, 5))
    with planted(exhibit("in-place")), pytest.raises(WrongResult, match="silu on numpy changes its input x"):
        Runner()("silu", X.reshape(-1), y=(12,))


def test_noise_is_fixed_on_the_harness():
    harness = LayerHarness(Latent(3), ((6,),), 4, samples=2)
    assert harness.forward().tobytes() == harness.forward().tobytes()


def one_check(monkeypatch, run):
    monkeypatch.setattr(table, "OPS", {})
    monkeypatch.setattr(table, "checks", lambda groups: [table.Check("layer", "the one", (), run)])


def test_lines_are_given_out_as_they_are_made(monkeypatch):
    one_check(monkeypatch, lambda device, seed: "fine")
    lines = []
    text, ok = main_table("numpy", 0, lines.append)
    assert ok
    assert len(lines) == 1
    assert "the one" in lines[0]
    assert "the one" not in text
    assert "all 1 checks passed on device numpy" in text
    assert "the one" in main_table()[0]


def test_a_check_that_stops_has_failed_and_the_others_run(monkeypatch):
    one_check(monkeypatch, lambda device, seed: 1 / 0)
    text, ok = main_table()
    assert not ok
    assert "the one: ZeroDivisionError" in text
    assert "1 of 1 checks FAILED" in text


def test_an_op_without_a_check_is_a_failure(monkeypatch):
    monkeypatch.setattr(table, "checks", lambda groups: [])
    result = table.check_all()
    assert not result.ok
    assert "op adam has no check" in str(result)


def test_an_empty_table_is_no_pass(monkeypatch):
    monkeypatch.setattr(table, "checks", lambda groups: [])
    assert not table.check_all(groups=("layer",)).ok
