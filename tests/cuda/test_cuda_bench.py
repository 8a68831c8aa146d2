"""The GPU's benchmark as far as it goes without a GPU: its cases, turns, files, table and bars, and PyTorch's side.
Contestants are stand-ins with given times; one job runs in the simulator where that is on."""

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from peers import cuda_bench, cuda_cases, cuda_report, curves, sanitize
from peers.burst import burst, burst_of
from peers.cuda_cases import BARS, CASES, COPY
from tinyvae.app.cli import main as command
from tinyvae.bench import cases as cpu_cases
from tinyvae.bench import worker
from tinyvae.bench.cases import Case
from tinyvae.bench.job import Job, Variant
from tinyvae.bench.pool import in_turn
from tinyvae.kernels import COLUMNS, OPS
from tinyvae.kernels import check as verify
from tinyvae.kernels.check import WrongResult, call_reference

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
SMALL = Case("products", "3×5×4", "forward", "dense", cpu_cases.dense_lengths(3, (5, 4)))


# ------------------------------------------------------------------------------------------------ names and cases


def test_a_name_says_what_is_asked_for():
    every = Variant("torch", cuda=True, channels_last=True, compiled=True, captured=True, tf32=True)
    assert Variant.of("torch-cuda-channels-last-compiled-captured-tf32") == every
    assert Variant.of("torch-channels-last") == Variant("torch", channels_last=True)
    assert [Variant.of(name).package for name in ("cuda-tf32", "numba", "jax")] == ["numba", "numba", "jax"]
    for names in cuda_cases.CONTESTANTS.values():
        assert len({Variant.of(name) for name in names}) == len(names)


def test_every_bar_stands_on_a_case():
    labels = {cuda_report.label({"name": c.name, "use": c.use}): c for made in CASES.values() for c in made()}
    for bar in BARS:
        assert bar.ours in cuda_cases.contestants(labels[bar.name])
    assert sum(len(made()) for made in CASES.values()) == len(labels)


def test_memory_bound_ops_are_larger_than_any_cache():
    for case in cuda_cases.memory():
        arrays = OPS[case.op].arrays(case.lengths, np.float32)
        assert sum(4 * np.prod(shape) for shape, _ in arrays.values()) >= 256e6


def test_bursts_are_short_and_never_empty():
    made = {str(case): burst_of(case) for group in CASES.values() for case in group()}
    assert made["4096×4096×4096 forward"] == 1
    assert set(made.values()) <= set(range(1, 51))
    assert burst_of(COPY) == 50


# ------------------------------------------------------------------------------------------------ many calls at a time


def test_a_burst_is_recorded_run_and_waited_for():
    log = []

    def record(many):
        log.append("record")
        return lambda: (log.append("replay"), many())

    made = burst(Job(lambda: log.append("call"), dict), 3, lambda: log.append("wait"), record)
    made.once()
    made.run()
    assert log == ["record", "call", "replay", "call", "call", "call", "wait"]
    plain = burst(Job(lambda: log.append("call"), dict), 2, lambda: log.append("wait"))
    plain.run()
    assert log[-3:] == ["call", "call", "wait"]


def test_a_worker_counts_calls_and_not_runs(monkeypatch):
    log, clock = [], iter(range(100))
    server = worker.Server("fake", 1)
    server.job = burst(Job(lambda: log.append("call"), dict), 4, lambda: log.append("wait"))
    monkeypatch.setattr(worker.time, "perf_counter", lambda: next(clock))
    assert server.time({"warm": 1, "calls": 6}) == {"times": [0.25, 0.25]}
    assert log.count("wait") == 3


def test_results_are_of_a_single_call(tmp_path, monkeypatch):
    """An op that updates an array would have done so many times."""
    total = np.zeros(1)

    def add():
        total[0] += 1

    monkeypatch.setattr(worker, "build", lambda *given: burst(Job(add, lambda: {"total": total}), 5, lambda: None))
    server = worker.Server("fake", 1)
    server.load({"case": SMALL.to_json(), "dtype": "float32", "result": str(tmp_path / "r.npz")})
    with np.load(tmp_path / "r.npz") as stored:
        assert stored["total"] == [1]


# ------------------------------------------------------------------------------------------------ the run


class Fake:
    """A contestant of a given speed that gives the right results, or the wrong ones."""

    wrong = ""
    opened: list = []  # noqa: RUF012

    def __init__(self, name, threads):
        self.name, self.us = name, 10.0 if name == "cuda" else 15.0 + len(name)
        self.opened.append(name)

    def load(self, case, dtype):
        if case.group == "machine":
            return {"amount": np.array([4e7])}
        if case.model:
            return {"losses": np.linspace(550, 90 if self.name != self.wrong else 540, 26)}
        got = call_reference(case.op, case.arguments(np.float32))
        if self.name == self.wrong:
            got = {name: a * np.float32(1.01) for name, a in got.items()}
        return got

    def time(self, warm, calls):
        return [self.us * 1e-6] * calls

    def drop(self):
        pass

    def close(self):
        self.opened.remove(self.name)


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """A run over tiny cases with stand-ins; the results, and its file."""
    monkeypatch.setattr(cuda_bench, "Worker", Fake)
    monkeypatch.setattr(cuda_bench, "gpu", lambda: "a GPU, 1 GiB")
    monkeypatch.setattr(cuda_bench, "installed", lambda name: name != "torch-cuda-compiled")
    monkeypatch.setattr(cuda_bench, "in_turn", lambda c, effort: in_turn(c, effort, lambda seconds: None))
    monkeypatch.setattr("tinyvae.bench.measure.in_turn", cuda_bench.in_turn)
    tiny = {
        "memory": Case("memory", "adam", "call", "adam", OPS["adam"].examples["tiny"]),
        "products": Case("products", "4096×4096×4096", "forward", "dense", SMALL.lengths),
        "convs": cpu_cases.convolution(2, (6, 5, 7), "grad_w", True),
    }
    for group, case in tiny.items():
        monkeypatch.setitem(CASES, group, lambda case=case: [case])
    monkeypatch.setattr(cuda_bench, "watch", lambda *given: RUN)

    def run(*only):
        return cuda_bench.measure(only, 1, lambda line: None, tmp_path / "figures.json", 2)

    return run


RUN = [
    (1.0, "tinyvae"),
    (4.0, "@first step"),
    (6.5, "epoch 1/2: test −ELBO 128.8"),
    (9.0, "epoch 2/2: test −ELBO 115.4"),
]


def test_the_run_writes_as_it_goes_and_judges(measured, tmp_path):
    results = measured()
    assert json.loads((tmp_path / "figures.json").read_text("utf-8")) == results
    assert Fake.opened == []
    assert results["copy"] == pytest.approx(4e12)
    assert [row["group"] for row in results["rows"]] == ["memory", "products", "convs", *["steps"] * 3]
    text = cuda_report.text(results)
    for line in (
        "a GPU, 1 GiB; tinyvae",
        "  cuda, nothing compiled yet            9.00 s to test −ELBO 115.4, first step at 4.00 s",
        "  4096×4096×4096 forward    cuda       ≥ 0.80 of PyTorch's best 2.50  ok",
        "  adam                      cuda       ≥ 0.85 of copy rate      0.00  MISSED",
        "  bernoulli_nll             cuda       ≥ 0.85 of copy rate      not measured",
        "  conv step, batch 1024     cuda       ≥ 1.00 of PyTorch's best 2.50  ok",
    ):
        assert line in text
    step = next(line for line in text.splitlines() if "dense step, batch 128" in line and "µs" in line)
    assert "torch-cuda 25.0 (torch-cuda-captured 34.0, torch-cuda-compiled-captured 43.0)" in step
    assert "channels-last" not in step
    tf32 = [line for line in text.splitlines() if "cuda-tf32" in line and "4096" in line and "µs" in line]
    assert "torch-cuda-tf32 30.0" in tf32[0]  # with as many bits, and not the faster torch-cuda


def test_a_wrong_peer_is_left_out_and_our_own_stops_the_run(measured, monkeypatch):
    monkeypatch.setattr(Fake, "wrong", "torch-cuda-tf32")
    results = measured("products")
    assert "torch-cuda-tf32" not in results["rows"][0]["times"]
    assert "torch-cuda-tf32 gives a wrong result" in results["notes"][0]
    monkeypatch.setattr(Fake, "wrong", "cuda-tf32")
    with pytest.raises(WrongResult, match=r"y is off by 0\.01 of its norm"):
        measured("products")
    assert Fake.opened == []


def test_a_single_wrong_element_of_a_tf32_product_is_seen():
    arguments = SMALL.arguments(np.float32)
    want, terms = call_reference("dense", verify.widened(arguments)), verify.magnitudes("dense", arguments)
    rounded = {"y": want["y"] * (1 + 4e-4)}
    verify.assert_near("dense", rounded, want, terms)
    rounded["y"][2, 1] += terms["y"][2, 1] / 256
    with pytest.raises(WrongResult, match="dense: "):
        verify.assert_near("dense", rounded, want, terms)


def test_the_command(measured, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("tinyvae.bench.main.open_device", lambda name: None)
    assert command(["bench", "--device", "cuda", "--only", "memory,products", "--json", str(tmp_path / "f.json")]) == 0
    assert "bars" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "f.json").read_text("utf-8"))["rows"]) == 2
    assert command(["bench", "--device", "cuda", "--only", "startup"]) == 2
    assert "--only='startup' is not known" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ jobs


@pytest.mark.skipif(not SIMULATED, reason="needs the CUDA simulator: NUMBA_ENABLE_CUDASIM=1")
@pytest.mark.parametrize("name", ["activate", "adam"])
def test_our_job_in_the_simulator(name):
    """A single call gives the op's result; the burst after it makes many."""
    if name not in COLUMNS["cuda"]:
        pytest.skip(f"{name} has no CUDA version yet")
    case = Case("ops", name, "call", name, OPS[name].examples["tiny"])
    made = worker.build("cuda", case, "float32", 1)
    made.once()
    case.check(made.result(), np.float32)
    made.run()


@pytest.mark.skipif(not SIMULATED, reason="needs the CUDA simulator: NUMBA_ENABLE_CUDASIM=1")
def test_every_op_is_called_on_arrays_that_stand_alone(monkeypatch, capsys):
    from tinyvae.device import gpu

    sizes = []
    monkeypatch.setattr(gpu, "LARGE", gpu.LARGE)  # the program changes both; put back afterwards
    monkeypatch.setattr(gpu, "ALIGNMENT", gpu.ALIGNMENT)
    monkeypatch.setattr(sanitize, "cases", lambda: [("activate", "tiny"), ("activate", "ragged")])
    monkeypatch.setattr(gpu.Arena, "_new", lambda self, size, new=gpu.Arena._new: sizes.append(size) or new(self, size))
    sanitize.main()
    n = OPS["activate"].examples["ragged"]["n"]
    assert sizes[-2:] == [4 * n, 4 * n]
    assert "float64, fp32: 2 calls" in capsys.readouterr().out


def test_losses_beside_numpys(capsys, tmp_path, monkeypatch):
    curve = curves.losses("vae", "numpy", "float64", 3)
    assert 600 > curve[0] > 500
    assert curve[0] > curve[1] > curve[2]
    drift = {"numpy": 1.0, "cuda": 1 + 2e-5, "broken": np.nan}
    monkeypatch.setattr(curves, "losses", lambda model, device, dtype, n: np.linspace(drift[device], 3, n))
    assert [row["ok"] for row in curves.compare("vae", "cuda")] == [False, False, True]
    monkeypatch.setattr(curves, "MODELS", ("vae",))
    assert curves.main(["broken", str(tmp_path / "curves.json")]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "vae, float64, 200 steps: nan NOT < 1e-10",
        "vae, float32, 10 steps: nan NOT < 1e-05",
        "vae, float32, 200 steps: nan NOT < 0.005",
        "3 comparisons of losses with numpy's: 3 beyond their limit",
    ]
    assert len(json.loads((tmp_path / "curves.json").read_text("utf-8"))) == 3


# ------------------------------------------------------------------------------------------------ the one command

PYTHON = """#!/bin/bash
case "$*" in
  *device.toolkit*) echo "export CUDA_HOME=$3"; echo "ptxas: not found" >&2 ;;
  "-m numba -s") printf '__Other__\n1\n__CUDA Information__\nCUDA Device Initialized: True\n\n__More__\n' ;;
  *peers.curves*) echo "6 comparisons of losses with numpy's: 0 beyond their limit" ;;
  *"--only steps"*) echo "no GPU left" >&2; exit 1 ;;
  *"bench --device cuda"*) printf 'bars\\n  dense  1.62  ok\\n  conv  0.80  MISSED\\n  odd  not measured\\n' ;;
  *test_kernels.py) echo "2 passed, 1 skipped in 0.1s" ;;
  *test_step.py) echo "1 failed, 4 passed in 0.2s"; exit 1 ;;
  *"-m pytest"*) echo "3 deselected in 0.01s"; exit 5 ;;
esac
"""
SANITIZER = """#!/bin/bash
echo "========= $2 SUMMARY: 0 errors"
"""


def test_the_one_command_for_a_gpu_machine(tmp_path):
    """Its parts are stand-ins; one that fails stops no other, and the table says what each came to."""
    for name, text in (("python", PYTHON), ("compute-sanitizer", SANITIZER)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    variables = {"PATH": path, "PYTHON": str(tmp_path / "python"), "TMPDIR": str(tmp_path)}
    script = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"
    done = subprocess.run([script, tmp_path / "out"], env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "CUDA Device Initialized: True" in done.stdout
    assert "  dense  1.62  ok" in done.stdout
    table = done.stdout[done.stdout.index("part        status") :].splitlines()
    parts = {line.split()[0]: line.split(maxsplit=3)[1:] for line in table[1:-1]}
    assert parts["tests"][0] == "123"
    assert parts["tests"][2] == "6 passed  1 failed  1 skipped  "
    assert parts["racecheck"][::2] == ["0", "racecheck SUMMARY: 0 errors"]
    assert parts["kernels"][::2] == ["0", "1 bars reached, 1 missed"]
    assert parts["steps"][0] == "1"
    assert parts["training"][0] == "0"
    written = json.loads((tmp_path / "out" / "parts.json").read_text("utf-8"))
    assert {part["part"]: part["status"] for part in written} == {name: row[0] for name, row in parts.items()}
    assert "no GPU left" in (tmp_path / "out" / "log.txt").read_text("utf-8")


def test_pytorchs_capture(monkeypatch):
    """Warm-ups beside the stream, one capture, then replays; PyTorch's own part is a stand-in."""
    torch = pytest.importorskip("torch")
    from peers import torch_cuda

    log = []

    class Stream:
        def wait_stream(self, other):
            log.append("wait")

    class Within:
        def __init__(self, thing):
            self.thing = thing

        def __enter__(self):
            log.append(f"in {self.thing}")

        def __exit__(self, *error):
            log.append("out")

    cuda = SimpleNamespace(
        Stream=Stream, current_stream=Stream, stream=lambda s: Within("stream"), graph=lambda g: Within("graph"),
        CUDAGraph=lambda: SimpleNamespace(replay=lambda: log.append("replay")), synchronize=lambda: log.append("sync"),
    )  # fmt: skip
    monkeypatch.setattr(torch, "cuda", cuda)
    made = burst(Job(lambda: log.append("call"), dict), 2, torch_cuda.wait, torch_cuda.Recorded)
    made.run()
    made.run()
    warm = ["wait", "in stream", *["call"] * 2 * torch_cuda.WARM, "out", "wait"]
    assert log == [*warm, "in graph", "call", "call", "out", *["replay", "sync"] * 2]


def test_pytorchs_step_with_its_cursor_in_memory():
    """The step that is captured on a GPU, eager here: it walks through whole batches, and takes a ragged one."""
    torch = pytest.importorskip("torch")
    from peers.torch_steps import Program

    program = Program("vae", "float32", Variant("torch", captured=True), 128)
    program.optimizer = torch.optim.Adam([*program.encoder.parameters(), *program.decoder.parameters()], 1e-3)
    losses = [float(program.step().detach()) for _ in range(12)]
    cpu_cases.check_losses("a step", np.array(losses))
    assert int(program.cursor) == 12 * 128
    program.cursor += len(program.data) - 96 - int(program.cursor)
    assert 0 < float(program.step(96).detach()) < losses[0]
    program.shuffle()
    assert int(program.cursor) == 0
    assert sorted(program.order.tolist()) == list(range(len(program.data)))
