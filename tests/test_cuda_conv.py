"""The CUDA column's convolutions in Numba's simulator: geometries that index arithmetic gets wrong first.
Run it in a process of its own: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/test_cuda_conv.py."""

import os

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinyvae.bench.verify import assert_close, call, call_reference, example_at, magnitudes, widened
from tinyvae.kernels import RELU, IDENTITY, OPS, output_size
from tinyvae.kernels.op import FLOATS

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
pytestmark = pytest.mark.skipif(not SIMULATED, reason="the CUDA simulator is off: NUMBA_ENABLE_CUDASIM=1")

CONVS = ("conv2d", "conv2d_grad_x", "conv2d_grad_w")
HARD = {  # B, C, F, (H, W), kernel, stride, padding
    "stride above kernel": (2, 3, 2, (7, 6), (2, 1), (3, 4), (0, 0)),
    "rows never read": (2, 1, 3, (6, 8), (3, 3), (4, 4), (0, 0)),
    "kernel as large as the image": (3, 2, 1, (4, 5), (4, 5), (1, 1), (0, 0)),
    "kernel larger than the image": (1, 2, 3, (2, 1), (4, 3), (1, 2), (1, 1)),
    "windows wholly in the padding": (1, 2, 2, (3, 2), (1, 2), (1, 1), (2, 3)),
    "one by one": (2, 3, 4, (3, 5), (1, 1), (1, 1), (0, 0)),
    "single pixel": (3, 1, 2, (1, 1), (1, 1), (2, 3), (0, 0)),
    "non-square everything": (2, 3, 5, (5, 9), (2, 4), (1, 3), (1, 2)),
    "four channels": (2, 4, 8, (5, 4), (3, 2), (2, 1), (1, 1)),
    "a wide gradient": (1, 36, 4, (3, 4), (3, 3), (2, 2), (1, 1)),
}


def lengths(B, C, F, hw, kernel, stride, padding, **options):
    """Lengths and options of one convolution, as the table writes them."""
    out = [output_size(hw[i], kernel[i], stride[i], padding[i]) for i in (0, 1)]
    return {
        "B": B, "H": hw[0], "W": hw[1], "C": C, "F": F, "KH": kernel[0], "KW": kernel[1], "OH": out[0], "OW": out[1],
        "stride": stride, "padding": padding, "act": IDENTITY, "add": 0,
    } | options  # fmt: skip


def check(name, d, dtype, guard=64):
    """Within the float32 or float64 bound of the reference; guard 67 leaves the arrays unaligned."""
    arguments = example_at(name, d, dtype)
    got = call(name, arguments, "cuda", guard)
    want = call_reference(name, widened(arguments))
    assert_close(name, got, want, magnitudes(name, arguments), OPS[name].depth(d), dtype)
    return got


@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("name", CONVS)
def test_hard_geometries(name, case):
    check(name, lengths(*HARD[case], act=RELU), np.float32)
    check(name, lengths(*HARD[case], act=RELU, add=1), np.float64, guard=67)


@pytest.mark.parametrize("name", CONVS)
def test_without_a_bias(name):
    check(name, lengths(*HARD["four channels"], no_b=True, no_grad_b=True), np.float32)


@pytest.mark.parametrize("stride", [(1, 2), (2, 3), (3, 4), (4, 1)])
@pytest.mark.parametrize("kernel", [(1, 2), (3, 5), (4, 4)])
def test_every_phase_of_a_stride(kernel, stride):
    """A pixel of each phase at either end of the image; with a kernel below the stride some meet no window."""
    check("conv2d_grad_x", lengths(1, 2, 2, (6, 5), kernel, stride, (1, 2)), np.float64)
    check("conv2d_grad_x", lengths(1, 33, 1, (6, 5), kernel, stride, (1, 2)), np.float64)


@st.composite
def geometries(draw):
    axes = [[draw(st.integers(*range_)) for range_ in ((1, 6), (1, 4), (1, 5), (0, 2))] for _ in range(2)]
    assume(all(size + 2 * padding >= kernel for size, kernel, _, padding in axes))
    hw, kernel, stride, padding = zip(*axes, strict=True)
    return lengths(draw(st.integers(1, 2)), draw(st.integers(1, 5)), draw(st.integers(1, 5)), hw, kernel, stride, padding)


@settings(max_examples=8)
@given(geometries())
def test_drawn_geometries(d):
    """The adjoints of each other, exactly: integers have no rounding. <y, g> = <x, grad_x> = <w, grad_w>, and g sums
    to grad_b."""
    rng = np.random.default_rng(7)
    arrays, got = {}, {}
    for key, axes in {"x": ("B", "H", "W", "C"), "w": ("KH", "KW", "C", "F"), "grad_y": ("B", "OH", "OW", "F")}.items():
        arrays[key] = rng.integers(-4, 5, [d[a] for a in axes]).astype(np.float32)
    for name in CONVS:
        arguments = example_at(name, d | {"no_b": True}, np.float32)
        for i, arg in enumerate(OPS[name].args):
            if arg.name in arrays:
                arguments[i] = arrays[arg.name]
        got |= call(name, arguments, "cuda")
        for key, want in call_reference(name, arguments).items():
            np.testing.assert_array_equal(got[key], want)
    products = [(got["y"], arrays["grad_y"]), (got["grad_x"], arrays["x"]), (got["grad_w"], arrays["w"])]
    assert len({float((a.astype(np.float64) * b).sum()) for a, b in products}) == 1
    np.testing.assert_array_equal(got["grad_b"], arrays["grad_y"].sum((0, 1, 2)))
