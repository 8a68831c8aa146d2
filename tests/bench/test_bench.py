"""The benchmarks: what is verified, how turns are taken, what is written. Nothing here says how fast anything must be.
Peers are stand-ins, but for small cases where a peer is installed."""

import io
import json
import os
import sys

import numpy as np
import pytest

from peers import rates
from peers.roofline import draw_roofline, points
from tinyvae import kernels
from tinyvae.app.cli import main as command
from tinyvae.bench import cases, job, main, measure, peers, pool, report, startup, worker
from tinyvae.bench.cases import Case
from tinyvae.bench.job import BenchError, Job
from tinyvae.bench.pool import Effort, Worker, in_turn, summary
from tinyvae.errors import ConfigError
from tinyvae.kernels import OPS
from tinyvae.kernels.check import WrongResult, call_reference

SMALL = Case("products", "3×5×4", "forward", "dense", cases.dense_lengths(3, (5, 4)))


def right(case, dtype=np.float32):
    """What the case's op writes."""
    return call_reference(case.op, case.arguments(dtype))


class Fake:
    """A contestant that takes no time: its calls are listed, its seconds are given."""

    def __init__(self, name, seconds, result=None, log=None):
        self.name, self.seconds, self.result, self.log = name, seconds, result, [] if log is None else log

    def load(self, case, dtype):
        if isinstance(self.result, Exception):
            raise self.result
        return right(case) if self.result is None else self.result

    def time(self, warm, calls):
        self.log.append((self.name, warm, calls))
        return [self.seconds] * calls

    def drop(self):
        self.log.append((self.name, "drop"))


# ------------------------------------------------------------------------------------------------ figures


def test_summary_is_the_median_and_the_spread_of_the_middle_half():
    assert summary([1.0, 2.0, 3.0, 4.0, 100.0]) == {"us": 3e6, "spread": pytest.approx(2 / 3), "calls": 5}
    assert summary([2.0]) == {"us": 2e6, "spread": 0.0, "calls": 1}


def row(group, name, use, ours, threads=1, flops=2e6, **peers):
    """A row as measure makes it."""
    times = {n.replace("_", "-"): {"us": us, "spread": 0.1, "calls": 9} for n, us in {"numba": ours, **peers}.items()}
    return {
        "group": group, "name": name, "use": use, "dtype": "float32", "flops": flops,
        "bytes": 0 if group == "steps" else 4000, "times": times, "threads": threads,
    }  # fmt: skip


def results(**more):
    """Figures of a run with everything in it."""
    rows = [
        row("products", "128×784×400", "forward", 10.0, numpy=20.0, torch=40.0),
        row("products", "1024×1024×1024", "forward", 40.0, numpy=20.0, torch=40.0),
        row("convs", "28² 1→32", "grad_x", 10.0, torch=9.0, torch_channels_last=5.0),
        row("ops", "latent", "call", 10.0, numpy=30.0),
        row("steps", "dense step", "step", 3000.0, flops=2.5e8, torch=5000.0, torch_compiled=4500.0, jax=6000.0),
        row("steps", "dense step", "step", 2000.0, 2, flops=2.5e8, torch=5000.0, jax=1000.0),
    ]
    info = {"cpu": "A CPU", "cores": 2, "system": "Linux x86_64", "vectors": "avx2", "versions": {"tinyvae": "0.1.0"}}
    rates = {"float32": {"1": {"fma": 1e11, "copy": 2e10}, "2": {"fma": 2e11, "copy": 2e10}}}
    return {"machine": info, "command": "tinyvae bench", "rates": rates, "rows": rows, "notes": ["a note"], **more}


def test_ratios_are_against_the_better_of_a_librarys_variants():
    conv, step = results()["rows"][2], results()["rows"][4]
    assert report.best(conv, ("torch",)) == ("torch-channels-last", 5.0)
    assert report.ratio(conv) == 0.5
    assert report.ratio(conv, ("numpy",)) is None
    assert report.best(step) == ("torch-compiled", 4500.0)


def test_geometric_mean_and_worst_case():
    rows = results()["rows"][:2]
    assert report.geometric(rows, ("torch",)) == (pytest.approx(2.0), 1.0, "1024×1024×1024 forward")
    assert report.geometric(rows, ("jax",)) is None


# ------------------------------------------------------------------------------------------------ cases


def test_cases_survive_json_and_cover_the_three_uses():
    for group in (cases.products(), cases.convs()):
        names = {}
        for case in group:
            assert Case.from_json(json.loads(json.dumps(case.to_json()))) == case
            names.setdefault(case.name, []).append(case.use)
        assert all(uses == ["forward", "grad_x", "grad_w"] for uses in names.values())
    assert [len(cases.CASES[g]()) for g in ("products", "convs", "steps", "players")] == [30, 21, 2, 3]
    assert [case.op for case in cases.ops()] == list(OPS)


def test_arithmetic_of_a_step():
    weights = 784 * 400 + 400 * 40 + 20 * 400 + 400 * 784
    assert cases.step_flops("vae") == 2 * 128 * (3 * weights - 784 * 400)


def test_a_planted_wrong_result_stops_ours_and_drops_a_peer():
    wrong = right(SMALL)
    wrong["y"] = wrong["y"] * np.float32(1.01)
    with pytest.raises(WrongResult, match=r"3×5×4 forward: dense: y\[\d, \d\] is off by"):
        measure.measure_case(SMALL, [Fake("numba", 1.0, wrong)], "float32", Effort(1), [])
    notes, log = [], []
    dead = BenchError("torch: its process ended with status 1")
    contestants = [Fake("numba", 1e-3, log=log), Fake("numpy", 2e-3, wrong), Fake("torch", 1.0, dead)]
    found = measure.measure_case(SMALL, contestants, "float32", Effort(1), notes)
    assert list(found["times"]) == ["numba"]
    assert found["times"]["numba"]["us"] == pytest.approx(1000)
    assert found["flops"] == 2 * 3 * 5 * 4
    assert notes[0].startswith("3×5×4 forward: numpy gives a wrong result: ")
    assert notes[1] == "3×5×4 forward: torch left out: torch: its process ended with status 1"
    assert log[-1] == ("numba", "drop")


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        ([550, np.nan], "a loss is not finite"),
        ([90, 80], "the first loss is 90.00, not 500 to 700 nats"),
        ([550] * 9, "the loss only fell from 550.00 to 550.00 nats"),
    ],
)
def test_losses_that_no_training_gives(losses, sentence):
    with pytest.raises(WrongResult, match=f"dense step: {sentence}"):
        cases.steps()[0].check({"losses": np.array(losses, float)}, np.float32)
    cases.check_losses("good", np.linspace(550, 200, 20))


def test_verification_notices_a_wrong_op(monkeypatch):
    def dense(x, w, b, act, y):
        kernels.meaning("dense")(x, w, b, act, y)
        y *= y.dtype.type(1.001)

    said = []
    column = dict(kernels.COLUMNS["numpy"])
    monkeypatch.setitem(kernels.COLUMNS, "numpy", column)
    for name in ("products", "convs", "steps", "players"):
        monkeypatch.setattr(cases, name, lambda: [])
    monkeypatch.setattr(main, "ops_of", lambda device: ["dense", "scale_rows"])
    assert main.verify_all("numpy", "float32", said.append)
    column["dense"] = dense
    assert not main.verify_all("numpy", "float32", said.append)
    assert said[1].startswith("dense: WRONG: dense: y[")
    assert said[2].endswith("1 wrong (numpy, float32)")


# ------------------------------------------------------------------------------------------------ turns and workers


def test_turns_rotate_and_pause():
    log, rests = [], []
    first = Fake("a", 1e-3, log=log), Fake("b", 1e-2, log=log)
    found = in_turn(first, Effort(rounds=3, turn=0.03), rests.append)
    assert [entry[0] for entry in log] == ["a", "b", "a", "b", "b", "a", "a", "b"]  # two that look, then three rounds
    assert log[2] == ("a", 7, 30)
    assert log[3] == ("b", 1, 3)
    assert {name: s["calls"] for name, s in found.items()} == {"a": 90, "b": 9}
    assert rests == [pool.PAUSE] * 6


def test_protocol():
    server, made = worker.Server("fake", 1), []
    server.job = Job(lambda: made.append("run"), dict, lambda: made.append("before"))
    answers = io.StringIO()
    orders = '{"do": "time", "warm": 1, "calls": 2}\n{"do": "drop"}\n{"do": "dance"}\n{"do": "load", "case": {}}\n'
    worker.serve(server, io.StringIO(orders), answers)
    timed, dropped, unknown, broken = map(json.loads, answers.getvalue().splitlines())
    assert len(timed["times"]) == 2
    assert made == ["before", "run"] * 3
    assert dropped == {}
    assert server.job is None
    assert unknown == {"error": "KeyError: 'dance'"}
    assert broken["error"].startswith("KeyError")


def test_a_worker_computes_and_times():
    one = Worker("numpy", 1)
    try:
        SMALL.check(one.load(SMALL, "float32"), np.float32)
        assert len(one.time(1, 4)) == 4
        one.drop()
        with pytest.raises(BenchError, match="numpy: ConfigError: model='nonsense' is not known"):
            one.load(Case("steps", "odd", "step", model="nonsense"), "float32")
    finally:
        one.close()


def test_a_worker_that_dies_is_one_sentence():
    one = Worker("torch", 1, [sys.executable, "-c", "import sys; sys.exit('no memory left')"])
    try:
        with pytest.raises(BenchError, match=r"^torch: its process ended with status 1: no memory left$"):
            one.load(SMALL, "float32")
    finally:
        one.close()


def test_a_missing_library_is_one_line(monkeypatch):
    monkeypatch.setattr(job, "find_spec", lambda name: None if name in ("torch", "jax") else object())
    assert measure.missing(("products", "ops")) == ["torch: not installed: pip install torch"]
    lines = measure.missing(("steps",))
    assert lines == ["torch: not installed: pip install torch", "jax: not installed: pip install jax"]
    assert measure.missing(("ops", "startup")) == []


def test_outside_a_clone_only_tinyvae_and_numpy_are_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    line = "PyTorch and JAX are compared from a clone of the repository; measured here: tinyvae and NumPy"
    assert measure.missing(("products", "steps")) == [line]
    assert measure.missing(("ops",)) == []
    assert not job.installed("torch")
    assert job.installed("numpy")
    assert measure.measure_rates(Fake("numba", 1.0), "float32", Effort(1)) == {}
    monkeypatch.setattr(peers, "CLONE", tmp_path)
    assert "the peers' programs are not part of the installed package" in fails(["--cuda-code"], capsys)
    assert "no package `peers` there" in fails(["--peers", str(tmp_path), "--only", "ops"], capsys)


def test_peers_are_found_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "__init__.py").write_text("")
    assert peers.enable(str(tmp_path))
    assert sys.path[-1] == str(tmp_path)
    assert str(peers.folder()) in pool.environment(1)["PYTHONPATH"].split(os.pathsep)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", rates.RATES)
def test_the_machines_rates_are_positive(name, dtype, monkeypatch):
    monkeypatch.setattr(rates, "last_level_cache", lambda: 1 << 18)
    made = rates.rate_job(name, dtype)
    made.run()
    assert made.result()["amount"][0] > 0


def test_the_copy_copies_and_the_chains_add():
    source, target, out = np.arange(200_000.0), np.zeros(200_000), np.zeros(3)
    rates.copy(source, target)
    assert np.array_equal(source, target)
    rates.multiply_add(0.5, 1.0, 3, out)  # v ← v/2 + 1 goes to 2 in each chain
    assert np.allclose(out, 2 * rates.CHAINS)


# ------------------------------------------------------------------------------------------------ peers


def tiny_cases():
    """Every product and kind of convolution at a size that takes no time, no two lengths alike."""
    for use, op in cases.PRODUCT_OPS.items():
        yield Case("products", "tiny", use, op, cases.dense_lengths(3, (5, 4)))
    for transposed in (False, True):
        for use in cases.CONV_OPS:
            yield cases.convolution(2, (6, 5, 7), use, transposed)


TINY = pytest.mark.parametrize(
    "case", list(tiny_cases()), ids=lambda c: f"{c.op}{'-transposed' if c.transposed else ''}"
)


@TINY
@pytest.mark.parametrize("library", ["numba", "numpy", "torch", "torch-channels-last"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_library_computes_the_same(case, library, dtype):
    if not job.installed(library):
        pytest.skip(f"{library} is not installed")
    made = worker.build(library, case, dtype, 1)
    made.run()
    case.check(made.result(), np.dtype(dtype).type)


def assert_trains(library, case):
    """In a process of its own: JAX has threads that forbid this one to fork."""
    if not job.installed(library):
        pytest.skip(f"{library} is not installed")
    one = Worker(library, 1)
    try:
        case.check(one.load(case, "float32"), np.float32)
    finally:
        one.close()


@pytest.mark.parametrize("model", ["vae", pytest.param("conv-vae", marks=pytest.mark.slow)])
@pytest.mark.parametrize("library", ["numba", "torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_every_librarys_step_trains(library, model):
    assert_trains(library, Case("steps", "a step", "step", model=model))


# ------------------------------------------------------------------------------------------------ report

TABLE = """\
| float32; ratio = peer’s time / ours, above 1 tinyvae leads | 1 thread | 2 threads |
|---|---|---|
| products of the two VAEs and 512³, 1024³, against PyTorch | 2.00, worst 1.00 (1024×1024×1024 forward) | – |
| the same against NumPy | 1.00, worst 0.50 (1024×1024×1024 forward) | – |
| convolutions, against PyTorch in its better layout | 0.50, worst 0.50 (28² 1→32 grad_x) | – |
| ops at model size, against the NumPy column | 3.00, worst 3.00 (latent) | – |
| 1024³, share of the measured multiply-add rate | 50% forward | – |
| dense VAE, one training step, batch 128 | 1.50: 3.00 ms, best peer 4.50 ms (torch-compiled) \
| 0.50: 2.00 ms, best peer 1.00 ms (jax) |

A CPU, 2 cores, Linux x86_64, vectors avx2; tinyvae 0.1.0.
`tinyvae bench`: medians of interleaved calls, each library in processes of its own, every result verified first."""


def test_the_readmes_table():
    assert report.table(results()) == TABLE


def lines_of_a_run():
    return [
        (0.1, "tinyvae 0.1.0"),
        (9.0, "@first step"),
        (12.0, "epoch 1/2: train −ELBO 166.29, test −ELBO 128.82 (recon 108.17 + KL 20.65), 2.7 s"),
        (15.0, "epoch 2/2: train −ELBO 121.83, test −ELBO 105.90 (recon 92.19 + KL 23.67), 2.8 s"),
        (16.0, f"@peak bytes {300 << 20}"),
    ]


def test_start_up_figures_and_their_lines():
    f = startup.figures(lines_of_a_run())
    assert f == {
        "first_line": 0.1, "first_step": 9.0, "peak_bytes": 300 << 20, "to_bar": 15.0, "to_bar_epochs": 2,
        "trained": 15.0, "neg_elbo": 105.9,
    }  # fmt: skip
    late = startup.figures(lines_of_a_run()[:3])
    assert (late["to_bar"], late["peak_bytes"]) == (None, None)
    peer = {"warm": f, "whole": late}
    found = {"threads": 2, "epochs": 1, "cold": f, "warm": f, "whole": f, "torch": peer}
    assert report.startup_lines(found) == [
        "start-up of tinyvae train --device numba, 2 threads",
        "  cold cache: first line 0.10 s, training begun 9.00 s",
        "  warm cache: first line 0.10 s, training begun 9.00 s",
        "  tinyvae: peak memory of one epoch 300 MiB, test −ELBO ≤ 106 after 2 epochs, 15.00 s (last 105.9)",
        "  torch: peak memory of one epoch 300 MiB, test −ELBO ≤ 106 not in 1 epochs, – (last 128.82)",
    ]
    assert report.table(results(startup=found)).splitlines()[-6:] == [
        "| `tinyvae train`, 2 threads | tinyvae | torch |",
        "|---|---|---|",
        "| first line and training begun, cold cache | 0.10 s, 9.00 s | – |",
        "| first line and training begun, warm cache | 0.10 s, 9.00 s | – |",
        "| peak memory of one epoch | 300 MiB | 300 MiB |",
        "| to a test −ELBO of 106, caches warm | 15.00 s | – |",
    ]


def test_a_watched_command(tmp_path):
    """The real command: a first line, a first step, a peak of memory; and one that fails is one sentence."""
    np.savez(tmp_path / "bars.npz", images=np.zeros((20, 6, 5, 1), np.uint8))
    options = ["--data", str(tmp_path / "bars.npz"), "--epochs", "1", "--batch-size", "8", "--hidden", "4"]
    lines = startup.watch(["tinyvae.bench.probe", "train", *options, "--out", str(tmp_path / "run")], 1, {})
    found = startup.figures(lines)
    assert 0 < found["first_line"] < found["first_step"]
    assert found["peak_bytes"] > 1 << 20
    with pytest.raises(BenchError, match=r"ended with status 1: .*device='nonsense' is not a device"):
        startup.watch(["tinyvae", "train", "--device", "nonsense", "--out", str(tmp_path / "x")], 1, {})


def test_the_long_table_names_every_case_and_the_floor():
    text = report.text(results())
    for r in results()["rows"]:
        assert report.label(r) in text
    assert "dense step: 3.00 ms; best peer torch-compiled 4.50 ms, ratio 1.50; floor of its products 2.50 ms" in text
    assert text.endswith("a note")


def test_only_the_block_is_rewritten(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", "utf-8")
    for block in ("new", "newer\nlines"):
        report.rewrite(path, block)
        assert path.read_text("utf-8") == f"before\n{report.BEGIN}\n{block}\n{report.END}\nafter\n"
    path.write_text(f"{report.END}{report.BEGIN}", "utf-8")
    with pytest.raises(ConfigError, match="once each, in this order; add them"):
        report.rewrite(path, "new")


def test_figures_measured_again_replace_the_old():
    again = results(rows=[row("ops", "latent", "call", 5.0, numpy=30.0)], startup=None)
    again["rates"] = {"float64": {"1": {"fma": 1.0, "copy": 1.0}}}
    both = report.merge(results(startup={"threads": 2}), again)
    assert len(both["rows"]) == len(results()["rows"])
    assert [r["times"]["numba"]["us"] for r in both["rows"] if r["name"] == "latent"] == [5.0]
    assert set(both["rates"]) == {"float32", "float64"}
    assert both["startup"] == {"threads": 2}


def test_the_roofline_is_drawn(tmp_path):
    assert draw_roofline(results(), tmp_path / "roof.png").read_bytes()[:4] == b"\x89PNG"
    assert {p["label"] for p in points(results(), "float32", 1)} == {"", "latent"}


# ------------------------------------------------------------------------------------------------ command line


def fails(arguments, capsys):
    """The one line of a command that is wrong use."""
    assert command(["bench", *arguments]) == 2
    return capsys.readouterr().err


def test_the_command_reads_writes_and_refuses(tmp_path, capsys):
    figures, readme = tmp_path / "figures.json", tmp_path / "README.md"
    figures.write_text(json.dumps(results(startup=None)), "utf-8")
    readme.write_text(f"{report.BEGIN}\n{report.END}\n", "utf-8")
    copy = tmp_path / "copy.json"
    assert command(["bench", "--from", str(figures), "--readme", str(readme), "--json", str(copy)]) == 0
    assert readme.read_text("utf-8") == f"{report.BEGIN}\n{TABLE}\n{report.END}\n"
    assert json.loads(copy.read_text("utf-8")) == results(startup=None)
    assert "128×784×400 forward" in capsys.readouterr().out
    assert "--only='nonsense' is not known" in fails(["--only", "nonsense"], capsys)
    assert "--device numpy belongs to --verify-only" in fails(["--device", "numpy"], capsys)
    assert "--rounds=0 must be an integer of at least 1" in fails(["--rounds", "0"], capsys)
    figures.write_text("[]", "utf-8")
    assert "is not a file of benchmark figures" in fails(["--from", str(figures)], capsys)
