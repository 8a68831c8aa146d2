"""Every op of the CUDA column in Numba's simulator, on tiny ragged shapes: what a machine without a GPU can check.
Run it in a process of its own: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/test_cuda_simulator.py."""

import os

import pytest

from tinyvae import kernels
from tinyvae.bench.verify import assert_close, call, call_reference, cases, depth_of, example, magnitudes, widened
from tinyvae.kernels.op import FLOATS

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
pytestmark = pytest.mark.skipif(not SIMULATED, reason="the CUDA simulator is off: NUMBA_ENABLE_CUDASIM=1")

CASES = [(name, label) for name, label in cases() if label != "model"]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("name", "label"), CASES)
def test_op_on_its_examples(name, label, dtype):
    """Within the bound of the float64 reference, guard bands and inputs unharmed, the same bits twice."""
    if name not in kernels.COLUMNS["cuda"]:
        pytest.skip(f"{name} has no CUDA version yet")
    arguments = example(name, label, dtype)
    first, second = (call(name, arguments, "cuda", guard) for guard in (64, 67))  # 67 leaves the arrays unaligned
    want = call_reference(name, widened(arguments))
    for got in (first, second):
        assert_close(name, got, want, magnitudes(name, arguments), depth_of(name, label), dtype)
    again = call(name, arguments, "cuda", 64)
    assert {k: a.tobytes() for k, a in first.items()} == {k: a.tobytes() for k, a in again.items()}
