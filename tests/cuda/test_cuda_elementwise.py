"""What the table's examples do not show of the CUDA column's elementwise ops and sums, in Numba's simulator.
Run it in a process of its own: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/cuda/test_cuda_elementwise.py."""

import os

import numpy as np
import pytest

from tinyvae.kernels import ACTIVATIONS, OPS
from tinyvae.kernels.check import assert_close, call, call_reference, example_at, magnitudes, widened

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
pytestmark = pytest.mark.skipif(not SIMULATED, reason="the CUDA simulator is off: NUMBA_ENABLE_CUDASIM=1")


@pytest.mark.parametrize("act", ACTIVATIONS.values())
def test_what_is_not_finite_passes_an_activation_as_in_the_reference(act):
    x = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 90, -90], np.float32)
    arguments = [x, act, np.full_like(x, np.nan)]
    got, want = call("activate", arguments, "cuda"), call_reference("activate", arguments)
    np.testing.assert_allclose(got["y"], want["y"], rtol=1e-6)


@pytest.mark.parametrize("act", ACTIVATIONS.values())
def test_a_gradient_that_is_not_a_number_stays_so(act):
    y = np.array([-0.5, 0, 0.5], np.float32)
    got = call("act_grad", [y, act, np.full_like(y, np.nan)], "cuda")
    assert np.isnan(got["grad"]).all()


def test_far_from_zero_the_gradient_of_silu_does_not_cancel():
    x = np.concatenate([np.linspace(-18, -6, 30), np.linspace(6, 18, 30)]).astype(np.float32)
    arguments = [x, np.ones_like(x)]
    got, want = call("silu_grad", arguments, "cuda"), call_reference("silu_grad", widened(arguments))
    np.testing.assert_allclose(got["grad"], want["grad"], rtol=3e-7)


@pytest.mark.parametrize("name", ["bernoulli_nll", "gaussian_nll"])
def test_the_bits_of_a_likelihood_do_not_depend_on_its_address(name):
    arguments = example_at(name, {"B": 3, "R": 6, "P": 40, "sigma": 0.7}, np.float32)
    aligned, unaligned = (call(name, arguments, "cuda", guard) for guard in (64, 67))
    assert all(aligned[k].tobytes() == unaligned[k].tobytes() for k in aligned)


@pytest.mark.parametrize("name", ["bernoulli_nll", "gaussian_nll"])
@pytest.mark.parametrize("P", [1, 5, 33, 40])
def test_many_rows_are_summed_by_fewer_threads_each(name, P, monkeypatch):
    from tinyvae.kernels.cuda import likelihood

    monkeypatch.setattr(likelihood, "FULL", 1)
    monkeypatch.setattr(likelihood, "WARP", 2)
    assert likelihood.lanes_for(140, P, 1024) == min(2, -(-P // 8))
    lengths = {"B": 70, "R": 140, "P": P, "sigma": 0.7}
    arguments = example_at(name, lengths, np.float32)
    got, want = call(name, arguments, "cuda"), call_reference(name, widened(arguments))
    assert_close(name, got, want, magnitudes(name, arguments), OPS[name].depth(lengths), np.float32)


def test_the_objective_of_more_numbers_than_threads(monkeypatch):
    from tinyvae.kernels.cuda import objective

    monkeypatch.setattr(objective, "BLOCK", 8)
    lengths = {"B": 5, "R": 15, "L": 7}
    arguments = example_at("objective", lengths, np.float32)
    got, want = call("objective", arguments, "cuda"), call_reference("objective", widened(arguments))
    assert_close(
        "objective", got, want, magnitudes("objective", arguments), OPS["objective"].depth(lengths), np.float64
    )
