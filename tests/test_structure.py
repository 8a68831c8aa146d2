"""The map of the code holds: imports point one way, matplotlib lives in one place, and importing costs nothing.
It reads the modules as text and as syntax; no module needs to work for it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tinyvae

ROOT = Path(tinyvae.__file__).parent
LEVELS = [  # a module imports from its own level and from those above it here; a new module is added here
    {"__init__", "errors", "device", "config", "clock"},
    {"params", "kernels"},
    {"layers"},
    {"models"},
    {"zoo"},
    {"step", "checkpoint", "datasets"},
    {"training", "evaluate", "latent_space", "anomaly", "gradient_check", "meaning", "museum", "explain"}
    | {"plots", "canvas", "charts", "bench", "learn", "aggregate", "classifier", "judges", "doctor"}
    | {"diagnosis", "gan_signs", "gan_doctor"},
    {"run", "explore", "sklearn", "anomaly_run"},
    {"cli"},
    {"__main__"},
]
RANKS = {name: rank for rank, names in enumerate(LEVELS) for name in names}
MODULES = sorted(ROOT.rglob("*.py"))


def room(path):
    """The module or package, directly under tinyvae/, that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(tree):
    """Every import of a module, those in functions included, those for the type checker alone left out."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if is_type_checking(node):
            stack += node.orelse
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        stack += ast.iter_child_nodes(node)


def imported_rooms(path):
    """(room, line) of every module of tinyvae that a file imports."""
    package = ["tinyvae", *path.relative_to(ROOT).parts[:-1]]
    for node in imports(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        else:
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            targets = [[*base, alias.name] for alias in node.names]
        for target in targets:
            if target[0] == "tinyvae":
                name = target[1] if len(target) > 1 else "__init__"
                yield name if name in RANKS or exists(name) else "__init__", node.lineno


def exists(name):
    return (ROOT / f"{name}.py").exists() or (ROOT / name).is_dir()


def test_the_tree_was_found():
    assert {"errors", "kernels", "layers", "models", "zoo", "step"} <= {room(path) for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    name = room(path)
    assert name in RANKS, f"{name} has no level: add it to LEVELS where it belongs"
    for target, line in imported_rooms(path):
        assert target in RANKS, f"{target} has no level: add it to LEVELS where it belongs"
        assert RANKS[target] <= RANKS[name], f"{path.name}:{line}: {name} imports {target}, which stands above it"


def test_modules_of_one_level_do_not_import_each_other_in_a_circle():
    edges = {}
    for path in MODULES:
        edges.setdefault(room(path), set()).update(target for target, _ in imported_rooms(path))
    edges = {name: targets - {name} for name, targets in edges.items()}
    while free := [name for name, targets in edges.items() if not targets & set(edges)]:
        for name in free:
            del edges[name]
    assert not edges, f"a circle of imports among {sorted(edges)}"


def test_an_upward_arrow_is_noticed(tmp_path, monkeypatch):
    """The test above can fail: in a function, as a package, by absolute name; not for the type checker."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "layers").mkdir()
    path = tmp_path / "layers" / "bad.py"
    lines = [
        "from ..models import VAE",
        "def f():\n    from .. import zoo",
        "import tinyvae.training.step",
        "from tinyvae import cli",
    ]
    for source, target in zip(lines, ["models", "zoo", "step", "cli"], strict=True):
        path.write_text(source)
        assert [name for name, _ in imported_rooms(path)] == [target]
        with pytest.raises(AssertionError, match=f"layers imports {target}, which stands above it"):
            test_imports_point_one_way(path)
    path.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..models import VAE\n")
    test_imports_point_one_way(path)
    (tmp_path / "novel.py").write_text("")
    with pytest.raises(AssertionError, match="novel has no level"):
        test_imports_point_one_way(tmp_path / "novel.py")


def modules_importing(package):
    found = set()
    for path in MODULES:
        for node in imports(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if not getattr(node, "level", 0) and any(n.split(".")[0] == package for n in names):
                found.add(str(path.relative_to(ROOT)))
    return found


PICTURES = {"plots", "canvas", "charts"}  # plots is the entrance; the other two are its inner rooms


def test_matplotlib_lives_in_plots_only():
    assert {path.removesuffix(".py") for path in modules_importing("matplotlib")} <= PICTURES
    for path in MODULES:
        inner = {target for target, _ in imported_rooms(path)} & (PICTURES - {"plots"})
        drawer = room(path) in PICTURES or path == ROOT / "bench" / "roofline.py"  # its picture shows no model
        assert not inner or drawer, f"{room(path)} imports {inner}; use plots"


def test_cuda_is_imported_in_device_only():
    """numba's CPU side belongs to kernels/cpu and to the machine's rates; kernel files take `cuda` from the device."""
    for path in modules_importing("numba"):
        allowed = path in ("kernels/cache.py", "bench/machine.py", "bench/cuda_code.py")
        assert allowed or path.startswith(("device/", "kernels/cpu/", "kernels/cuda/", "kernels/__init__")), path
    for path in MODULES:
        for node in imports(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in node.names]
            module = getattr(node, "module", None) or ""
            cuda = module.startswith("numba.cuda") or "numba.cuda" in names or (module == "numba" and "cuda" in names)
            assert not cuda or room(path) == "device", path


def loaded_by(statement):
    """The modules of `statement`'s own process."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(result.stdout.split())


def test_importing_tinyvae_loads_neither_numpy_nor_numba_nor_matplotlib():
    loaded = loaded_by("import tinyvae; dir(tinyvae); tinyvae.__version__")
    assert "tinyvae" in loaded
    assert not loaded & {"numpy", "numba", "matplotlib", "PIL", "safetensors", "tqdm"}


def test_the_numpy_device_loads_no_compiler_and_no_plots():
    statement = "import tinyvae\ntinyvae.zoo.build('vae', (3, 2, 1), 2, (4,), device='numpy').sample(1)"
    assert not loaded_by(statement) & {"numba", "matplotlib", "torch"}


def test_every_module_says_what_it_is_for_and_what_it_does_not_know():
    """A docstring of two lines; a short one for a file that only runs another."""
    for path in MODULES:
        lines = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines()
        assert lines, f"{path.relative_to(ROOT)} has no docstring"
        assert len(lines) >= 2 or path.name == "__main__.py", f"{path.relative_to(ROOT)}: a docstring of two lines"


def test_public_names_are_there_once():
    assert len(tinyvae.__all__) == len(set(tinyvae.__all__))
    for name in tinyvae._NAMES:
        assert not exists(name), f"{name} is a function and a module"
    with pytest.raises(AttributeError, match="module 'tinyvae' has no attribute 'nonsense'"):
        _ = tinyvae.nonsense
