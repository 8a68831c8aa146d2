"""What only the compiled columns can get wrong: bits that depend on threads, NaN lost on the way, the cache, other
vector widths. That they compute what the reference does is tested with every op's row."""

import os
import subprocess
import sys
from dataclasses import replace

import numba
import numpy as np
import pytest

from tinyvae import kernels
from tinyvae.kernels import RELU
from tinyvae.kernels.cache import cache_folder
from tinyvae.kernels.cpu.engine import compile as compiled
from tinyvae.kernels.cpu.engine.tile import MACHINES

LARGE = {"B": 131, "K": 785, "N": 397, "act": RELU, "add": 0}  # threads are used, and every side is ragged


def arguments(name):
    op = kernels.OPS[name]
    if name.startswith("dense"):
        op = replace(op, examples={"model": LARGE})
    return op, op.example("model", np.float32, seed=1)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one core")
@pytest.mark.parametrize("name", list(kernels.OPS))
def test_the_bits_do_not_depend_on_the_threads(name):
    run, results = getattr(kernels.load("numba"), name), []
    before = numba.get_num_threads()
    try:
        for threads in (1, 2):
            op, given = arguments(name)
            numba.set_num_threads(threads)
            run(*given)
            results.append([v.tobytes() for a, v in zip(op.args, given, strict=True) if a.role in ("out", "inout")])
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1]


@pytest.mark.parametrize(("name", "options", "each"), [
    ("bernoulli_nll", (), 1), ("gaussian_nll", (0.7,), 1), ("continuous_bernoulli_nll", (), 1),
    ("gaussian_optimal_nll", (), 1), ("gaussian_pixel_nll", (), 2), ("discretized_logistic_nll", (), 2),
])  # fmt: skip
def test_the_bits_do_not_depend_on_where_arrays_stand(name, options, each):
    """Rows shorter than a few vectors, in arrays one behind the other, at every distance: a loop's second body, for
    arrays that might overlap, must add in the same order as the first. each: outputs for a pixel."""
    k, rng, found = kernels.load("numba", unchecked=True), np.random.default_rng(0), {}
    for P in (12, 37):
        widths = each * P, P, each * P  # outputs, x, gradient
        host = rng.standard_normal((2, widths[0])).astype(np.float32), rng.random((2, P)).astype(np.float32)
        for gap in range(0, 80):
            for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)):
                memory, arrays, start = np.zeros(2 * sum(widths) + 3 * gap, np.float32), [None] * 3, 0
                for which in order:
                    arrays[which] = memory[start : start + 2 * widths[which]].reshape(2, -1)
                    start += 2 * widths[which] + gap
                arrays[0][...], arrays[1][...] = host
                nll, scale = np.zeros(2, np.float32), np.ones(2, np.float32)
                getattr(k, name)(arrays[0], arrays[1], scale, *options, nll, arrays[2])
                got = nll.tobytes() + arrays[2].tobytes()
                assert found.setdefault(P, got) == got


@pytest.mark.parametrize("name", ["dense", "dense_grad_x", "dense_grad_w", "conv2d", "conv2d_grad_x", "conv2d_grad_w"])
def test_nan_comes_through_where_it_belongs(name):
    op = kernels.OPS[name]
    want, got = (op.example("ragged", np.float64, seed=2) for _ in range(2))
    for given in (want, got):
        given[0].reshape(-1)[3] = np.nan
    with np.errstate(invalid="ignore"):
        getattr(kernels.load("numpy"), name)(*want)
    getattr(kernels.load("numba"), name)(*got)
    place = next(i for i, arg in enumerate(op.args) if arg.role == "out")
    np.testing.assert_array_equal(np.isnan(got[place]), np.isnan(want[place]))
    assert np.isnan(want[place]).any()


def test_the_fingerprint_changes_with_what_the_code_depends_on(monkeypatch):
    first = compiled.fingerprint()
    assert compiled.fingerprint() == first
    monkeypatch.setenv("TINYVAE_VECTOR", "plain")
    assert compiled.fingerprint() != first
    monkeypatch.undo()
    monkeypatch.setattr(compiled.numba, "__version__", "0.0")
    assert compiled.fingerprint() != first


def test_a_cache_that_cannot_be_written_is_no_cache(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TINYVAE_CACHE", str(tmp_path / "file" / "inside"))
    assert cache_folder("0123") is None
    monkeypatch.setenv("TINYVAE_CACHE", "")
    assert cache_folder("0123") is None
    monkeypatch.setenv("TINYVAE_CACHE", str(tmp_path / "new"))
    folder = cache_folder("0123")
    assert folder == tmp_path / "new" / "kernels-0123"
    assert folder.is_dir()


PRODUCT = """
import numpy as np
from tinyvae import kernels
k, rng = kernels.load("numba"), np.random.default_rng(0)
for dtype, bound in ((np.float32, 1e-5), (np.float64, 1e-13)):
    x, w = rng.standard_normal((37, 45)).astype(dtype), rng.standard_normal((45, 70)).astype(dtype)
    y, none = np.full((37, 70), np.nan, dtype), np.empty(0, dtype)
    k.dense(x, w, none, 0, y)
    assert np.abs(y - x.astype(float) @ w).max() < bound * 45, dtype
    grad_x, grad_w = np.full_like(x, np.nan), np.full_like(w, np.nan)
    room_x = kernels.OPS["dense_grad_x"].work_size(y.shape, w.shape)
    room_w = kernels.OPS["dense_grad_w"].work_size(x.shape, y.shape)
    k.dense_grad_x(y, w, np.empty(room_x, dtype), grad_x)
    k.dense_grad_w(x, y, 0, np.empty(room_w, dtype), grad_w, none)
    assert np.abs(grad_x - y.astype(float) @ w.T).max() < bound * 2000, dtype
    assert np.abs(grad_w - x.T.astype(float) @ y).max() < bound * 2000, dtype
print("ok")
"""


def product_in_a_fresh_process(**environment):
    return subprocess.run(
        [sys.executable, "-c", PRODUCT], env=os.environ | environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
@pytest.mark.parametrize("machine", list(MACHINES))
def test_every_vector_width(machine, tmp_path):
    """LLVM splits vectors that the host lacks, so the other machines' tiles run here too, if slowly."""
    done = product_in_a_fresh_process(TINYVAE_VECTOR=machine, TINYVAE_CACHE=str(tmp_path))
    assert done.stdout.strip() == "ok", done.stderr


@pytest.mark.slow
def test_a_broken_cache_is_harmless(tmp_path):
    environment = {"TINYVAE_CACHE": str(tmp_path)}
    assert product_in_a_fresh_process(**environment).stdout.strip() == "ok"
    files = [p for p in tmp_path.rglob("*") if p.suffix in (".nbi", ".nbc")]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:40])
    done = product_in_a_fresh_process(**environment)
    assert done.stdout.strip() == "ok", done.stderr


INTERPRETED = """
import numpy as np
from tinyvae import kernels
from tinyvae.errors import KernelError
INTERPRETED = ("bias_grad", "scale_rows", "tick", "gather")
for name, op in kernels.OPS.items():
    given, want = (op.example("ragged", np.float64) for _ in range(2))
    try:
        getattr(kernels.load("numba"), name)(*given)
    except KernelError as error:
        assert "NUMBA_DISABLE_JIT" in str(error), error
        assert name not in INTERPRETED, name
        continue
    assert name in INTERPRETED, name
    getattr(kernels.load("numpy"), name)(*want)
    for arg, got, right in zip(op.args, given, want, strict=True):
        if arg.role in ("out", "inout"):
            np.testing.assert_allclose(got, right, rtol=1e-12, atol=1e-14)
print("ok")
"""


def test_what_python_can_run_runs_without_compiling_and_the_rest_says_that_it_cannot():
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.strip() == "ok", done.stderr
