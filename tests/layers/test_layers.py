"""The layer protocol, the parameter table, and the models of the zoo at odd sizes.
Gradients are checked elsewhere; here it is shapes, buffers, names, errors and what a user may hand in."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyvae import VAE, AutoEncoder, kernels, layers, zoo
from tinyvae.config import ModelConfig, TrainConfig
from tinyvae.device import open_device
from tinyvae.device.host import ALIGNMENT
from tinyvae.errors import ConfigError, DataError, DeviceError, ShapeError, TinyvaeError
from tinyvae.kernels.clock import Clock
from tinyvae.layers import (
    Activation,
    Bernoulli,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Flatten,
    Gaussian,
    Latent,
    Reshape,
    Sequential,
    SiLU,
    Site,
    SpectralNorm,
    WithLabel,
)
from tinyvae.layers.params import TENSOR_ALIGNMENT, ParamTable
from tinyvae.layers.priors import FullGaussian
from tinyvae.training.step import Feed, Step, evaluate_pass

# ------------------------------------------------------------------------------------------------ the protocol

LAYERS = {  # name: (maker, input shapes, output shape)
    "dense": (lambda: Dense(5, 3, "leaky_relu"), [(5,)], (3,)),
    "dense without bias": (lambda: Dense(5, 3, bias=False), [(5,)], (3,)),
    "conv2d": (lambda: Conv2d(2, 3, (2, 3), (1, 2), (1, 0), "relu"), [(4, 5, 2)], (5, 2, 3)),
    "conv2d without bias": (lambda: Conv2d(1, 2, 2, bias=False), [(3, 4, 1)], (2, 3, 2)),
    "convtranspose2d": (lambda: ConvTranspose2d(2, 3, (2, 3), (4, 9), (1, 3), (0, 1)), [(3, 3, 2)], (4, 9, 3)),
    "transposed without bias": (lambda: ConvTranspose2d(3, 1, 2, (3, 4), bias=False), [(2, 3, 3)], (3, 4, 1)),
    "silu": (SiLU, [(4, 3)], (4, 3)),
    "activation": (lambda: Activation("tanh"), [(2, 3)], (2, 3)),
    "flatten": (Flatten, [(2, 3, 4)], (24,)),
    "reshape": (lambda: Reshape(4, 3, 2), [(24,)], (4, 3, 2)),
    "latent": (lambda: Latent(3), [(6,)], (3,)),
    "bernoulli": (Bernoulli, [(2, 3, 1), (2, 3, 1)], ()),
    "gaussian": (lambda: Gaussian(0.7), [(2, 3, 1), (2, 3, 1)], ()),
    "sequential": (lambda: Sequential(Flatten(), Dense(6, 4, "relu"), SiLU(), Dense(4, 2)), [(3, 2)], (2,)),
}
for number, example in enumerate(layers.examples()):
    kinds = {type(layer) for _, layer in example.layer.walk("")} | {type(example.layer)}
    if example.samples == 1 and not kinds & {SpectralNorm, WithLabel}:  # state moves y; two gradients
        out = layers.examples()[number].layer.declare(*example.in_shapes)
        LAYERS[f"{example.layer} {example.in_shapes}"] = (
            lambda number=number: layers.examples()[number].layer,
            list(example.in_shapes),
            out,
        )
EVERY_LAYER = pytest.mark.parametrize("name", LAYERS)


class Bound:
    """A layer bound for some rows, float64, with values and inputs drawn."""

    def __init__(self, name, rows=3, device="numpy", **site):
        make, self.shapes, _ = LAYERS[name]
        self.layer, self.rows, dev = make(), rows, open_device(device)
        self.layer.declare(*self.shapes)
        latents = [leaf.latent_dim for _, leaf in self.layer.walk("") if isinstance(leaf, Latent)]
        self.table = ParamTable({"part": self.layer}, "float64", dev, 1)
        self.clock = Clock(dev, 1, *(latents or [3])[:1], 1)
        self.kernels = kernels.load(device, unchecked=True)
        self.twin = self.another(**site)

    def another(self, **site):
        """A further twin of the same layer."""
        return self.layer.bind(Site(self.table, self.kernels, self.clock, self.rows, path="part", **site))

    def inputs(self, seed=0):
        rng = np.random.default_rng(seed)
        return [rng.random((self.rows, *s)) - (0.5 if i == 0 else 0) for i, s in enumerate(self.shapes)]

    def cotangent(self, y, seed=9):
        return np.random.default_rng(seed).standard_normal(np.shape(y))


@EVERY_LAYER
def test_declare_gives_the_shape_that_forward_gives(name):
    _, shapes, out_shape = LAYERS[name]
    b = Bound(name)
    assert b.layer.out_shape == out_shape
    y = b.twin.forward(*b.inputs())
    assert y.shape == (3, *out_shape)
    grad_x = b.twin.backward(b.cotangent(y))
    assert grad_x.shape == (3, *shapes[0])


@EVERY_LAYER
def test_declare_twice(name):
    """The same shapes again are the same declaration; others need another layer."""
    make, shapes, out_shape = LAYERS[name]
    layer = make()
    assert layer.declare(*shapes) == layer.declare(*shapes) == out_shape
    with pytest.raises(ShapeError):
        layer.declare(*((7, *s) for s in shapes))
    assert layer.declare(*shapes) == out_shape


@EVERY_LAYER
def test_layers_hold_no_arrays(name):
    b = Bound(name)
    b.twin.backward(b.cotangent(b.twin.forward(*b.inputs())))
    for _, leaf in b.layer.walk("part"):
        assert not [k for k, v in vars(leaf).items() if hasattr(v, "dtype")]


@EVERY_LAYER
def test_inputs_stay_unchanged(name):
    b = Bound(name)
    xs = b.inputs()
    before = [x.tobytes() for x in xs]
    y = b.twin.forward(*xs)
    assert [x.tobytes() for x in xs] == before
    b.twin.backward(b.cotangent(y))
    assert [x.tobytes() for x in xs] == before


@EVERY_LAYER
def test_a_second_forward_replaces_everything_saved(name):
    b = Bound(name)
    results = []
    for warm in ([], b.inputs(1)):
        if warm:
            b.twin.forward(*warm)
        y = np.array(b.twin.forward(*b.inputs(2)))
        results.append((y.tobytes(), np.array(b.twin.backward(b.cotangent(y))).tobytes(), b.table.grads.tobytes()))
    assert results[0] == results[1]


@EVERY_LAYER
def test_twins_share_parameters_and_not_buffers(name):
    """A forward of one twin leaves the other's output and saved state alone."""
    b = Bound(name)
    other = b.another()
    xs, ys = b.inputs(1), b.inputs(2)
    y = np.array(b.twin.forward(*xs))
    expected = np.array(b.twin.backward(b.cotangent(y)))
    grads = b.table.grads.copy()
    kept = b.twin.forward(*xs)
    other.forward(*ys)
    np.testing.assert_array_equal(kept, y)
    np.testing.assert_array_equal(b.twin.backward(b.cotangent(y)), expected)
    np.testing.assert_array_equal(b.table.grads, grads)
    np.testing.assert_array_equal(other.forward(*xs), y)


WITH_WEIGHTS = pytest.mark.parametrize("name", [n for n in LAYERS if Bound(n).table.count()])


@WITH_WEIGHTS
def test_weight_gradients_are_written_added_or_skipped(device, name):
    b = Bound(name, device=device)
    get = b.table.device.get

    def after(mode, start):
        b.table.device.put(start, b.table.grads)
        twin = b.another(weight_grad=mode)
        y = twin.forward(*(b.table.device.put(x) for x in b.inputs()))
        twin.backward(b.table.device.put(b.cotangent(y)))
        return get(b.table.grads)

    zero = np.zeros(b.table.grads.shape)
    start = zero.copy()
    for tensor in b.table.names():
        _, place = b.table.places[tensor]
        size = b.table.grad(tensor).size
        start[place : place + size] = np.random.default_rng(3).standard_normal(size)
    written = after("write", zero)
    assert written.any()
    np.testing.assert_array_equal(after("write", start), written)
    np.testing.assert_allclose(after("add", start), start + written, rtol=1e-14, atol=1e-14)
    np.testing.assert_array_equal(after("skip", start), start)


def test_weight_grad_has_three_values():
    with pytest.raises(ShapeError, match="weight_grad='sum' must be 'write', 'add' or 'skip'"):
        Bound("dense", weight_grad="sum")


@WITH_WEIGHTS
def test_grad_x_is_skipped_where_nothing_needs_it(name):
    b = Bound(name, need_grad_x=False)
    y = b.twin.forward(*b.inputs())
    assert b.twin.backward(b.cotangent(y)) is None
    grads = b.table.grads.copy()
    needing = b.another(need_grad_x=True)
    assert needing.backward(b.cotangent(needing.forward(*b.inputs()))) is not None
    np.testing.assert_array_equal(b.table.grads, grads)


def test_only_what_stands_before_the_first_weights_skips_grad_x():
    layer = Sequential(Reshape(3, 2, 1), Conv2d(1, 2, 2, act="relu"), Flatten(), Dense(4, 3))
    layer.declare((6,))
    dev = open_device("numpy")
    table, clock = ParamTable({"part": layer}, "float64", dev, 1), Clock(dev, 1, 1, 1)
    twin = layer.bind(Site(table, kernels.load(unchecked=True), clock, 4, path="part", need_grad_x=False))
    reshape, conv, flatten, dense = twin.twins
    assert conv.grad_x is None
    assert dense.grad_x is not None
    assert flatten.need_grad_x
    assert not reshape.need_grad_x


# ------------------------------------------------------------------------------------------------ names and errors


def test_sequential_names_its_layers_by_class_and_place():
    layer = Sequential(
        Conv2d(1, 2, 2, act="relu"), Conv2d(2, 2, 1), Flatten(), Dense(12, 4), Activation("elu"),
        Sequential(Dense(4, 2)), Dense(2, 6), Reshape(3, 1, 2), ConvTranspose2d(2, 1, 1, (3, 1)),
    )  # fmt: skip
    names = "conv2d1 conv2d2 flatten1 dense1 activation1 sequential1 dense2 reshape1 convtranspose2d1"
    assert list(layer.layers) == names.split()
    layer.declare((4, 3, 1))
    table = ParamTable({"part": layer}, "float32", open_device("numpy"), 0)
    assert table.names() == [
        "part.conv2d1.weight", "part.conv2d1.bias", "part.conv2d2.weight", "part.conv2d2.bias", "part.dense1.weight",
        "part.dense1.bias", "part.sequential1.dense1.weight", "part.sequential1.dense1.bias", "part.dense2.weight",
        "part.dense2.bias", "part.convtranspose2d1.weight", "part.convtranspose2d1.bias",
    ]  # fmt: skip
    assert repr(layer).startswith("Sequential(Conv2d(1, 2, (2, 2), stride=(1, 1), padding=(0, 0), 'relu'), ")


ENCODER = lambda: Sequential(Flatten(), Dense(6, 5, "relu"), Dense(5, 4))  # noqa: E731
DECODER = lambda: Sequential(Dense(2, 5, "relu"), Dense(5, 6), Reshape(3, 2, 1))  # noqa: E731

SHAPE_ERRORS = {
    "a layer of the decoder": (
        ENCODER, lambda: Sequential(Dense(2, 5), Dense(4, 6), Reshape(3, 2, 1)),
        r"decoder\.dense2: Dense\(4, 6, 'identity'\): expected input \(4,\), got \(5,\); put Flatten\(\) before it, or",
    ),
    "no Flatten": (
        lambda: Sequential(Dense(6, 4)), DECODER,
        r"encoder\.dense1: Dense\(6, 4, 'identity'\): expected input \(6,\), got \(3, 2, 1\); put Flatten\(\) before",
    ),
    "a container in a container": (
        lambda: Sequential(Flatten(), Sequential(SiLU(), Dense(5, 4))), DECODER,
        r"encoder\.sequential1\.dense1: Dense\(5, 4, 'identity'\): expected input \(5,\), got \(6,\)",
    ),
    "channels": (
        lambda: Sequential(Conv2d(2, 3, 1)), DECODER,
        r"encoder\.conv2d1: Conv2d\(2, 3, .*\): expected input \(H, W, 2\), channels last, got \(3, 2, 1\)",
    ),
    "kernel larger than the image": (
        lambda: Sequential(Conv2d(1, 3, (1, 3))), DECODER,
        r"encoder\.conv2d1: Conv2d.*: a 3×2 input is smaller than the kernel; use a smaller kernel or more padding",
    ),
    "out_size": (
        ENCODER, lambda: Sequential(Dense(2, 4), Reshape(2, 2, 1), ConvTranspose2d(1, 1, 2, (4, 4))),
        r"decoder\.convtranspose2d1: .*: out_size=\(4, 4\) mirrors an input of \(3, 3\), got \(2, 2\)",
    ),
    "reshape": (
        ENCODER, lambda: Sequential(Dense(2, 5), Reshape(3, 2, 1)),
        r"decoder\.reshape1: Reshape\(3, 2, 1\): input \(5,\) has 5 elements, \(3, 2, 1\) needs 6",
    ),
    "no z_log_sigma": (
        lambda: Sequential(Flatten(), Dense(6, 2)), DECODER,
        r"latent: Latent\(2\): expected \(4,\), z_mean and z_log_sigma side by side, got \(2,\)",
    ),
    "image the other way round": (
        ENCODER, lambda: Sequential(Dense(2, 6), Reshape(2, 3, 1)),
        r"likelihood: Bernoulli\(\): expected decoder outputs \(3, 2, 1\) for images \(3, 2, 1\), got \(2, 3, 1\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPE_ERRORS)
def test_shape_errors_name_part_and_layer(case):
    encoder, decoder, message = SHAPE_ERRORS[case]
    with pytest.raises(ShapeError, match=f"^{message}"):
        VAE(encoder(), decoder(), latent_dim=2, image_shape=(3, 2, 1))


def test_a_deterministic_encoder_gives_the_codes():
    with pytest.raises(ShapeError, match=r"encoder: expected outputs \(2,\), the codes, got \(4,\)"):
        AutoEncoder(ENCODER(), DECODER(), 2, (3, 2, 1))


BAD_LAYERS = {
    "no inputs": (lambda: Dense(0, 3), "both sizes must be at least 1"),
    "no channels": (lambda: Conv2d(1, 0, 2), "both channel counts must be at least 1"),
    "transposed channels": (lambda: ConvTranspose2d(0, 1, 2, (2, 2)), "ConvTranspose2d.*both channel counts"),
    "activation": (lambda: Dense(2, 3, "gelu"), "act='gelu' is not an activation; use one of 'identity', 'relu'"),
    "activation by number": (lambda: Activation(7), "act=7 is not an activation"),
    "kernel": (lambda: Conv2d(1, 1, 0), "kernel=0 must be an integer of at least 1, or a pair"),
    "three strides": (lambda: Conv2d(1, 1, 2, (1, 1, 1)), r"stride=\(1, 1, 1\) must be an integer of at least 1"),
    "padding": (lambda: Conv2d(1, 1, 2, 1, -1), "padding=-1 must be an integer of at least 0"),
    "initialiser": (lambda: Dense(2, 3, init="xavier").declare((2,)), "init='xavier' is not an initialiser; use one"),
    "latent": (lambda: Latent(0), "the latent dimension must be at least 1"),
    "sigma": (lambda: Gaussian(-1), "sigma=-1 must be a positive number"),
    "not a layer": (lambda: Sequential(Dense(2, 2), "relu"), "Sequential takes layers, got 'relu'"),
    "layers in a list": (lambda: Sequential([Dense(2, 2)]), r"Sequential takes layers, got \[Dense"),
}


@pytest.mark.parametrize("case", BAD_LAYERS)
def test_layers_refuse_what_cannot_work(case):
    make, message = BAD_LAYERS[case]
    with pytest.raises((ShapeError, ConfigError), match=message):
        make()


def test_a_layer_stands_in_one_place():
    dense = Dense(2, 2)
    with pytest.raises(ShapeError, match="twice; a layer stands in one place, so make a second one"):
        Sequential(dense, dense)


# ------------------------------------------------------------------------------------------------ parameters

MODELS = ("vae", "conv-vae", "ae", "conv-ae")
EVERY_MODEL = pytest.mark.parametrize("name", MODELS)


def build(name="vae", shape=(5, 3, 2), latent_dim=3, hidden=(6,), **options):
    return zoo.build(name, shape, latent_dim, hidden, **options)


def pictures(n, shape=(5, 3, 2), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


@EVERY_MODEL
def test_tensors_stand_aligned_in_order_and_parts_are_contiguous(name):
    table = build(name).table
    end = 0
    for tensor in table.names():
        view, (_, place) = table.view(tensor), table.places[tensor]
        assert place % TENSOR_ALIGNMENT == 0
        assert place == end  # nothing between a tensor's padding and the next
        end = place + -(-view.size // TENSOR_ALIGNMENT) * TENSOR_ALIGNMENT
        assert view.ctypes.data == table.values.ctypes.data + place * view.itemsize
        assert table.grad(tensor).ctypes.data == table.grads.ctypes.data + place * view.itemsize
        assert table.grad(tensor).shape == view.shape
    assert end == table.values.size == table.grads.size
    for buffer in (table.values, table.grads):
        assert buffer.ctypes.data % ALIGNMENT == 0
    edges = [(r.start, r.stop) for r in table.ranges.values()]
    assert edges[0][0] == 0
    assert edges[-1][1] == end
    assert all(a[1] == b[0] for a, b in pairwise(edges))
    for part, span in table.ranges.items():
        inside = [table.places[t][1] for t in table.names() if t.startswith(f"{part}.")]
        assert all(span.start <= place < span.stop for place in inside)


def padding_of(table):
    """Where no tensor is."""
    free = np.ones(table.values.size, bool)
    for tensor in table.names():
        _, place = table.places[tensor]
        free[place : place + table.view(tensor).size] = False
    return free


@EVERY_MODEL
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_padding_is_zero_and_stays_zero(device, name, optimizer):
    model = build(name, device=device)
    config = TrainConfig(batch_size=4, clip=0.5, optimizer=optimizer, lr=0.01)
    step, free, get = Step(model, Feed(model, pictures(7)), config), padding_of(model.table), model.device.get
    assert free.any()
    before = get(model.table.values)
    for _ in range(6):
        step.run()
    state = step.optimizers[0]
    for buffer in (model.table.values, model.table.grads, state.m, state.v):
        if buffer.size:
            assert not get(buffer)[free].any()
            assert np.isfinite(get(buffer)).all()
    assert (get(model.table.values) != before)[~free].mean() > 0.5


def test_a_range_needs_neighbouring_parts():
    table = build().table
    assert table.range_of(("encoder", "latent", "decoder")) == slice(0, table.values.size)
    assert table.range_of(("decoder", "latent")) == table.ranges["decoder"]
    with pytest.raises(
        ConfigError, match="a player's parts must be neighbours in encoder, latent, decoder, likelihood"
    ):
        table.range_of(("encoder", "decoder"))
    with pytest.raises(ConfigError, match="there is no part 'critic'; this model has encoder, latent"):
        table.range_of(("encoder", "critic"))


def test_count_leaves_out_the_padding():
    table = zoo.build("vae", (28, 28, 1), 20, (400,)).table
    assert table.count() == 785 * 400 + 401 * 40 + 21 * 400 + 401 * 784
    assert table.count() < table.values.size


BOUNDS = {  # layer, its fan_in and fan_out
    "dense": (lambda **o: Dense(50, 40, **o), (50,), 50, 40),
    "conv2d": (lambda **o: Conv2d(5, 8, (3, 4), **o), (6, 7, 5), 60, 96),
    "convtranspose2d": (lambda **o: ConvTranspose2d(8, 5, (3, 4), (6, 7), **o), (4, 4, 8), 60, 96),
}


@pytest.mark.parametrize("init", ["fan_in", "he", "glorot", "zeros"])
@pytest.mark.parametrize("kind", BOUNDS)
def test_initial_ranges(kind, init):
    """Uniform, as wide as stated. The transposed convolution's fan_in is that of the mirrored one, as in PyTorch."""
    make, shape, fan_in, fan_out = BOUNDS[kind]
    layer = make(init=init)
    layer.declare(shape)
    table = ParamTable({"part": layer}, "float64", open_device("numpy"), 4)
    weight, bias = table.view("part.weight"), table.view("part.bias")
    bound = {"fan_in": 1 / math.sqrt(fan_in), "he": math.sqrt(6 / fan_in), "glorot": math.sqrt(6 / (fan_in + fan_out))}
    if init == "zeros":
        assert not weight.any()
    else:
        assert layer.tensors[0].bound == pytest.approx(bound[init], rel=1e-12)
        assert 0.98 * bound[init] < np.abs(weight).max() <= bound[init]
        assert abs(weight.mean()) < 4 * bound[init] / math.sqrt(3 * weight.size)
        assert weight.std() == pytest.approx(bound[init] / math.sqrt(3), rel=0.05)
    if init == "fan_in":
        assert 0.5 * bound[init] < np.abs(bias).max() <= bound[init]
    else:
        assert not bias.any()


@EVERY_MODEL
def test_initial_weights_are_the_same_in_both_dtypes(name):
    tables = {dtype: build(name, dtype=dtype, seed=7).table for dtype in ("float32", "float64")}
    assert tables["float32"].values.dtype == np.float32
    np.testing.assert_array_equal(tables["float32"].values, tables["float64"].values.astype(np.float32))
    assert not np.array_equal(build(name, seed=8).table.values, tables["float32"].values)


# ------------------------------------------------------------------------------------------------ the zoo

SHAPES = [(28, 28, 1), (33, 29, 3), (64, 64, 3), (1, 1, 1), (5, 9, 2)]


@EVERY_MODEL
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_models_overfit_one_small_batch(name, shape):
    """Builds, steps, and the evaluated loss falls."""
    model = zoo.build(name, shape, 4, (16,))
    images = (pictures(4, shape) > 127).astype(np.uint8) * 255
    images[0] = 255  # a picture of one pixel needs both kinds
    feed = Feed(model, images)
    before = evaluate_pass(model, feed)
    step = Step(model, feed, TrainConfig(batch_size=4, lr=1e-3 if name.startswith("conv") else 3e-3))
    for _ in range(10 if name.startswith("conv") else 30):
        step.run()
    after = evaluate_pass(model, feed)
    assert math.isfinite(after["loss"])
    assert after["recon"] < before["recon"]
    assert after["loss"] < before["loss"]
    assert model.reconstruct(images).shape == images.shape
    assert model.sample(2, seed=0).shape == (2, *shape)


@EVERY_MODEL
@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 17, 3)], ids=str)
def test_models_of_default_width_take_a_step(name, shape):
    model = zoo.build(name, shape)
    step = Step(model, Feed(model, pictures(2, shape)), TrainConfig(batch_size=2))
    before = {tensor: model.table.view(tensor).copy() for tensor in model.table.names()}
    assert np.isfinite(step.run().metrics).all()
    for tensor, values in before.items():
        assert (model.table.view(tensor) != values).any(), f"{tensor} does not move"


@pytest.mark.parametrize("likelihood", ["gaussian", "mse"])
def test_other_likelihoods_train(likelihood):
    model = build(likelihood=likelihood, sigma=0.3)
    feed = Feed(model, pictures(4))
    before = evaluate_pass(model, feed)
    step = Step(model, feed, TrainConfig(batch_size=4, lr=0.01))
    for _ in range(60):
        step.run()
    after = evaluate_pass(model, feed)
    assert after["loss"] < before["loss"]
    assert after["rmse"] < before["rmse"]


def test_the_decoder_mirrors_the_encoder():
    model = zoo.build("conv-vae", (33, 29, 3), 4)
    encoder, decoder = (list(model.parts[p].layers.values()) for p in ("encoder", "decoder"))
    convolutions = [layer for layer in encoder if type(layer) is Conv2d]
    transposed = [layer for layer in decoder if type(layer) is ConvTranspose2d]
    assert len(convolutions) == len(transposed) == 2
    for conv, back in zip(convolutions, reversed(transposed), strict=True):
        assert back.out_shape == conv.in_shapes[0]
        assert back.in_shapes[0] == conv.out_shape
        assert back.tensors[0].shape == conv.tensors[0].shape


def test_repr_shows_the_corridor():
    text = repr(build(latent_dim=3))
    assert text.startswith("VAE of (5, 3, 2) images, ")
    for part in ("encoder: Sequential(Flatten(), Dense(30, 6, 'relu')", "latent: Latent(3)", "likelihood: Bernoulli()"):
        assert part in text


@given(
    name=st.sampled_from(MODELS),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3)),
    latent_dim=st.integers(1, 4), hidden=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    likelihood=st.sampled_from(["bernoulli", "gaussian"]), count=st.integers(1, 5), batch_size=st.integers(1, 4),
)  # fmt: skip
def test_any_model_takes_a_step(name, shape, latent_dim, hidden, likelihood, count, batch_size):
    model = zoo.build(name, shape, latent_dim, hidden, likelihood, 0.5)
    step = Step(model, Feed(model, pictures(count, shape)), TrainConfig(batch_size=batch_size, clip=1.0))
    before = model.table.values.copy()
    for _ in range(step.per_epoch):
        metrics = step.run().metrics
        assert np.isfinite(metrics).all()
    assert np.isfinite(model.table.values).all()
    assert (model.table.values != before).any()


# ------------------------------------------------------------------------------------------------ public methods

COUNTS = [1, 3, 16, 17, 256, 300]


@EVERY_MODEL
@pytest.mark.parametrize("n", COUNTS)
def test_public_methods_take_any_number(device, name, n):
    """And the result for an image does not depend on which others stand beside it."""
    model, x = build(name, device=device, dtype="float64"), pictures(n)
    z_mean, z_log_sigma = model.encode(x)
    assert z_mean.shape == (n, 3)
    assert z_mean.dtype == np.float64
    assert (z_log_sigma is None) == name.endswith("ae") if "vae" not in name else z_log_sigma.shape == (n, 3)
    images = model.decode(z_mean)
    assert images.shape == (n, 5, 3, 2)
    assert images.min() >= 0
    assert images.max() <= 1
    np.testing.assert_array_equal(model.reconstruct(x), images)
    assert model.sample(n, seed=3).shape == (n, 5, 3, 2)
    strip = model.interpolate(x, x[::-1], 4)
    assert strip.shape == (n, 4, 5, 3, 2)
    for some in (slice(0, 1), slice(n // 2, n // 2 + 3), slice(n - 1, n)):
        np.testing.assert_allclose(model.encode(x[some])[0], z_mean[some], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(model.reconstruct(x[some]), images[some], rtol=1e-12)
        np.testing.assert_allclose(model.interpolate(x[some], x[::-1][some], 4), strip[some], rtol=1e-12)


def test_no_images_give_no_codes():
    model = build()
    assert model.encode(pictures(0))[0].shape == (0, 3)
    assert model.decode(np.zeros((0, 3))).shape == (0, 5, 3, 2)


def test_interpolation_includes_both_ends():
    model, x = build(dtype="float64"), pictures(2)
    strip = model.interpolate(x[0], x[1], 5)
    assert strip.shape == (5, 5, 3, 2)
    np.testing.assert_allclose(strip[[0, -1]], model.reconstruct(x), rtol=1e-12)
    codes = model.encode(x)[0]
    np.testing.assert_allclose(strip[2], model.decode(codes.mean(0)[None])[0], rtol=1e-12)


def test_what_images_may_be():
    """uint8, floats of any precision, and grey images without their channel axis mean the same."""
    model = build(shape=(5, 3, 1), dtype="float64")
    x = pictures(4, (5, 3, 1))
    want = model.encode(x)[0]
    for same in (x / 255, x[..., 0], x[..., 0] / 255, x.tolist() and (x / 255).tolist(), np.asfortranarray(x)):
        np.testing.assert_allclose(model.encode(same)[0], want, rtol=1e-12)
    np.testing.assert_allclose(model.encode((x / 255).astype(np.float32))[0], want, rtol=1e-6)


def test_samples_are_drawn_afresh_unless_seeded():
    model = build()
    assert np.array_equal(model.sample(3, seed=5), model.sample(3, seed=5))
    assert not np.array_equal(model.sample(3, seed=5), model.sample(3, seed=6))
    assert not np.array_equal(model.sample(3), model.sample(3))
    np.testing.assert_array_equal(model.sample(2, seed=5), model.sample(3, seed=5)[:2])


def test_samples_from_a_fitted_prior():
    model, n = build(dtype="float64"), 20_000
    mean, root = np.array([1.0, -2, 0.5]), np.array([[1, 0, 0], [0.5, 0.3, 0], [0, 0, 2.0]])
    z = model.draw_prior(n, 1, FullGaussian(mean, root @ root.T))
    np.testing.assert_allclose(z.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(np.cov(z.T), root @ root.T, atol=0.1)


NAN = np.full((1, 5, 3, 2), np.nan)
BAD_ARGUMENTS = {
    "NaN image": (lambda m: m.encode(NAN), DataError, "x holds values that are not finite in float32"),
    "infinite pixel": (lambda m: m.reconstruct(np.full((1, 5, 3, 2), np.inf)), DataError, "not finite"),
    "too large for float32": (lambda m: m.encode(np.full((1, 5, 3, 2), 1e300)), DataError, "not finite in float32"),
    "integers": (lambda m: m.encode(np.ones((1, 5, 3, 2), np.int64)), DataError, "x has dtype int64; use uint8"),
    "booleans": (lambda m: m.encode(np.ones((1, 5, 3, 2), bool)), DataError, "x has dtype bool; use uint8 or floats"),
    "complex": (lambda m: m.encode(np.ones((1, 5, 3, 2), complex)), DataError, "x has dtype complex128"),
    "text": (lambda m: m.encode("zero"), DataError, r"x must have shape \(N, 5, 3, 2\), got \(\)"),
    "uneven lists": (lambda m: m.encode([[1, 2], [3]]), DataError, "x cannot be made into an array"),
    "one image": (
        lambda m: m.encode(np.zeros((5, 3, 2))), DataError, r"got \(5, 3, 2\); use x\[None\] for a single image",
    ),
    "transposed image": (lambda m: m.encode(np.zeros((1, 3, 5, 2))), DataError, r"x must have shape \(N, 5, 3, 2\)"),
    "channels first": (lambda m: m.encode(np.zeros((1, 2, 5, 3))), DataError, r"x must have shape \(N, 5, 3, 2\)"),
    "flat image": (lambda m: m.encode(np.zeros((4, 30))), DataError, r"x must have shape \(N, 5, 3, 2\)"),
    "code too long": (lambda m: m.decode(np.zeros((1, 4))), DataError, r"z must be \(N, 3\), got shape \(1, 4\)"),
    "one code": (lambda m: m.decode(np.zeros(3)), DataError, r"use z\[None\] for a single code"),
    "NaN code": (lambda m: m.decode(np.full((1, 3), np.nan)), DataError, "z holds values that are not finite"),
    "code of text": (lambda m: m.decode([["a", "b", "c"]]), DataError, "z has dtype <U1; use floats"),
    "complex code": (lambda m: m.decode(np.ones((1, 3), complex)), DataError, "z has dtype complex128"),
    "unlike pair": (
        lambda m: m.interpolate(pictures(2), pictures(3)), DataError, "equally many images, got 2 and 3",
    ),
    "one step": (lambda m: m.interpolate(pictures(1), pictures(1), 1), ConfigError, "steps=1 must be .* at least 2"),
    "half a step": (lambda m: m.interpolate(pictures(1), pictures(1), 2.5), ConfigError, r"steps=2\.5 must be"),
    "no samples": (lambda m: m.sample(0), ConfigError, "n=0 must be an integer of at least 1"),
    "half a sample": (lambda m: m.sample(2.5), ConfigError, r"n=2\.5 must be an integer"),
    "negative seed": (lambda m: m.sample(1, seed=-1), ConfigError, "seed=-1 must be an integer of at least 0"),
    "seed of 65 bits": (lambda m: m.sample(1, seed=2**64), ConfigError, r"must be below 2\*\*64"),
    "seed of text": (lambda m: m.sample(1, seed="one"), ConfigError, "seed='one' must be an integer"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_public_methods_refuse_what_they_cannot_take(case):
    method, kind, message = BAD_ARGUMENTS[case]
    with pytest.raises(kind, match=message) as caught:
        method(build())
    assert "\n" not in str(caught.value)


BAD_MODELS = {
    "unknown": ({"name": "vea"}, ConfigError, "model='vea' is not known; use one of 'ae', 'vae'"),
    "no channel axis": (
        {"image_shape": (28, 28)},
        ConfigError,
        r"image_shape=\(28, 28\) must be three positive integers",
    ),
    "a number": ({"image_shape": 28}, ConfigError, "image_shape=28 must be several integers"),
    "empty image": ({"image_shape": (0, 28, 1)}, ConfigError, "must be three positive integers"),
    "half a pixel": ({"image_shape": (28.5, 28, 1)}, ConfigError, "must be three positive integers"),
    "latent": ({"latent_dim": 0}, ConfigError, "latent_dim=0 must be an integer of at least 1"),
    "hidden number": ({"hidden": 400}, ConfigError, r"hidden=400 must be several integers, such as \(400,\)"),
    "hidden width": ({"hidden": (400, 0)}, ConfigError, "hidden=0 must be an integer of at least 1 each"),
    "likelihood": ({"likelihood": "poisson"}, ConfigError, "likelihood='poisson' is not known; use one of 'bernoulli'"),
    "sigma": ({"sigma": 0.0}, ConfigError, "sigma=0.0 must be a number above 0"),
    "sigma NaN": ({"sigma": math.nan}, ConfigError, "sigma=nan must be a number above 0"),
    "dtype": ({"dtype": "float16"}, ConfigError, "dtype='float16' is not known; use one of 'float32', 'float64'"),
    "seed": ({"seed": -3}, ConfigError, "seed=-3 must be an integer of at least 0"),
    "large seed": ({"seed": 2**64}, ConfigError, r"must be below 2\*\*64"),
    "device": ({"device": "tpu"}, DeviceError, "device='tpu' is not a device; use one of 'numpy'"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_models_refuse_what_cannot_be_built(case):
    options, kind, message = BAD_MODELS[case]
    with pytest.raises(kind, match=message) as caught:
        zoo.build(**options)
    assert isinstance(caught.value, TinyvaeError)
    assert "\n" not in str(caught.value)


def test_models_from_layers_refuse_alike():
    for options, message in (
        ({"dtype": "float16"}, "dtype='float16'"),
        ({"seed": -1}, "seed=-1"),
        ({"latent_dim": 0}, "lat"),
    ):
        with pytest.raises(ConfigError, match=message):
            VAE(ENCODER(), DECODER(), **({"latent_dim": 2, "image_shape": (3, 2, 1)} | options))


def test_a_model_is_built_again_from_its_config():
    model = build("conv-vae", seed=3, likelihood="gaussian", sigma=0.5)
    assert model.config == ModelConfig("conv-vae", (5, 3, 2), 3, (6,), "gaussian", 0.5, "float32", 3)
    again = zoo.from_config(model.config)
    np.testing.assert_array_equal(again.table.values, model.table.values)
    assert repr(again) == repr(model)


def test_the_device_lends_arrays_on_64_bytes(device):
    dev = open_device(device)
    for shape in (1, (3, 5), (0,), (7, 1, 2)):
        for dtype in (np.float32, np.float64, np.uint8):
            array = dev.empty(shape, dtype)
            assert array.shape == ((shape,) if isinstance(shape, int) else shape)
            if isinstance(array, np.ndarray) and array.size:
                assert array.ctypes.data % ALIGNMENT == 0
                assert array.flags.c_contiguous
    host = np.arange(6.0).reshape(2, 3)
    there = dev.put(host)
    copy = dev.get(there)
    dev.fill(there, -1)
    np.testing.assert_array_equal(copy, host)
    np.testing.assert_array_equal(dev.get(there), np.full((2, 3), -1))
    np.testing.assert_array_equal(dev.get(dev.put(host, there)), host)
