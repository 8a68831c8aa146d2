"""The package's structure: rooms import one way, files in no circle, it stays small, imports cost nothing.

The modules are read as text and as syntax; none of them has to work for it. An import counts wherever it stands, in a
function or for the type checker alone."""

import ast
import io
import subprocess
import sys
import token
import tokenize
from pathlib import Path

import pytest

import tinyvae

ROOT = Path(tinyvae.__file__).parent
CORE = ("__init__", "errors", "config", "device", "kernels", "layers", "models", "datasets", "training")
# a file imports from its own room and from those before it; a new room is added here
ROOMS = (*CORE, "measure", "pictures", "check", "learn", "bench", "sklearn", "app", "__main__")
MODULES = sorted(ROOT.rglob("*.py"))
LINES = {  # limits; of the core, lines that hold code
    "core without columns and engines": 6_750,  # the error terms of the ops are in it
    "core": 11_000,
    "package, physical lines": 29_700,
}
ENTRIES = 16  # of tinyvae/, without __init__


def relative(path):
    return str(path.relative_to(ROOT))


def syntax(path):
    return ast.parse(path.read_text("utf-8"))


def name_of(path):
    """The dotted name of a file's module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["tinyvae", *(parts[:-1] if parts[-1] == "__init__" else parts)])


def room(name):
    """The module or package directly under tinyvae that a module belongs to."""
    return [*name.split("."), "__init__"][1]


def imports(path):
    """Every import of a file, as (module or name, line); relative ones by their whole name."""
    package = ["tinyvae", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def graph(paths):
    """{module: {imported module of the package: line}}; a public name of tinyvae stands for its module."""
    names = {name_of(path) for path in paths}
    public = {f"tinyvae.{k}": f"tinyvae.{v}" for k, v in {**tinyvae._MODULES, **tinyvae._NAMES}.items()}
    found = {}
    for path in paths:
        edges = found.setdefault(name_of(path), {})
        for name, line in imports(path):
            target = name if name in names else public.get(name, name)
            while target and target not in names:
                target = target.rpartition(".")[0]
            if target and target != name_of(path):
                edges.setdefault(target, line)
    return found


def wrong_rooms(edges):
    """What imports a room that stands after its own in ROOMS, a sentence each."""
    for name, targets in edges.items():
        unlisted = {room(one) for one in (name, *targets)} - set(ROOMS)
        yield from (f"{one} is no room: add it to ROOMS where it belongs" for one in unlisted)
        for target, line in targets.items() if not unlisted else ():
            if ROOMS.index(room(target)) > ROOMS.index(room(name)):
                yield f"{name}:{line}: {room(name)} imports {target}, which stands after it"


def circles(edges):
    """The sets of modules that import one another in a circle."""

    def reached(start):
        seen, stack = set(), [start]
        while stack:
            for target in edges.get(stack.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    stack.append(target)
        return seen

    far, found = {name: reached(name) for name in edges}, []
    for name in edges:
        circle = {other for other in far[name] if name in far.get(other, ())}
        if circle and circle not in found:
            found.append(circle)
    return found


def test_the_files_were_found():
    assert set(ROOMS) == {room(name_of(path)) for path in MODULES}


def test_rooms_import_one_way():
    assert not list(wrong_rooms(graph(MODULES)))


def test_files_import_in_no_circle():
    assert circles(graph(MODULES)) == []


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("from ..models import VAE", "models"),
        ("def f():\n    from .. import zoo", "models.zoo"),
        ("import tinyvae.training.step", "training.step"),
        ("from tinyvae import app", "app"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..models import VAE", "models"),
    ],
)
def test_a_wrong_import_is_noticed(tmp_path, monkeypatch, source, target):
    """The tests above can fail: in a function, as a package, by absolute name, for the type checker."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    files = {"layers/bad.py": source, "models/__init__.py": "from ..layers import bad", "models/zoo.py": "",
             "training/step.py": "", "app/__init__.py": "", "novel.py": "from . import layers"}  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    edges = graph(sorted(tmp_path.rglob("*.py")))
    wrong = list(wrong_rooms(edges))
    assert any(f": layers imports tinyvae.{target}, which stands after it" in one for one in wrong)
    assert "novel is no room: add it to ROOMS where it belongs" in wrong
    circle = {"tinyvae.layers.bad", "tinyvae.models"}
    assert circles(edges) == ([circle] if target == "models" else [])


# ------------------------------------------------------------------------------------------------ size


CODE = {token.OP, token.NAME, token.NUMBER, token.STRING}
CODE |= {getattr(token, name) for name in ("FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END") if hasattr(token, name)}


def code_lines(text):
    """How many lines hold code, as tinygrad's sz.py counts: no blank lines, no comments, no docstrings."""
    lines = set()
    for found in tokenize.generate_tokens(io.StringIO(text).readline):
        docstring = found.type == token.STRING and found.line.strip().startswith('"""')
        if found.type in CODE and not (docstring and found.string.startswith('"""')):
            lines.update(range(found.start[0], found.end[0] + 1))
    return len(lines)


def test_lines_that_hold_code_are_counted():
    text = '''"""A module."""

import os  # counts


def f():
    """
    Two.
    """
    # does not count
    return (
        os
    )
'''
    assert code_lines(text) == 5


def test_the_package_stays_small():
    counts = dict.fromkeys(LINES, 0)
    physical = 0
    for path in MODULES:
        text = path.read_text("utf-8")
        counts["package, physical lines"] += len(text.splitlines())
        if room(name_of(path)) in CORE:
            physical += len(text.splitlines())
            counts["core"] += code_lines(text)
            if not relative(path).startswith(("kernels/cpu/", "kernels/cuda/")):
                counts["core without columns and engines"] += code_lines(text)
    table = "\n".join(f"{name}: {count} of at most {LINES[name]}" for name, count in counts.items())
    print(f"{table}\ncore, physical lines: {physical}")
    assert all(count <= LINES[name] for name, count in counts.items()), table
    entries = sorted(path.name for path in ROOT.iterdir() if path.name not in ("__init__.py", "__pycache__"))
    assert len(entries) <= ENTRIES, entries


# ------------------------------------------------------------------------------------------------ who imports what


def importing(package):
    """The files that import a package from outside tinyvae."""
    return {relative(p) for p in MODULES if any(name.split(".")[0] == package for name, _ in imports(p))}


def test_matplotlib_is_imported_in_pictures_only():
    assert {path for path in importing("matplotlib") if not path.startswith("pictures/")} == set()
    inner = {"tinyvae.pictures.canvas", "tinyvae.pictures.charts"}  # other rooms draw by plots and explore
    users = {name: inner & set(targets) for name, targets in graph(MODULES).items() if room(name) != "pictures"}
    assert {name: found for name, found in users.items() if found} == {}


def test_numba_and_cuda_are_imported_where_they_may_be():
    """Numba by the columns, the device and the cache of kernels; kernel files take `cuda` from the device."""
    columns = ("device/", "kernels/cpu/", "kernels/cuda/", "kernels/__init__", "kernels/cache.py")
    assert {path for path in importing("numba") if not path.startswith(columns)} == set()
    cuda = {relative(p) for p in MODULES if any(f"{name}.".startswith("numba.cuda.") for name, _ in imports(p))}
    assert {path for path in cuda if not path.startswith("device/")} == set()


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


# ------------------------------------------------------------------------------------------------ names and docstrings


def test_every_module_says_what_it_is_for():
    """A sentence at least."""
    docstrings = {relative(path): ast.get_docstring(syntax(path)) or "" for path in MODULES}
    assert [path for path, text in docstrings.items() if not set(".?") & set(text.split("\n\n")[0])] == []


def test_public_names_are_there_once():
    assert len(tinyvae.__all__) == len(set(tinyvae.__all__))
    for name in tinyvae._NAMES:
        assert not (ROOT / name).exists(), f"{name} is a function and a package"
        assert not (ROOT / f"{name}.py").exists(), f"{name} is a function and a module"
    with pytest.raises(AttributeError, match="module 'tinyvae' has no attribute 'nonsense'"):
        _ = tinyvae.nonsense
