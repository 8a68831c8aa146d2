"""Every gradient of the package against differences: ops, layers, whole models, and shapes that hypothesis draws.
Whether the checker itself would notice a mistake is asked in test_gradients_checker.py and test_museum.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyvae import gradcheck, zoo
from tinyvae.check import Plan, pairs_layers
from tinyvae.check.pairs import PAIRS
from tinyvae.check.table import check_all, checks, possible, run_check, uncovered
from tinyvae.kernels import ACTIVATIONS, OPS
from tinyvae.layers import Bernoulli, Conv2d, ConvTranspose2d, Dense, Flatten, Gaussian, Latent, Sequential, SiLU

ACTS = st.sampled_from(sorted(ACTIVATIONS))
SEEDS = st.integers(0, 2**32)
FEW = Plan(elements=60, sampled=25, directions=4)


def by_name(*groups):
    return [pytest.param(check, id=check.name) for check in checks(groups)]


@pytest.mark.parametrize("check", by_name("op", "meaning", "layer"))
def test_line_of_the_table(device, check):
    if not possible([check], device):
        pytest.skip(f"the {device} column lacks an op of {check.name}")
    line = run_check(check, device, seed=1)
    assert line.ok, line.failures


@pytest.mark.parametrize("check", [c for c in by_name("model") if "bernoulli, tiny" in c.id])
def test_every_element_of_tiny_models(check):
    line = run_check(check, seed=2)
    assert line.ok, line.failures


@pytest.mark.parametrize(("shape", "directions"), [((33, 29, 3), 2), ((64, 64, 3), 1)], ids=str)
@pytest.mark.parametrize("name", list(zoo.ZOO))
def test_directions_of_models(device, name, shape, directions):
    """Of every tensor: a random direction meets each of its elements; a second one is for small sizes."""
    model = zoo.build(name, shape, latent_dim=5, hidden=(17,), device=device, seed=3)
    report = gradcheck(model, batch=2, seed=3, plan=Plan(elements=0, sampled=0, directions=directions))
    assert report.ok, report


def test_default_sizes(device):  # 28×28×1
    for check in checks(("model",)):
        if "default" in check.name:
            line = run_check(check, device, seed=4)
            assert line.ok, line.failures


def test_no_op_is_left_out():
    assert uncovered(checks()) == []
    looked_at = {op for pair in (*PAIRS, *pairs_layers.LAYER_PAIRS) for op in pair.ops}
    assert {name for name in OPS if name.endswith("_grad") or "_grad_" in name} <= looked_at


def test_models_are_looked_at_for_the_ops_that_they_ask_for():
    places = {check.name: set(check.places) for check in checks(("model",))}
    assert all(found >= {"Model", "Dense", "dense", "dense_grad_w", "act_grad"} for found in places.values())
    assert places["iwae (5, 3, 3) bernoulli, tiny size"] >= {"importance_objective", "ImportanceLatent", "latent_grad"}
    assert not places["iwae (5, 3, 3) bernoulli, tiny size"] & {"objective", "conv2d", "gaussian_nll"}
    assert {"scale_rows", "add", "activate"} <= places["vae-gan (28, 28, 1) bernoulli, default size"]
    assert "targeted_objective" in places["vae (5, 3, 1) bernoulli, free bits"]


def test_models_of_the_zoo_have_a_tiny_size():
    assert {check.name.split()[0] for check in checks(("model",)) if "tiny" in check.name} == set(zoo.ZOO)


@pytest.mark.parametrize("check", [c for c in by_name("model") if c.id.endswith(("free bits", "a capacity"))])
def test_objectives_whose_weights_follow_from_the_batch(device, check):
    if not possible([check], device):
        pytest.skip(f"the {device} column lacks an op of {check.name}")
    for seed in (1, 5):  # the KL above its capacity, and below
        line = run_check(check, device, seed)
        assert line.ok, line.failures


# ---------------------------------------------------------------------------------------------- drawn by hypothesis


@settings(max_examples=12)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), ACTS, st.booleans(), SEEDS)
def test_dense_of_any_shape(n_in, n_out, batch, act, bias, seed):
    report = gradcheck(Dense(n_in, n_out, act, bias), batch=batch, seed=seed, plan=FEW)
    assert report.ok, report


GEOMETRY = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))  # kernel, stride, padding


@settings(max_examples=12)
@given(GEOMETRY, GEOMETRY, st.integers(0, 4), st.integers(1, 3), st.integers(1, 3), ACTS, st.booleans(), SEEDS)
def test_convolution_and_its_transpose_of_any_shape(rows, columns, more, c_in, c_out, act, bias, seed):
    (kh, sh, ph), (kw, sw, pw) = rows, columns
    H, W = max(1, kh - 2 * ph) + more, max(1, kw - 2 * pw) + more // 2
    conv = Conv2d(c_in, c_out, (kh, kw), (sh, sw), (ph, pw), act, bias)
    report = gradcheck(conv, (H, W, c_in), batch=2, seed=seed, plan=FEW)
    assert report.ok, report
    back = ConvTranspose2d(c_out, c_in, (kh, kw), (H, W), (sh, sw), (ph, pw), act, bias)
    report = gradcheck(back, conv.out_shape, batch=2, seed=seed, plan=FEW)
    assert report.ok, report


@settings(max_examples=8)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), SEEDS)
def test_latent_of_any_shape(dim, batch, samples, seed):
    report = gradcheck(Latent(dim), batch=batch, samples=samples, seed=seed)
    assert report.ok, report


@settings(max_examples=8)
@given(
    st.tuples(*[st.integers(1, 4)] * 3), st.integers(1, 3), st.integers(1, 3), st.floats(0.05, 5), st.booleans(), SEEDS
)
def test_likelihoods_of_any_shape(shape, batch, samples, sigma, bernoulli, seed):
    report = gradcheck(Bernoulli() if bernoulli else Gaussian(sigma), shape, batch, seed=seed, samples=samples)
    assert report.ok, report


@settings(max_examples=6)
@given(st.lists(st.tuples(st.integers(1, 6), ACTS), min_size=1, max_size=4), st.booleans(), SEEDS)
def test_chains_of_any_depth(widths, silu, seed):
    sizes = [6, *(width for width, _ in widths)]
    layers = [Dense(sizes[i], sizes[i + 1], act) for i, (_, act) in enumerate(widths)]
    chain = Sequential(Flatten(), *layers[:1], *([SiLU()] if silu else []), *layers[1:])
    report = gradcheck(chain, (3, 1, 2), seed=seed, plan=FEW)
    assert report.ok, report


@settings(max_examples=4)
@given(
    st.sampled_from(sorted(zoo.SCORING)), st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3)),
    st.integers(1, 3), st.sampled_from(["bernoulli", "gaussian"]), SEEDS,
)  # fmt: skip
def test_models_of_any_shape(name, shape, latent_dim, likelihood, seed):
    model = zoo.build(name, shape, latent_dim, (3,), likelihood, sigma=0.6, dtype="float64", seed=seed)
    report = gradcheck(model, seed=seed, plan=Plan(elements=0, sampled=8, directions=2))
    assert report.ok, report


# ---------------------------------------------------------------------------------------------- false alarms


@pytest.mark.parametrize("seed", range(100, 110))
def test_no_false_alarm(seed):
    """Ten seeds, a fifth of the layers and half of the models each."""
    layers = checks(("layer",))[seed % 5 :: 5]
    failures = [f for check in layers for f in run_check(check, seed=seed).failures]
    for name in list(zoo.ZOO)[seed % 2 :: 2]:
        model = zoo.build(name, (5, 3, 1), 2, (3,), seed=seed)
        report = gradcheck(model, seed=seed, plan=Plan(elements=4, sampled=4, directions=2))
        failures += map(str, report.failures)
    assert not failures, failures


@pytest.mark.slow
def test_no_false_alarm_in_200_runs_of_the_whole_table():
    for seed in np.random.SeedSequence().generate_state(200):
        table = check_all(seed=int(seed))
        assert table.ok, f"seed {seed}: {table.failures}"
