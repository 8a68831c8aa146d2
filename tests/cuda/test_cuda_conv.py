"""The CUDA column's convolutions in Numba's simulator: geometries that index arithmetic gets wrong first.
Run it in a process of its own: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/cuda/test_cuda_conv.py."""

import os

import naive_ops as naive
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tinyvae.device import open_device
from tinyvae.kernels import ELU, IDENTITY, OPS, output_size
from tinyvae.kernels.check import assert_close, call, call_reference, example_at, magnitudes, widened

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
pytestmark = pytest.mark.skipif(not SIMULATED, reason="the CUDA simulator is off: NUMBA_ENABLE_CUDASIM=1")
if SIMULATED:
    from tinyvae.kernels.cuda import conv
    from tinyvae.kernels.cuda.engine.tile import Tile
    from tinyvae.kernels.cuda.engine.windows import divisor, split

    TILES, TENSOR = conv.TILES, conv.TENSOR
else:
    TILES, TENSOR = {4: (), 8: ()}, ()

CONVS = ("conv2d", "conv2d_grad_x", "conv2d_grad_w")
HARD = naive.HARD | {"four channels": (2, 4, 8, (5, 4), (3, 2), (2, 1), (1, 1))}


@pytest.fixture(autouse=True)
def one_warp(monkeypatch):
    """Blocks of one warp, which the simulator runs quickest."""
    tiles = (Tile(32, 32, 16, 8, 4, 1, 2),)
    monkeypatch.setattr(conv, "TILES", {4: tiles, 8: tiles})


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
    """Aligned, with a bias; then unaligned, added to where an op adds, or without a bias."""
    check(name, lengths(*HARD[case], act=ELU), np.float32)
    check(name, lengths(*HARD[case], act=ELU, add=1, no_b=True), np.float64, guard=67)


STRIDES = pytest.mark.parametrize("stride", [(1, 2), (2, 3), (3, 4), (4, 1)])


@STRIDES
@pytest.mark.parametrize("kernel", [(1, 2), (3, 5)])
def test_every_phase_of_a_stride(kernel, stride):
    """Each phase has pixels at both ends of the image; with a kernel below the stride some meet no window."""
    check("conv2d_grad_x", lengths(1, 17, 2, (6, 5), kernel, stride, (1, 2)), np.float32)


@STRIDES
@pytest.mark.parametrize("multiple", [(1, 2), (2, 1)])
@pytest.mark.parametrize("C", [1, 2])
def test_phases_side_by_side(stride, multiple, C):
    """All phases have equally many taps."""
    kernel = tuple(s * n for s, n in zip(stride, multiple, strict=True))
    check("conv2d_grad_x", lengths(1, C, 4, (6, 5), kernel, stride, (1, 2)), np.float32)


@pytest.mark.parametrize(("name", "source"), [("conv2d", "x"), ("conv2d_grad_x", "grad_y"), ("conv2d_grad_w", "x")])
@pytest.mark.parametrize("C", [1, 17])
def test_an_infinity_goes_where_it_is_used(name, source, C):
    """Not beyond: steps behind the last are zeros on both sides, since 0 · ∞ would be NaN."""
    arguments = example_at(name, lengths(2, C, 3, (4, 5), (2, 2), (2, 2), (1, 1), no_b=True), np.float64)
    arguments[[arg.name for arg in OPS[name].args].index(source)].reshape(-1)[-1] = np.inf
    with np.errstate(invalid="ignore"):
        wanted = call_reference(name, arguments)
    for key, want in wanted.items():
        np.testing.assert_allclose(call(name, arguments, "cuda")[key], want, rtol=1e-12, atol=1e-12)


def test_sixteen_bytes_are_copied_where_they_stand_together():
    numbers = open_device("numpy").empty(13, np.float32)
    assert [conv.quad(channels, numbers[first:]) for channels, first in ((8, 0), (6, 0), (8, 1), (8, 4))] == [
        4,
        1,
        1,
        4,
    ]


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("tile", [*TILES[4], *TILES[8], *TENSOR[1:]], ids=str)
def test_every_tile(name, tile, monkeypatch):
    """Every way in which threads share the copies, 16 bytes at a time; tensor cores round factors to 11 bits."""
    monkeypatch.setattr(conv, "TILES", {4: (tile,), 8: (tile,)})
    d = lengths(*HARD["four channels"])
    if not tile.tensor:
        check(name, d, np.float64 if tile in TILES[8] else np.float32)
        return
    arguments = example_at(name, d, np.float32)
    got, want = call(name, arguments, "cuda"), call_reference(name, widened(arguments))
    for key, terms in magnitudes(name, arguments).items():
        assert (abs(got[key] - want[key]) <= 2.0**-10 * terms).all()
        assert key == "grad_b" or (got[key] != want[key].astype(np.float32)).any()


def test_weight_gradient_in_parts():
    """512 pixels: two sums, and the bias's behind each."""
    d = lengths(2, 1, 3, (16, 17), (1, 2), (1, 1), (0, 0))
    check("conv2d_grad_w", d | {"add": 1}, np.float64)
    first, again = (check("conv2d_grad_w", d, np.float32, guard) for guard in (64, 67))
    assert {k: a.tobytes() for k, a in first.items()} == {k: a.tobytes() for k, a in again.items()}


@given(d=st.integers(1, 2**31 - 1), n=st.integers(0, 2**31 - 1))
def test_division_by_multiplying(d, n):
    by = tuple(map(np.uint32, divisor(d)))
    for m in (n, n // d * d, max(n // d * d - 1, 0), 2**31 - 1):
        assert split(np.uint32(m), by) == divmod(m, d)


@st.composite
def geometries(draw):
    axes = [[draw(st.integers(*range_)) for range_ in ((1, 6), (1, 4), (1, 5), (0, 2))] for _ in range(2)]
    assume(all(size + 2 * padding >= kernel for size, kernel, _, padding in axes))
    channels = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    return lengths(draw(st.integers(1, 2)), *channels, *zip(*axes, strict=True))


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(geometries())
def test_drawn_geometries(d):
    """The adjoints of each other, exactly: integers have no rounding. <y, g> = <x, grad_x> = <w, grad_w>."""
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
