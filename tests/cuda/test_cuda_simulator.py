"""Every op of the CUDA column in Numba's simulator, on tiny ragged shapes: what a machine without a GPU can check.
Run it in a process of its own: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/cuda/test_cuda_simulator.py."""

import os

import pytest

from tinyvae.kernels import OPS, ops_of
from tinyvae.kernels.check import (
    assert_close,
    call,
    call_reference,
    cases,
    depth_of,
    example,
    example_at,
    magnitudes,
    widened,
)
from tinyvae.kernels.op import FLOATS

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
pytestmark = pytest.mark.skipif(not SIMULATED, reason="the CUDA simulator is off: NUMBA_ENABLE_CUDASIM=1")

EXTRA = {  # lengths of the ragged example that take other ways: 128 bits at a time, several blocks, nothing at all
    "scale_rows": [{"R": 3, "P": 8}],
    "latent": [{"B": 2, "R": 6, "L": 8}],
    "latent_grad": [{"B": 2, "R": 6, "L": 8}],
    "bernoulli_nll": [{"B": 2, "R": 4, "P": 40}, {"B": 10, "R": 20, "P": 33}],
    "gaussian_nll": [{"B": 2, "R": 4, "P": 40}, {"B": 10, "R": 20, "P": 33}],
    "objective": [{"L": 0}],
}
TILED = ("dense", "conv2d")  # tiles of hundreds of threads: their variants are tested on small ones, beside the kernels
VARIANT = "ragged "
CASES = [
    (name, label)
    for name, label in cases()
    if name in ops_of("cuda") and label != "model" and not (name.startswith(TILED) and label.startswith(VARIANT))
]
CASES += [(name, f"extra {i}") for name, more in EXTRA.items() for i in range(len(more))]


def case(name, label, dtype):
    """Arguments of a case, and the depth of its sums."""
    if not label.startswith("extra"):
        return example(name, label, dtype), depth_of(name, label)
    lengths = dict(OPS[name].examples["ragged"]) | EXTRA[name][int(label.split()[1])]
    return example_at(name, lengths, dtype), OPS[name].depth(lengths)


@pytest.fixture(autouse=True)
def one_warp(monkeypatch):
    """Convolutions in blocks of one warp, which the simulator runs quickest; test_cuda_conv.py tries every tile."""
    if SIMULATED:
        from tinyvae.kernels.cuda import conv
        from tinyvae.kernels.cuda.engine import tile

        tiles = (tile.Tile(32, 32, 16, 8, 4, 1, 2),)
        monkeypatch.setattr(conv, "TILES", {4: tiles, 8: tiles})


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("name", "label"), CASES)
def test_op_on_its_examples(name, label, dtype):
    """Within the bound of the float64 reference, guard bands and inputs unharmed, the same bits twice."""
    arguments, depth = case(name, label, dtype)
    guards = (64, 64) if name.startswith(TILED) else (64, 67, 64)  # 67 leaves the arrays unaligned
    results = [call(name, arguments, "cuda", guard) for guard in guards]
    want = call_reference(name, widened(arguments))
    for got in results:
        assert_close(name, got, want, magnitudes(name, arguments), depth, dtype)
    first, last = ({k: a.tobytes() for k, a in result.items()} for result in (results[0], results[-1]))
    assert first == last
