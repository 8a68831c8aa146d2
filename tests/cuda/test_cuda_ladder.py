"""The CUDA ladder: its files have their form, every rung is right in the simulator and a wrong one is noticed, the
tables say what they should. No test here looks at a clock. The simulator wants a process of its own:
NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/cuda/test_cuda_ladder.py."""

import ast
import json
import os
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from test_ladder import LADDER, program

from peers.inspection import why_not
from tinyvae.device import open_device, toolkit
from tinyvae.errors import DeviceError

HERE = LADDER / "cuda"
FILES = sorted(HERE.glob("[0-9][0-9]_*.py"))
SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
simulated = pytest.mark.skipif(not SIMULATED, reason="the CUDA simulator is off: NUMBA_ENABLE_CUDASIM=1")


@pytest.fixture(scope="module")
def climb():
    yield from program("cuda_climb", HERE / "climb.py")


@pytest.fixture(scope="module")
def rungs(climb):
    return climb.chosen(None)


# ---------------------------------------------------------------------------------------------- form


def test_files_are_numbered_without_gaps():
    assert [int(path.name[:2]) for path in FILES] == list(range(1, 10))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_has_the_form_that_the_readme_states(path):
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    doc = ast.get_docstring(tree)
    assert doc.startswith(f"Rung {int(path.name[:2])}, ")
    assert "Look at: " in doc.splitlines()[-1] or "Look at: " in doc.splitlines()[-2]
    assert 20 <= len(text.splitlines()) <= 110
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    assert {"IDEA", "FLOP_PER_BYTE"} <= {name.id for name in targets if isinstance(name, ast.Name)}
    [product] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "product"]
    assert [argument.arg for argument in product.args.args] == ["a", "b", "c"]


def test_readme_has_a_line_for_every_rung_in_both_tables(climb, rungs):
    text = (HERE / "README.md").read_text("utf-8")
    for name in ("code", "measured"):
        block = text.split(f"<!-- {name}:begin -->")[1].split(f"<!-- {name}:end -->")[0]
        for rung, module in rungs.items():
            [line] = [line for line in block.splitlines() if line.startswith(f"| {climb.title(rung)} ")]
            assert f"| {module.IDEA} " in line
        if name == "measured" and "not yet measured" in block:
            assert block.strip() == climb.table(rungs, None)


# ---------------------------------------------------------------------------------------------- right and wrong


def all_shapes(climb, rung):
    """Verifies a rung on its tiny shapes."""
    for shape in climb.shapes(rung):
        climb.verify(climb.OnDevice(rung, open_device("cuda")), *shape)


@simulated
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rung_equals_float64(climb, rungs, path):
    all_shapes(climb, rungs[path.stem])


MUTATIONS = {
    "01_naive": ("i < M and j < N", "i < M", "writes beside a row"),
    "03_shared_memory": ("b_k < K and", "", "reads below B"),
    "04_register_column": ("a_tile[row + r, k]", "a_tile[row, k]", "one row for all"),
    "05_register_tile": ("i < M and k < K else zero", "i < M else zero", "the next row's beginning"),
    "06_vector_loads": ("(a_k + 3) * LINE", "(a_k + 2) * LINE", "a number in another's place"),
    "07_async_copies": ("wait_copies(0)", "wait_copies(1)", "what has not come yet"),
    "08_tensor_cores": ("q * 2 + s % 2", "q + s % 2 * 4", "another thread's columns"),
}


@simulated
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_rung_is_noticed(climb, rungs, name):
    right, wrong, _ = MUTATIONS[name]
    source = (HERE / f"{name}.py").read_text("utf-8")
    assert right in source
    rung = ModuleType(name)
    exec(compile(source.replace(right, wrong), name, "exec"), rung.__dict__)
    with pytest.raises((AssertionError, IndexError, RuntimeWarning)):
        climb.verify(climb.OnDevice(rung, open_device("cuda")), 3, 4, 8)


def steady(a, b, c):
    """A product on the simulator's arrays, without a kernel."""
    c[...] = a.copy_to_host() @ b.copy_to_host()


@simulated
def test_check_counts_what_is_wrong_or_changes_its_bits(climb, capsys):
    calls = []

    def unsteady(a, b, c):
        steady(a, b, c)
        calls.append(1)
        c[0, 0] = np.nextafter(c[0, 0], np.float32(len(calls) % 2 * 18 - 9))

    two = {"01_steady": SimpleNamespace(product=steady), "02_unsteady": SimpleNamespace(product=unsteady)}
    assert climb.check(two, open_device("cuda"), [2], 1) == 0
    assert climb.check(two, open_device("cuda"), [2], 2) == 1
    assert "2 unsteady: WRONG: 2×3×5: other bits in another call\n1 rungs verified" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- without a GPU


def test_without_a_gpu_it_says_so_and_offers_what_works(climb, monkeypatch, capsys):
    def no_gpu(name):
        raise DeviceError("there is no GPU")

    monkeypatch.setattr(climb, "open_device", no_gpu)
    monkeypatch.setattr(sys, "argv", ["climb.py"])
    assert climb.main() == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"there is no GPU; {climb.WITHOUT}"
    assert "--simulate" in line
    assert "--code" in line


@simulated
def test_it_does_not_time_the_simulator(climb, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["climb.py", "--only", "1"])
    assert climb.main() == 1
    assert "simulator" in capsys.readouterr().err


@simulated
def test_verify_only_is_simulate(climb, monkeypatch, capsys):
    monkeypatch.setattr(climb, "chosen", lambda only: {"01_steady": SimpleNamespace(product=steady)})
    monkeypatch.setattr(sys, "argv", ["climb.py", "--verify-only"])
    assert climb.main() == 0
    assert capsys.readouterr().out == "1 rungs verified, 0 wrong\n"


LISTING = """\
.text.kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/              @!P0 LDG.E R8, desc[UR4][R2.64] ;
.L_x_1:
        /*0030*/                   LDS.128 R12, [R3] ;
        /*0040*/                   LDS R9, [R3+0x10] ;
        /*0050*/                   FFMA R0, R12, R9, R0 ;
        /*0060*/                   FFMA R1, R13, R9, R1 ;
        /*0070*/               @P0 BRA `(.L_x_1) ;
        /*0080*/               @P1 BRA `(.L_x_0) ;
        /*0090*/               @P1 BRA `(.L_x_2) ;
        /*00a0*/                   FFMA R0, R12, R9, R0 ;
.L_x_2:
        /*00b0*/                   EXIT ;
.L_x_3:
        /*00c0*/                   BRA `(.L_x_3);
        /*00d0*/                   NOP;
"""
CODE = """\
| rung    | idea  | threads | registers | shared, bytes | multiply-adds | LDS | LDS.128 |          fetched | per load | flop per byte |
| ------- | ----- | ------: | --------: | ------------: | ------------: | --: | ------: | ---------------: | -------: | ------------: |
| 1 tiles | tiles |     256 |        40 |          8192 |        2 FFMA |   1 |       1 | 1 LDG, 1 LDG.128 |      1.0 |           4.0 |
| 2 blind | tiles |     256 |        40 |          8192 |             – |   – |       – |                – |        – |           4.0 |"""  # noqa: E501


def test_loops_and_their_table(climb):
    import machine_code

    inner, outer = machine_code.loops(LISTING)
    assert inner == {"LDS.128": 1, "LDS": 1, "FFMA": 2, "BRA": 1}
    assert outer == {"LDG.E.128": 1, "LDG.E": 1, "LDS.128": 1, "LDS": 1, "FFMA": 2, "BRA": 2}
    row = {"idea": "tiles", "threads": 256, "registers": 40, "shared": 8192, "flop per byte": 4.0}
    rows = {"01_tiles": row | {"inner": inner, "outer": outer}, "02_blind": row | {"inner": None, "outer": None}}
    assert machine_code.table(rows) == CODE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rung_compiles_without_spills(climb, rungs, path, tmp_path, monkeypatch):
    """No spills, no stack, the instructions that it was written for."""
    monkeypatch.setenv("CUDA_HOME", os.environ.get("CUDA_HOME", ""))  # gather() changes it
    tools = toolkit.gather(tmp_path)
    if reason := why_not(tools):
        pytest.skip(reason)
    import machine_code

    assert machine_code.of(rungs[path.stem], tools)["faults"] == []


# ---------------------------------------------------------------------------------------------- the measured table


FIGURES = {
    "size": 4096,
    "tflops": {"01_naive": 0.5, "08_tensor_cores": 90.0, "cuBLAS": 50.0, "cuBLAS tf32": 180.0, "peak": 60.0},
}
TABLE = """\
| rung           | idea     | Boehm, A6000: % of cuBLAS | TFLOP/s here at 4096³ | % of peak | % of cuBLAS | × before |
| -------------- | -------- | ------------------------: | --------------------: | --------: | ----------: | -------: |
| 1 naive        | a thread |                       1.3 |                   0.5 |      0.83 |         1.0 |        – |
| 8 tensor cores | tf32     |                         – |                  90.0 |       150 |        50.0 |      180 |
| cuBLAS         |          |                         – |                  50.0 |      83.3 |         100 |        – |
| cuBLAS tf32    |          |                         – |                   180 |       300 |         100 |        – |

Peak: 60.0 TFLOP/s of multiply-adds in registers."""


def test_table(climb):
    two = {
        "01_naive": SimpleNamespace(IDEA="a thread"),
        "08_tensor_cores": SimpleNamespace(IDEA="tf32", TERM_ERROR=2**-10),
    }
    assert climb.table(two, FIGURES) == TABLE


@simulated
def test_figures_are_printed_and_written_for_every_rung(climb, tmp_path, monkeypatch, capsys):
    import peak

    device, out = open_device("cuda"), tmp_path / "figures.json"
    monkeypatch.setattr(climb, "simulated", lambda: False)
    gpu = SimpleNamespace(name=b"a card", compute_capability=(9, 0), MULTIPROCESSOR_COUNT=1)
    two = {name: SimpleNamespace(product=steady, IDEA="an idea") for name in ("01_one", "02_two")}
    monkeypatch.setattr(climb, "chosen", lambda only: two)
    monkeypatch.setattr(climb, "card", lambda: gpu)
    monkeypatch.setattr(climb, "open_device", lambda name: device)
    monkeypatch.setattr(climb, "cublas", lambda a, b: {"cuBLAS": lambda: None})
    monkeypatch.setattr(climb, "SECONDS", 0.001)
    for name in ("ROUNDS", "THREADS", "BLOCKS"):
        monkeypatch.setattr(peak, name, 1)
    monkeypatch.setattr(sys, "argv", ["climb.py", "--size", "4", "--rounds", "1", "--json", str(out)])
    assert climb.main() == 0
    written = json.loads(out.read_text("utf-8"))
    assert written["machine"].startswith("a card, compute capability 9.0, ")
    [figures] = written["figures"]
    assert list(figures["tflops"]) == ["01_one", "02_two", "cuBLAS", "peak"]
    assert all(rate > 0 for rate in figures["tflops"].values())
    assert climb.table(two, figures) in capsys.readouterr().out
