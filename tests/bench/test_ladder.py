"""The ladder: every rung is right on small and ragged shapes, the files are numbered, the table says what it should.
No test here looks at a clock.
"""

import ast
import importlib.util
import json
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

LADDER = Path(__file__).resolve().parents[2] / "benchmarks" / "ladder"
FILES = sorted(LADDER.glob("[0-9][0-9]_*.py"))


def program(name, path):
    """A ladder's program, loaded from its file; it finds its rungs by itself."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)  # puts the ladder's folders on the path
    yield module
    sys.path[:] = before


@pytest.fixture(scope="module")
def climb():
    yield from program("climb", LADDER / "climb.py")


@pytest.fixture(scope="module")
def rungs(climb):
    return climb.load()


FIGURES = {
    "size": 512,
    "rungs": {
        "01_python_loops": {"idea": "three loops", "size": 64, "flop_per_byte": 0.25},
        "02_compiled": {"idea": "compiled", "size": 512, "flop_per_byte": 0.25},
    },
    "threads": {
        "1": {
            "peak": 200.0,
            "bytes": {"y += x, 16 KiB": 400.0, "copy, 128 MiB": 40.0},
            "rungs": {"01_python_loops": 0.01, "02_compiled": 1.0, "NumPy": 150.0},
        },
        "2": {
            "peak": 400.0,
            "bytes": {"y += x, 16 KiB": 800.0, "copy, 128 MiB": 50.0},
            "rungs": {"01_python_loops": 0.01, "02_compiled": 1.5, "NumPy": 280.0},
        },
    },
}
TABLE = """\
512 × 512 × 512, float32:

| rung           | idea                              | GFLOP/s, 1 thread | % of peak | × before | GFLOP/s, 2 threads | % of peak | × before |
| -------------- | --------------------------------- | ----------------: | --------: | -------: | -----------------: | --------: | -------: |
| 1 Python loops | three loops (at 64)               |              0.01 |     0.005 |        – |               0.01 |    0.0025 |        – |
| 2 compiled     | compiled                          |               1.0 |       0.5 |      100 |                1.5 |      0.38 |      150 |
| NumPy          | its BLAS, in a process of its own |               150 |      75.0 |        – |                280 |      70.0 |        – |

- 1 thread: peak 200 GFLOP/s; y += x, 16 KiB 400 GB/s, copy, 128 MiB 40.0 GB/s
- 2 threads: peak 400 GFLOP/s; y += x, 16 KiB 800 GB/s, copy, 128 MiB 50.0 GB/s"""  # noqa: E501


def test_files_are_numbered_without_gaps():
    assert [int(path.name[:2]) for path in FILES] == list(range(1, len(FILES) + 1))
    assert len(FILES) >= 8


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_states_its_idea(path):
    tree = ast.parse(path.read_text("utf-8"))
    doc = ast.get_docstring(tree)
    assert doc.startswith(f"Rung {int(path.name[:2])}, ")
    assert "Look at: " in doc
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    assigned = {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    assert {"IDEA", "FLOP_PER_BYTE"} <= assigned
    assert "product" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 40), (33, 7, 50), (15, 66, 33), (72, 73, 74)], ids=str)
def test_rung_equals_float64(climb, rungs, path, shape):
    rung = rungs[path.stem]
    if hasattr(rung, "LARGEST") and max(shape) > rung.LARGEST:
        shape = tuple(min(n, 17) for n in shape)
    climb.verify(rung, *shape)


@pytest.mark.parametrize("wrong", ["element", "outside", "nan"])
def test_verify_finds_what_is_wrong(climb, rungs, wrong):
    class Wrong:
        @staticmethod
        def product(a, b, c):
            rungs["03_loop_order"].product(a, b, c)
            if wrong == "element":
                c[2, 3] += np.float32(1e-3)
            elif wrong == "nan":
                c[-1, -1] = np.nan
            else:
                c.base[-1] = 0

    with pytest.raises(AssertionError):
        climb.verify(Wrong, 8, 9, 10)


def test_table(climb):
    assert climb.table(FIGURES) == TABLE


def test_readme_keeps_what_stands_around_the_table(climb, tmp_path):
    page = tmp_path / "README.md"
    begin, end = "<!-- ladder:begin -->", "<!-- ladder:end -->"
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n", "utf-8")
    climb.rewrite(page, "new")
    assert page.read_text("utf-8") == f"before\n{begin}\nnew\n{end}\nafter\n"
    text = (LADDER / "README.md").read_text("utf-8")
    assert text.count(begin) == text.count(end) == 1


def test_roofline_is_drawn_and_numbers_keep_apart(climb, tmp_path):
    from roofline import draw, spread

    draw(FIGURES, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")
    places = spread([0.0, 0.01, 0.02, 1.0], 0.1)
    assert np.diff(places).min() > 0.0999
    assert places[3] == 1.0


def test_numpy_answers_from_its_own_process(climb):
    yardstick = climb.NumPy(1)
    assert all(seconds > 0 for seconds in yardstick.turn(8, 0.001))
    yardstick.close()
    assert yardstick.child.returncode == 0


def test_figures_are_written_for_every_rung(climb, rungs, tmp_path, monkeypatch):
    out, threads = tmp_path / "figures.json", numba.get_num_threads()
    monkeypatch.setattr(climb, "SECONDS", 0.001)
    options = {"--size": "16", "--threads": "1", "--rounds": "1", "--json": str(out)}
    monkeypatch.setattr(sys, "argv", ["climb.py", *(word for option in options.items() for word in option)])
    assert climb.main() == 0
    numba.set_num_threads(threads)
    [figures] = json.loads(out.read_text("utf-8"))["figures"]
    assert list(figures["threads"]["1"]["rungs"]) == [*(path.stem for path in FILES), "NumPy"]
    assert all(rate > 0 for rate in figures["threads"]["1"]["rungs"].values())
