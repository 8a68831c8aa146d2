"""How many planted mistakes do the tests notice? One small change at a time, in a copy of the tree.

    python benchmarks/mutants.py --out mutants.jsonl           # 300 mistakes, drawn from seed 0
    python benchmarks/mutants.py --out mutants.jsonl --resume  # goes on where a run was cut
    python benchmarks/mutants.py --out mutants.jsonl --again   # the survivors, with more tests
    python benchmarks/mutants.py --out mutants.jsonl --table   # only the table of what is there

First the tests run once without a mistake: which of them pass, how long each takes, and which
functions of the sources each one enters. A mutant is then shown to the tests that enter its
function: those that enter the fewest functions first, and the two files that hold the most of them
before all others. Compiled functions are not seen when they are entered; a test is taken to enter
what the Python functions around them name. A test that runs the package in a process of its own is
seen to enter nothing.

Mistakes stand in the bodies of functions. Names, annotations, defaults, decorators, error messages
and what describes an object in words are left alone, and so are constants and tables of a module,
which belong to no function.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-m", "not slow")

# The subjects. sources, tests: globs, and whatever exists is taken; "!" before one leaves out.
# column: the package whose machine code is kept by a hash of these sources; of what was kept before
# the mistake, a mutant finds what does not depend on it. compiled: the machine code is theirs.
# seconds: how much computing the tests of the likeliest two files may cost, and all others.
TESTS = [
    "tests/**/test_*.py", "!*_browser.py", "!*test_structure.py", "!*test_sklearn.py",
    "!*test_anomaly.py",
    *(f"!tests/test_{name}*.py" for name in (
        "anomaly", "bench", "cli", "cuda", "datasets", "explore", "joined", "ladder", "learn",
        "plots", "tutorials",
    )),
    *(f"!tests/{room}/*" for room in ("app", "bench", "cuda", "datasets", "learn", "pictures")),
]  # fmt: skip
LEFT_OUT = (  # tests that take long, and see nothing that shorter ones do not
    "cuda or directions_of_models or default_sizes or random_moments or another_process or other_threads"
)
SUBJECTS = {
    "ops": {
        "sources": ["tinyvae/kernels/reference*.py", "tinyvae/kernels/ops/*.py"],
        "tests": TESTS, "column": "tinyvae.kernels.cpu", "seconds": [8, 8],
    },
    "layers": {
        "sources": ["tinyvae/layers/*.py", "tinyvae/params.py"],
        "tests": TESTS, "seconds": [6, 8],
    },
    "models": {
        "sources": ["tinyvae/models/*.py", "tinyvae/step.py", "tinyvae/train*/step.py"],
        "tests": TESTS, "seconds": [6, 8],
    },
    "kernels": {
        "sources": [
            "tinyvae/kernels/cpu/*.py", "tinyvae/kernels/cpu/engine/*.py", "!*/compile.py",
        ],
        "tests": TESTS, "column": "tinyvae.kernels.cpu", "compiled": True,
        "seconds": [20, 10],
    },
}  # fmt: skip

KINDS = ("sign", "factor", "dropped term", "index", "bound", "constant", "axis")
NO_TIME = "no time left"
QUIET = ("__repr__", "__str__", "describe")


def matching(root: Path, globs: list[str]) -> list[str]:
    """The files under root that a glob takes and none leaves out."""
    found = {p.relative_to(root).as_posix() for g in globs if g[0] != "!" for p in root.glob(g)}
    return sorted(f for f in found if not any(fnmatch(f, g[1:]) for g in globs if g[0] == "!"))


# ------------------------------------------------------------------------------------ the mistakes


@dataclass(frozen=True, order=True)
class Mutant:
    """One change: the bytes start to end of a file become `text`."""

    subject: str
    file: str
    line: int
    function: str
    kind: str
    start: int
    end: int
    text: str

    def of(self, source: bytes) -> bytes:
        return source[: self.start] + self.text.encode() + source[self.end :]

    def shown(self, source: bytes) -> tuple[str, str]:
        """The lines it touches, before and after."""
        first = source.rfind(b"\n", 0, self.start) + 1
        last = source.find(b"\n", self.end) % (len(source) + 1)
        after = source[first : self.start] + self.text.encode() + source[self.end : last]
        return tuple(" ".join(text.decode().split()) for text in (source[first:last], after))


def key(mutant: dict) -> tuple:
    """What tells a mutant from all others."""
    return tuple(mutant[name] for name in ("file", "start", "end", "text"))


class Sites(ast.NodeVisitor):
    """Collects (kind, start, end, text) in the body of one function."""

    def __init__(self, source: bytes) -> None:
        self.source, self.found = source, []
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def start(self, node: ast.AST) -> int:
        return self.starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.AST) -> int:
        return self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.AST) -> str:
        return self.source[self.start(node) : self.end(node)].decode()

    def wrapped(self, node: ast.AST) -> str:
        simple = ast.Name | ast.Constant | ast.Call | ast.Attribute | ast.Subscript
        return self.text(node) if isinstance(node, simple) else f"({self.text(node)})"

    def change(self, kind: str, node: ast.AST, text: str) -> None:
        self.found.append((kind, self.start(node), self.end(node), text))

    def operator(self, left: ast.AST, right: ast.AST) -> int:
        """Where the operator between two operands begins: past closing brackets and comments."""
        at, stop = self.end(left), self.start(right)
        while at < stop:
            if self.source[at : at + 1] == b"#":
                at = self.source.index(b"\n", at)
            elif self.source[at : at + 1] in b"+-*/<>":
                return at
            at += 1
        raise ValueError(f"no operator at {at}")

    # what is left alone

    def visit_Raise(self, node: ast.Raise) -> None:
        pass

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_Assert(self, node: ast.Assert) -> None:
        self.visit(node.test)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.dump(node.test):
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for part in node.body if node.name not in QUIET else ():
            self.visit(part)

    # what is changed

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if not (in_words(node.left) or in_words(node.right)):
            swap = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*"}.get(type(node.op))
            if swap:
                at = self.operator(node.left, node.right)
                self.found.append(("sign" if swap in "+-" else "factor", at, at + 1, swap))
                if swap in "+-":
                    self.found.append(("dropped term", at, self.end(node), ""))
            if not isinstance(node.op, ast.LShift | ast.RShift | ast.BitAnd | ast.BitOr | ast.Mod):
                for operand in (node.left, node.right):
                    if isinstance(operand, ast.Constant) and type(operand.value) is int:
                        self.change("constant", operand, str(operand.value + 1))
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        swap = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*"}.get(type(node.op))
        if swap and not in_words(node.value):
            at = self.operator(node.target, node.value)
            self.found.append(("sign" if swap in "+-" else "factor", at, at + 1, swap))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        place = type(getattr(node.operand, "value", None)) is int  # -1: the last, or to be found
        if isinstance(node.op, ast.USub) and not place:
            self.change("sign", node, self.wrapped(node.operand))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if type(node.value) is float and node.value:
            self.change("constant", node, repr(node.value * 1.01))

    def visit_Compare(self, node: ast.Compare) -> None:
        swap = {ast.Lt: (1, "<="), ast.LtE: (2, "<"), ast.Gt: (1, ">="), ast.GtE: (2, ">")}
        sides = [node.left, *node.comparators]
        for (left, right), op in zip(pairwise(sides), node.ops, strict=True):
            if type(op) in swap:
                length, text = swap[type(op)]
                at = self.operator(left, right)
                self.found.append(("bound", at, at + length, text))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in ("range", "prange") and node.args:
            stop = node.args[min(1, len(node.args) - 1)]
            self.change("bound", stop, f"{self.wrapped(stop)} - 1")
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg == "axis" and (text := self.text(node.value)) in ("0", "1", "-1"):
            self.change("axis", node.value, "1" if text == "0" else "0")
        else:
            self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for a, b in pairwise(parts):
            if self.text(a) != self.text(b):
                between = self.source[self.end(a) : self.start(b)].decode()
                text = self.text(b) + between + self.text(a)
                self.found.append(("index", self.start(a), self.end(b), text))
                break
        for part in parts:
            if isinstance(part, ast.Slice) and (edge := part.lower or part.upper):
                sign = "+" if part.lower else "-"
                self.change("index", edge, f"{self.wrapped(edge)} {sign} 1")
        self.generic_visit(node)


def in_words(node: ast.AST) -> bool:
    """Whether an operand is a text or a list, whose sum is none of numbers."""
    if isinstance(node, ast.BinOp):
        return in_words(node.left) or in_words(node.right)
    text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return text or isinstance(node, ast.JoinedStr | ast.List | ast.Tuple | ast.ListComp)


def functions(tree: ast.AST, within: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """(qualified name, function) of a module and its classes; a nested one belongs to its outer."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield within + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{within}{node.name}.")
        elif isinstance(node, ast.If | ast.Try) and "TYPE_CHECKING" not in ast.dump(node):
            yield from functions(node, within)


def mutants_of(subject: str, root: Path, file: str) -> list[Mutant]:
    """All mistakes that can be made in one file: Python reads them, and not as the file it is."""
    source = (root / file).read_bytes()
    tree = ast.parse(source)
    plain, found = ast.dump(tree), []
    for name, function in functions(tree):
        sites = Sites(source)
        sites.visit(function)
        for kind, start, end, text in dict.fromkeys(sites.found):
            line = source.count(b"\n", 0, start) + 1
            found.append(Mutant(subject, file, line, name, kind, start, end, text))
    return [m for m in found if _reads(m.of(source), plain)]


def _reads(source: bytes, plain: str) -> bool:
    try:
        return ast.dump(ast.parse(source)) != plain
    except SyntaxError:
        return False


def draw(found: list[Mutant], count: int, rng: random.Random) -> list[Mutant]:
    """`count` of them: the kinds in turn, within a kind by chance."""
    piles = defaultdict(list)
    for mutant in sorted(found):
        piles[mutant.kind].append(mutant)
    for kind in KINDS:
        rng.shuffle(piles[kind])
    drawn: list[Mutant] = []
    while len(drawn) < min(count, len(found)):
        drawn += [piles[kind].pop() for kind in KINDS if piles[kind]][: count - len(drawn)]
    return drawn


# ----------------------------------------------------------------------------- in pytest's process


class Watch:
    """A plugin of pytest: records what each test enters, or runs some tests in a given order."""

    def __init__(self, task: dict) -> None:
        self.task, self.begun = task, 0.0
        self.entered: set[str] = set()  # since it was last asked
        self.known: dict[int, tuple] = {}
        self.tests, self.shared = {}, defaultdict(set)
        self.ran, self.failed, self.skipped = 0, "", set()
        root = Path(task["root"])
        self.files = {str(root / f): f for f in task.get("sources", ())}

    def trace(self, frame, event, argument) -> None:
        code = frame.f_code
        if id(code) not in self.known:
            file = self.files.get(code.co_filename)
            name = f"{file}::{code.co_qualname.split('.<locals>')[0]}" if file else None
            self.known[id(code)] = name, code  # held, so that no other code gets its id
        if name := self.known[id(code)][0]:
            self.entered.add(name)

    def watching(self, yes: bool) -> None:
        if self.files:
            threading.settrace(self.trace if yes else None)
            sys.settrace(self.trace if yes else None)

    def taken(self) -> set[str]:
        entered, self.entered = self.entered, set()
        return entered

    def for_the_file(self, nodeid: str):
        """What reading a file, or making a fixture that tests share, enters counts for the file."""
        before, was = self.taken(), sys.gettrace() is not None
        self.watching(True)
        try:
            return (yield)
        finally:
            self.watching(was)
            self.shared[nodeid.split("::")[0]] |= self.taken()
            self.entered = before

    def pytest_configure(self, config) -> None:
        with contextlib.suppress(ImportError):
            from hypothesis import Phase, settings

            phases = (Phase.explicit, Phase.generate)  # a counterexample need not be small
            settings.register_profile("mutants", settings(), phases=phases)
            settings.load_profile("mutants")
        if "column" in self.task:
            import_module(self.task["column"])  # now its folder is there
            fill(Path(self.task["cold"]), Path(self.task["warm"]), set(self.task["stale"]))

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector):
        if ".py" in collector.nodeid:
            return (yield from self.for_the_file(collector.nodeid))
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        if fixturedef.scope == "function":
            return (yield)
        return (yield from self.for_the_file(request._pyfuncitem.nodeid))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        result = yield
        if "tests" in self.task:
            place = {name: i for i, name in enumerate(self.task["tests"])}
            wanted = [item for item in items if item.nodeid in place]
            items[:] = sorted(wanted, key=lambda item: place[item.nodeid])
        self.begun = time.process_time()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.taken()
        begun = time.monotonic()
        self.watching(True)
        try:
            result = yield
        finally:
            self.watching(False)
        self.ran += 1
        if item.nodeid not in self.skipped and item.nodeid != self.failed:
            self.tests[item.nodeid] = round(time.monotonic() - begun, 4), sorted(self.taken())
        if time.process_time() - self.begun > self.task.get("seconds", float("inf")):
            item.session.shouldstop = NO_TIME
        return result

    def pytest_runtest_logreport(self, report) -> None:
        if report.skipped:
            self.skipped.add(report.nodeid)
        if report.failed:
            self.failed = report.nodeid

    def pytest_sessionfinish(self) -> None:
        saw = {"ran": self.ran, "failed": self.failed}
        if self.files:
            shared = {file: sorted(names) for file, names in self.shared.items()}
            saw |= {"tests": self.tests, "files": shared}
        Path(self.task["report"]).write_text(json.dumps(saw))


def fill(cold: Path, warm: Path, stale: set[str]) -> None:
    """Puts machine code from one cache in another, but for stale functions, as file.function."""
    for folder in cold.iterdir():
        for file in warm.glob("*/*/*.nb?"):
            if file.name.rsplit("-", 1)[0] not in stale:
                (folder / file.parent.name).mkdir(exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    os.link(file, folder / file.parent.name / file.name)


def in_pytest(task_file: str) -> int:
    """This file as the main program of a process of its own: pytest with the plugin."""
    task = json.loads(Path(task_file).read_text())
    return pytest.main(task["arguments"], plugins=[Watch(task)])


# ------------------------------------------------------------------------------------- trying them


class Bench:
    """A copy of the tree, with one mistake at a time, and a cache of machine code of its own."""

    def __init__(self, root: Path, folder: Path, sources: list[str]) -> None:
        self.tree, self.sources = folder / "tree", sources
        self.warm, self.cold, self.task = folder / "warm", folder / "cold", folder / "task.json"
        shutil.rmtree(self.tree, ignore_errors=True)
        skipped = shutil.ignore_patterns(".*", "__pycache__", "node_modules")
        shutil.copytree(root, self.tree, ignore=skipped, symlinks=True)
        self.warm.mkdir(exist_ok=True)

    def pytest(self, limit: float, cold: bool, **task) -> tuple[int | None, str, dict | None]:
        """Exit status (None: out of time), what pytest said, what the plugin saw."""
        report = self.task.with_name("report.json")
        report.unlink(missing_ok=True)
        task["arguments"].append(f"--basetemp={self.task.with_name('temporary')}")
        for name, path in (("root", self.tree), ("warm", self.warm), ("cold", self.cold)):
            task[name] = str(path)
        self.task.write_text(json.dumps({"report": str(report)} | task))
        if cold:
            shutil.rmtree(self.cold, ignore_errors=True)
            self.cold.mkdir()
        cache = self.cold if cold else self.warm
        environment = os.environ | {"PYTHONPATH": str(self.tree), "TINYVAE_CACHE": str(cache)}
        process = subprocess.Popen(
            [sys.executable, __file__, "--in-pytest", str(self.task)], cwd=self.tree,
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, text=True, errors="replace",
        )  # fmt: skip
        try:
            said, status = process.communicate(timeout=limit)[0], process.returncode
        except subprocess.TimeoutExpired:
            said, status = "", None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return status, said, json.loads(report.read_text()) if report.exists() else None

    def warm_up(self, order: list[list[str]]) -> None:
        """Compiles most of what there is to compile, once."""
        if not any(self.warm.glob("ready")):
            files = sorted({test.split("::")[0] for test in order[0]})
            self.pytest(1800, False, arguments=[*OPTIONS, *files], tests=order[0], seconds=100)
            (self.warm / "ready").touch()

    def record(self, tests: list[str]) -> dict:
        """Which tests pass as things are, their seconds, and what each enters."""
        arguments = [o for o in OPTIONS if o != "-x"] + ["-k", f"not ({LEFT_OUT})", *tests]
        status, said, report = self.pytest(7200, False, arguments=arguments, sources=self.sources)
        if report is None:
            raise SystemExit(f"the tests cannot run ({status}):\n{said[-3000:]}")
        print(said[-1500:])
        return report

    def tried(self, mutant: Mutant, order: list[list[str]], subject: dict, limit: float, stale: list[str]) -> dict:
        """The verdict on one mistake."""
        path = self.tree / mutant.file
        plain, stat, begun = path.read_bytes(), path.stat(), time.monotonic()
        before, after = mutant.shown(plain)
        verdict = {"verdict": "survived", "test": "", "ran": 0, "of": sum(map(len, order))}
        try:
            path.write_bytes(mutant.of(plain))
            for stage, tests in enumerate(order):
                if not tests:
                    continue
                arguments = [*OPTIONS, *sorted({t.split("::")[0] for t in tests})]
                task = {"arguments": arguments, "tests": tests}
                task["seconds"] = subject["seconds"][stage]
                if "column" in subject:
                    task |= {"column": subject["column"], "stale": stale}
                status, said, report = self.pytest(limit, "column" in subject, **task)
                verdict["ran"] += report["ran"] if report else 0
                if status is None:
                    verdict |= {"verdict": "timeout"}
                elif not report or report["failed"] or not (status in (0, 5) or NO_TIME in said):
                    verdict |= {"verdict": "killed", "test": _name(report, said, status)}
                if verdict["verdict"] != "survived":
                    break
        finally:
            path.write_bytes(plain)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        seconds = round(time.monotonic() - begun, 1)
        told = asdict(mutant) | {"before": before, "after": after}
        return told | verdict | {"seconds": seconds}


def _name(report: dict | None, said: str, status: int) -> str:
    if report and report["failed"]:
        return report["failed"]
    errors = [line for line in said.splitlines() if line.startswith(("ERROR ", "E   "))]
    return errors[-1] if errors else f"exit status {status}"


def bare(function: str) -> str:
    """The name of a function without its file and class."""
    return function.split("::")[-1].split(".")[-1]


def words(node: ast.AST) -> set[str]:
    """All names and attributes in a piece of source."""
    found = {getattr(part, "id", getattr(part, "attr", None)) for part in ast.walk(node)}
    return found - {None}


def reaching(root: Path, files: list[str]) -> dict[str, set[str]]:
    """For each function of some files, itself and all whose bodies lead to it.

    A name is what its file defines or imports from another of these files; an attribute is what an
    imported module has, or any method so called.
    """
    trees = {file: ast.parse((root / file).read_bytes()) for file in files}
    bodies, defined, methods = {}, defaultdict(set), defaultdict(set)
    for file, tree in trees.items():
        for name, function in functions(tree):
            bodies[f"{file}::{name}"] = function
            if "." in name:
                methods[bare(name)].add(f"{file}::{name}")
            else:
                defined[Path(file).stem, name].add(f"{file}::{name}")
        for node in tree.body:  # a name of the module may be a function that another one made
            for target in words(ast.Tuple(node.targets)) if isinstance(node, ast.Assign) else ():
                bodies[f"{file}::{target}"] = node.value
                defined[Path(file).stem, target].add(f"{file}::{target}")
    callers = defaultdict(set)
    for file, tree in trees.items():
        near = {name: found for (stem, name), found in defined.items() if stem == Path(file).stem}
        modules = {}
        for node in ast.walk(tree):
            for name in node.names if isinstance(node, ast.ImportFrom) else ():
                found = defined.get(((node.module or "").split(".")[-1], name.name))
                if found:
                    near[name.asname or name.name] = found
                else:
                    modules[name.asname or name.name] = name.name
        for caller, body in bodies.items():
            for part in ast.walk(body) if caller.startswith(f"{file}::") else ():
                called = set()
                if isinstance(part, ast.Name):
                    called = near.get(part.id, set())
                elif isinstance(part, ast.Attribute):
                    module = modules.get(getattr(part.value, "id", None))
                    called = defined.get((module, part.attr), set()) | methods.get(part.attr, set())
                for function in called:
                    callers[function].add(caller)
    found = {}
    for function in bodies:
        reach, fresh = {function}, [function]
        while fresh:
            fresh = [c for f in fresh for c in callers[f] if c not in reach and not reach.add(c)]
        found[function] = reach
    return found


def orders(record: dict, leading: set[str], allowed: list[str]) -> list[list[str]]:
    """The tests that enter a function, the narrowest first: of the likeliest two files, and others.

    leading: what must be entered, any of it. allowed: the files that tests may be from.
    """
    whole = {file for file, names in record["files"].items() if not leading.isdisjoint(names)}
    ranked = []
    for test, (seconds, names) in record["tests"].items():
        file, enters = test.split("::")[0], not leading.isdisjoint(names)
        names = {*names, *record["files"].get(file, ())}
        if file in allowed and (enters or file in whole):
            ranked.append((not enters, len(names), seconds, file, test))
    ranked.sort()
    likely = {file for file, _ in Counter(r[3] for r in ranked[:60]).most_common(2)}
    return [[r[4] for r in ranked if (r[3] in likely) is first] for first in (True, False)]


def table(lines: list[dict]) -> str:
    """killed/tried for each subject and kind, by the last verdict; a timeout counts as killed."""
    lines = list({key(line): line for line in lines}.values())
    count, killed, late = Counter(), Counter(), Counter()
    for line in lines:
        for kind in (line["kind"], "all"):
            count[line["subject"], kind] += 1
            killed[line["subject"], kind] += line["verdict"] != "survived"
            late[line["subject"], kind] += line["verdict"] == "timeout"
    kinds = [*KINDS, "all"]
    rows = ["| subject | " + " | ".join(kinds) + " | timeouts |", "|---" * (len(kinds) + 2) + "|"]
    for subject in dict.fromkeys(line["subject"] for line in lines):
        pairs = [(killed[subject, kind], count[subject, kind]) for kind in kinds]
        cells = [f"{noticed}/{tried}" if tried else "–" for noticed, tried in pairs]
        rows.append(f"| {subject} | " + " | ".join(cells) + f" | {late[subject, 'all']} |")
    return "\n".join(rows)


class Trial:
    """A run: its mutants, the places to try them, and the file in which each gets a line."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.lock, root = options, threading.Lock(), options.root.resolve()
        self.root, self.lines = root, read(options.out)
        subjects = json.loads(options.map.read_text()) if options.map else SUBJECTS
        self.subjects = {name: subjects[name] for name in options.subjects or subjects}
        self.sources, self.tests = (
            {name: matching(root, subject[what]) for name, subject in self.subjects.items()}
            for what in ("sources", "tests")
        )
        kept = [name for name, subject in self.subjects.items() if "column" in subject]
        self.reach = reaching(root, [file for name in kept for file in self.sources[name]])

    def queue(self) -> list[Mutant]:
        """What is to be tried: the subjects in turn."""
        drawn, count = [], self.options.count
        for name, files in self.sources.items():
            found = [mutant for file in files for mutant in mutants_of(name, self.root, file)]
            kinds = Counter(mutant.kind for mutant in found)
            print(f"{name}: {len(found)} sites in {len(files)} files", dict(kinds))
            drawn.append(draw(found, count, random.Random(f"{self.options.seed} {name}")))
        queue = [group[i] for i in range(count) for group in drawn if i < len(group)]
        verdicts = {key(line): line["verdict"] for line in self.lines}
        wanted = "survived" if self.options.again else None
        return [mutant for mutant in queue if verdicts.get(key(asdict(mutant))) == wanted]

    def prepare(self, folder: Path) -> None:
        """Copies of the tree, what the tests enter there, and machine code."""
        sources = sorted({file for files in self.sources.values() for file in files})
        self.benches = []
        for job in range(self.options.jobs):
            place = (self.options.work or folder) / str(job)
            place.mkdir(parents=True, exist_ok=True)
            self.benches.append(Bench(self.root, place, sources))
        kept = self.options.record
        if kept and kept.exists():
            self.record = json.loads(kept.read_text())
        else:
            self.record = self.benches[0].record(sorted(set().union(*self.tests.values())))
            if kept:
                kept.write_text(json.dumps(self.record))
        for name, subject in self.subjects.items():
            if subject.get("compiled"):
                entered = {f for f in self.reach if f.split("::")[0] in self.sources[name]}
                for bench in self.benches:
                    bench.warm_up(orders(self.record, entered, self.tests[name]))

    def one(self, mutant: Mutant) -> None:
        """Tries a mutant where there is room."""
        with self.lock:
            bench = self.benches.pop()
        subject, function = self.subjects[mutant.subject], f"{mutant.file}::{mutant.function}"
        callers = self.reach.get(function, {function})
        stale = [f"{Path(name.split('::')[0]).stem}.{bare(name)}" for name in callers]
        leading = {function}
        if subject.get("compiled"):  # the test of an op enters its meaning, of the same name
            names = {bare(name) for name in callers}
            leading = callers | {name for name in self.reach if bare(name) in names}
        times = self.options.longer if self.options.again else 1
        subject = subject | {"seconds": [times * seconds for seconds in subject["seconds"]]}
        order = orders(self.record, leading, self.tests[mutant.subject])
        line = bench.tried(mutant, order, subject, times * self.options.limit, stale)
        with self.lock:
            self.benches.append(bench)
            self.lines.append(line)
            with self.options.out.open("a") as out:
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
            told = f"{len(self.lines)} {line['verdict']} {line['seconds']} s"
            print(f"{told} {mutant.file}:{mutant.line} {line['after']}", flush=True)


def read(out: Path) -> list[dict]:
    """The lines of a file of verdicts, as far as there are any."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--root", type=Path, default=ROOT, help="the tree to copy")
    add("--out", type=Path, default=Path("mutants.jsonl"), help="one line of JSON per mutant")
    add("--record", type=Path, help="keeps what the tests enter, and reads it where it is there")
    add("--work", type=Path, help="a folder to work in, kept for the next run")
    add("--map", type=Path, help="a JSON file in place of the table of subjects")
    add("--subjects", nargs="+", help="only these")
    add("--count", type=int, default=75, help="mutants per subject")
    add("--seed", type=int, default=0)
    add("--jobs", type=int, default=1, help="mutants tried side by side, each in its own copy")
    add("--limit", type=float, default=150, help="seconds for either process of pytest")
    add("--resume", action="store_true", help="goes on with --out")
    add("--again", action="store_true", help="shows what survived in --out to more tests")
    add("--longer", type=float, default=4, help="how many times as long --again takes")
    add("--table", action="store_true", help="prints the table of --out and does nothing else")
    add("--list", action="store_true", help="prints the mutants that would be tried")
    add("--in-pytest", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_pytest:
        raise SystemExit(in_pytest(options.in_pytest))
    if options.table:
        print(table(read(options.out)))
        return
    trial = Trial(options)
    if trial.lines and not (options.resume or options.again or options.list):
        raise SystemExit(f"{options.out} is there; go on with --resume, or name another --out")
    queue = trial.queue()
    if options.list:
        for mutant in queue:
            place = f"{mutant.file}:{mutant.line} {mutant.function} [{mutant.kind}]"
            print(place, *mutant.shown((trial.root / mutant.file).read_bytes()), sep="\n    ")
        return
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trial.prepare(Path(folder))
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(trial.one, queue))
    print(table(trial.lines))


if __name__ == "__main__":
    main()
