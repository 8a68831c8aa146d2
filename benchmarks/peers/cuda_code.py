"""Which kernels the CUDA column launches, and what machine code they become, without a GPU."""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from numba import from_dtype, typeof, types

from tinyvae.bench.cases import convs, ops, products
from tinyvae.device import cuda
from tinyvae.kernels import OPS, ops_of
from tinyvae.kernels.cuda import COLUMN, TF32_COLUMN, __path__
from tinyvae.kernels.cuda.engine import compile
from tinyvae.kernels.op import FLOATS

Capability = tuple[int, int]
CAPABILITIES: tuple[Capability, ...] = ((9, 0), (8, 0))
REGISTERS, SHARED, THREADS = 65_536, 48 << 10, 1024  # what one block may take, on every GPU since 2014
DOUBLE = re.compile(r"D(ADD|MUL|FMA|SETP|MNMX|MMA)\b|MUFU\.\w+64H")
ATOMIC = re.compile(r"(RED|ATOM)\w*\..*\bF(16|32|64)\b")


# ---------------------------------------------------------------------------------------------- launches


class Ghost:
    """An array of the GPU as far as a launch looks at it: shape, dtype and address, and no memory."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, address: int = 0) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.size, self.ndim, self.strides = math.prod(self.shape), len(self.shape), ()
        self.ctypes = SimpleNamespace(data=address)

    def reshape(self, *shape: Any) -> Ghost:
        """The same numbers in another shape."""
        wanted = list(shape[0] if shape and isinstance(shape[0], tuple) else shape)
        if -1 in wanted:
            wanted[wanted.index(-1)] = self.size // max(1, -math.prod(wanted))
        return Ghost(tuple(wanted), self.dtype, self.ctypes.data)

    def __getitem__(self, index: slice) -> Ghost:
        rows = range(*index.indices(self.shape[0]))
        before = rows.start * math.prod(self.shape[1:]) * self.dtype.itemsize
        return Ghost((len(rows), *self.shape[1:]), self.dtype, self.ctypes.data + before)


@dataclass
class Launched:
    """A kernel at the types of its arguments: the ops that launch it, and the most threads of a block."""

    kernel: compile.Kernel
    types: tuple[Any, ...]
    ops: list[str] = field(default_factory=list)
    threads: int = 0

    @property
    def dtype(self) -> str:
        """The floating dtype that the kernel is for: float32 where it has such an array, – where it has none."""
        kinds = {str(t.dtype) for t in self.types if isinstance(t, types.Array)}
        return next((kind for kind in ("float32", "float64") if kind in kinds), "–")

    @property
    def name(self) -> str:
        """The kernel's name, and what the function that made it was given."""
        given = ", ".join(constants(self.kernel.function))
        return f"{self.kernel.name}({given})" if given else self.kernel.name

    @cached_property
    def ptx(self) -> str:
        """The kernel in PTX for the least capability, which the assembler takes to any: but for names, Numba's PTX for
        the others is the same."""
        least = min(CAPABILITIES)
        current = SimpleNamespace(compute_capability=least)  # where a kernel calls a function, Numba asks for it
        with mock.patch.object(cuda.dispatcher, "get_current_device", return_value=current):
            return str(cuda.compile_ptx(self.kernel.function, self.types, cc=least)[0])


def constants(function: Any) -> Iterator[str]:
    """What a function has from the functions around it, as far as that is numbers and names."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        value = cell.cell_contents
        inner = getattr(value, "py_func", None)
        if inner is None:
            yield f"{name}={getattr(value, '__name__', value)}"
        elif inner.__closure__:
            yield from constants(inner)
        else:
            yield inner.__name__


def ghosts(name: str, lengths: Mapping[str, Any], dtype: Any) -> Iterator[list[Any]]:
    """Arguments of an op: arrays on 16 bytes, arrays beside them, and images that are floats."""
    arrays = OPS[name].arrays(lengths, dtype)
    images = {arg.name for arg in OPS[name].args if arg.dtype == "image"}
    for off, floating in ((0, False), (1, False), *([(0, True)] if images else [])):
        kinds = {k: np.dtype(dtype if floating and k in images else kind) for k, (_, kind) in arrays.items()}
        made = {k: Ghost(shape, kinds[k], off * kinds[k].itemsize) for k, (shape, _) in arrays.items()}
        yield [made[arg.name] if arg.name in made else lengths[arg.name] for arg in OPS[name].args]


def calls() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(op, lengths) of every example and variant of the table, and of every case that is measured."""
    for case in (*(case for case in ops() if case.op in ops_of("cuda")), *products(), *convs()):
        examples = OPS[case.op].examples.values() if case.group == "ops" else [case.lengths]
        for lengths in examples:
            for variant in ({}, *OPS[case.op].variants):
                yield case.op, {**lengths, **variant}


def types_of(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numba's types of a launch's arguments."""
    return tuple(types.Array(from_dtype(a.dtype), 1, "C") if isinstance(a, Ghost) else typeof(a) for a in arguments)


@cache
def launches() -> list[Launched]:
    """Every kernel that an op of the column launches, once for each set of types. Nothing runs."""
    found: dict[Any, Launched] = {}

    def note(kernel: compile.Kernel, blocks: Any, threads: Any, arguments: tuple[Any, ...]) -> None:
        at = types_of(arguments)
        one = found.setdefault((kernel, at), Launched(kernel, at))
        one.threads = max(one.threads, int(np.prod(threads)))
        if name not in one.ops:
            one.ops.append(name)

    runs = [(op, run, dtype) for op, run in COLUMN.items() for dtype in FLOATS]
    runs += [(op, run, np.dtype(np.float32)) for op, run in TF32_COLUMN.items() if run is not COLUMN[op]]
    with mock.patch.object(compile, "on_launch", note):
        for name, run, dtype in runs:
            for lengths in (lengths for op, lengths in calls() if op == name):
                for arguments in ghosts(name, lengths, dtype):
                    run(*arguments)
    return list(found.values())


def never_launched(found: list[Launched]) -> list[str]:
    """Kernels that stand in the column's files and that no call above launches."""
    met = {one.kernel for one in found}
    files = [import_module(info.name) for info in walk_packages(__path__, "tinyvae.kernels.cuda.")]
    written = {value for file in files for value in vars(file).values() if isinstance(value, compile.Kernel)}
    return sorted(kernel.name for kernel in written - met)


# ---------------------------------------------------------------------------------------------- machine code


def assemble(one: Launched, cc: Capability, tools: Mapping[str, Path]) -> dict[str, Any]:
    """Registers, stack, spilled and shared bytes of a kernel, and how often it has each instruction."""
    return figures(*build(one, cc, tools))


def build(one: Launched, cc: Capability, tools: Mapping[str, Path]) -> tuple[str, str, str | None]:
    """A kernel's PTX, what the assembler says of it, and the disassembler's listing, None where there is none."""
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder, "k.ptx"), Path(folder, "k.cubin")
        source.write_text(one.ptx)
        cap = [f"--maxrregcount={one.kernel.max_registers}"] if one.kernel.max_registers else []
        said = command([tools["ptxas"], "-v", f"-arch=sm_{cc[0]}{cc[1]}", *cap, source, "-o", cubin]).stderr
        if cc == CAPABILITIES[0] and "nvdisasm" in tools:  # a quarter of a second each: once is enough
            listing = command([tools["nvdisasm"], "-c", "-ndf", cubin]).stdout
        else:
            listing = None
    return one.ptx, said, listing


def figures(ptx: str, said: str, listing: str | None) -> dict[str, Any]:
    """What is to be known of a kernel that was built."""
    return {
        "registers": max(numbers(r"Used (\d+) registers", said)),
        "stack": max(numbers(r"(\d+) bytes stack", said)),
        "spilled": sum(numbers(r"(\d+) bytes spill", said)),
        "shared": max(numbers(r"(\d+) bytes smem", said)),
        "instructions": ptx_instructions(ptx) if listing is None else instructions(listing),
    }


def command(words: list[Any]) -> subprocess.CompletedProcess[str]:
    """Runs it; where it fails, its own first words."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{words[0].name}: {(done.stderr or done.stdout).strip().splitlines()[0]}")
    return done


def numbers(pattern: str, text: str) -> list[int]:
    """Every number that the pattern finds, and 0."""
    return [0, *map(int, re.findall(pattern, text))]


def instructions(listing: str) -> dict[str, int]:
    """{instruction: count} of a disassembler's listing, without the filling at the end of the code."""
    found = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", listing)
    return dict(sorted(Counter(name for name in found if name != "NOP").items()))


def ptx_instructions(ptx: str) -> dict[str, int]:
    """The same from PTX: only what is asked for below, by the machine's names."""
    found = re.findall(r"^\s*(?:@!?%\w+\s+)?([a-z]\w*(?:[.:]+\w+)+)\s", ptx, re.MULTILINE)
    return dict(sorted(Counter(filter(None, map(machine_name, found))).items()))


def machine_name(ptx: str) -> str:
    """What an instruction of PTX becomes; "" for what nobody asks about."""
    name, *rest = re.split(r"[.:]+", ptx)
    bits = int(rest[-1][1:]) if re.fullmatch(r"[bfsu]\d+", rest[-1]) else 0
    kind = {"f32": "F", "f64": "D"}.get(rest[-1], "")
    if name in ("ld", "st") and (space := {"global", "shared", "local"} & set(rest)):
        wide = bits * next((int(part[1]) for part in rest if part in ("v2", "v4")), 1)
        letter = space.pop()[0]
        return f"{name}{letter}{'.E' if letter == 'g' else ''}".upper() + (f".{wide}" if wide > 32 else "")
    if name == "cp" and "async" in rest and "global" in rest:
        return "LDGSTS.E.BYPASS.128" if "cg" in rest else "LDGSTS.E"
    if name == "mma":
        shape, factor = "".join(re.findall(r"\d+", rest[2])), rest[-2].upper()
        return "DMMA" if factor == "F64" else f"HMMA.{shape}.F32" + ("" if factor == "F16" else f".{factor}")
    if name in ("red", "atom"):
        return ".".join(["RED", "ADD", rest[-1].upper()])
    if kind and name in ("add", "sub", "mul", "fma", "div", "sqrt", "setp", "min", "max"):
        return kind + {"fma": "FMA", "mul": "MUL", "setp": "SETP", "min": "MNMX", "max": "MNMX"}.get(name, "ADD")
    return {"shfl": "SHFL", "bar": "BAR"}.get(name, "")


# ---------------------------------------------------------------------------------------------- judgement


def has(found: Mapping[str, int], wanted: str) -> bool:
    """Whether there is such an instruction: "LDG.128" is met by LDG.E.128.CONSTANT."""
    name, *parts = wanted.split(".")
    return any(one.split(".")[0] == name and set(parts) <= set(one.split(".")) for one in found)


def faults(one: Launched, code: Mapping[str, Any]) -> list[str]:
    """What must not be in the code, and what is missing from it."""
    found, kernel = code["instructions"], one.kernel
    wrong = [f"{code[key]} bytes {word}" for key, word in (("spilled", "spilled"), ("stack", "of stack")) if code[key]]
    wrong += [f"uses local memory ({name})" for name in found if name.split(".")[0] in ("LDL", "STL")]
    if one.dtype == "float32":
        wrong += [f"no {wanted}" for wanted in kernel.expect if not has(found, wanted)]
        if not kernel.doubles:
            wrong += [f"float64 arithmetic ({n} {name})" for name, n in found.items() if DOUBLE.match(name)]
    wrong += [f"adds floats atomically ({name})" for name in found if ATOMIC.match(name)]
    registers = -(-code["registers"] // 8) * 8 * -(-one.threads // 32) * 32  # a warp's are given out by 256
    if registers > REGISTERS or code["shared"] > SHARED or one.threads > THREADS:
        wrong.append(f"{one.threads} threads with {code['registers']} registers each do not fit")
    return wrong
