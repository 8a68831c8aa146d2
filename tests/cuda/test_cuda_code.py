"""The inspection of compiled CUDA kernels: planted faults are found, clean kernels pass, tables and files are written.
What needs NVIDIA's assembler is skipped where there is none; nothing here needs a GPU, and nothing the simulator."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0"):
    pytest.skip("the simulator compiles nothing", allow_module_level=True)

from peers import cuda_code, inspection
from peers.cuda_code import Ghost, Launched
from tinyvae.app.cli import main as command
from tinyvae.device import cuda, toolkit
from tinyvae.kernels.cuda import COLUMN, TF32_COLUMN
from tinyvae.kernels.cuda.engine import compile
from tinyvae.kernels.cuda.engine.compile import Kernel, kernel, launch
from tinyvae.kernels.cuda.engine.intrinsics import load4, store4

ROOT = Path(__file__).parents[2]

# ------------------------------------------------------------------------------------------------ planted kernels


@kernel(expect=("LDG.128", "STG.128"))
def wide(x, y):
    i = np.uint32(4) * np.uint32(cuda.threadIdx.x)
    a, b, c, d = load4(x, i)
    store4(y, i, a + a, b, c, d)


@kernel(expect=("LDG.128",))
def narrow(x, y):
    i = np.uint32(cuda.threadIdx.x)
    y[i] = x[i]


@kernel()
def table_of_its_own(x, y):
    i = np.uint32(cuda.threadIdx.x)
    table = cuda.local.array(64, np.float32)
    for k in range(64):
        table[np.uint32(x[k])] = x[k + i]  # indices that no compiler knows
    y[i] = table[np.uint32(x[i])]


@kernel(max_registers=24)
def crowded(x, y):
    i = np.uint32(cuda.threadIdx.x)
    a, b, c, d = load4(x, i)
    e, f, g, h = load4(x, i + np.uint32(4))
    k, m, n, o = load4(x, i + np.uint32(8))
    p, q, r, s = load4(x, i + np.uint32(12))
    for t in range(100):  # sixteen sums that live through the loop
        u = x[t]
        a, b, c, d = a * u + b, b * u + c, c * u + d, d * u + e
        e, f, g, h = e * u + f, f * u + g, g * u + h, h * u + k
        k, m, n, o = k * u + m, m * u + n, n * u + o, o * u + p
        p, q, r, s = p * u + q, q * u + r, r * u + s, s * u + a
    store4(y, i, a + b, c + d, e + f, g + h)
    store4(y, i + np.uint32(4), k + m, n + o, p + q, r + s)


def half_in_doubles(x, y):
    i = np.uint32(cuda.threadIdx.x)
    y[i] = x[i] * 1.1  # a Python float is a double


@kernel()
def in_any_order(x, y):
    cuda.atomic.add(y, 0, x[np.uint32(cuda.threadIdx.x)])


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """The assembler and its companions, with CUDA_HOME where Numba finds the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_HOME", os.environ.get("CUDA_HOME", ""))  # put back afterwards
        found = toolkit.gather(tmp_path_factory.mktemp("cuda"))
        if reason := inspection.why_not(found):
            pytest.skip(f"kernels cannot be compiled here: {reason}")
        yield found


def judged(one, tools, dtype=np.float32, threads=32, cc=(9, 0)):
    """Faults and code of a kernel (x, y)."""
    array = cuda_code.types.Array(cuda_code.from_dtype(np.dtype(dtype)), 1, "C")
    launched = Launched(one, (array, array), ["an op"], threads)
    code = cuda_code.assemble(launched, cc, tools)
    return cuda_code.faults(launched, code), code


@pytest.mark.parametrize("cc", cuda_code.CAPABILITIES)
def test_a_clean_kernel_has_no_faults(tools, cc):
    found, code = judged(wide, tools, cc=cc)
    assert found == []
    assert 0 < code["registers"] < 64
    assert (code["stack"], code["spilled"]) == (0, 0)
    assert cuda_code.has(code["instructions"], "LDG.128")


def test_planted_faults_are_found(tools):
    assert judged(narrow, tools)[0] == ["no LDG.128"]
    found, code = judged(table_of_its_own, tools)
    assert found[0] == "256 bytes of stack"
    assert any(fault.startswith("uses local memory (LDL") for fault in found)
    assert judged(table_of_its_own, tools, cc=(8, 0))[0][0] == "256 bytes of stack"
    found, code = judged(crowded, tools)
    assert code["registers"] <= 24
    assert found[0] == f"{code['spilled']} bytes spilled"
    assert [fault.split(" (")[0] for fault in judged(in_any_order, tools)[0]] == ["adds floats atomically"]
    assert judged(wide, tools, threads=2048)[0] == [
        f"2048 threads with {judged(wide, tools)[1]['registers']} registers each do not fit"
    ]


def test_float64_arithmetic_must_be_meant(tools):
    assert judged(Kernel(half_in_doubles), tools)[0] == ["float64 arithmetic (1 DMUL)"]
    assert judged(Kernel(half_in_doubles, doubles=True), tools)[0] == []
    assert judged(Kernel(half_in_doubles), tools, np.float64)[0] == []


def test_ptx_tells_the_same_where_there_is_no_disassembler(tools):
    bare = {"ptxas": tools["ptxas"]}
    assert judged(wide, bare)[0] == []
    assert judged(narrow, bare)[0] == ["no LDG.128"]
    assert judged(Kernel(half_in_doubles), bare)[0] == ["float64 arithmetic (1 DMUL)"]
    assert judged(in_any_order, bare)[0] == ["adds floats atomically (RED.ADD.F32)"]


def test_a_kernel_that_does_not_compile_is_a_fault(tools, monkeypatch):
    def broken(x, y):
        y.nonsense()

    array = cuda_code.types.float32[::1]
    monkeypatch.setattr(cuda_code, "launches", lambda: [Launched(Kernel(broken), (array, array), ["an op"], 32)])
    first, second = inspection.inspect_one(tools, 0)
    assert first["faults"][0].startswith("does not compile: TypingError")
    assert second["capability"] == "8.0"
    assert "| broken | float32 | 32 | – |" in inspection.markdown(results([first, second]))


# ------------------------------------------------------------------------------------------------ without a compiler


def test_a_listing_is_counted():
    listing = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 EXIT ;
        /*0020*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;  /* 0x000fc00000000000 */
        /*0030*/             @UP1 LDG.E.128.CONSTANT R8, desc[UR4][R2.64] ;
        /*0040*/                   NOP;
    """
    found = cuda_code.instructions(listing)
    assert found == {"EXIT": 1, "LDC": 1, "LDG.E.128.CONSTANT": 2}
    assert cuda_code.has(found, "LDG.128")
    assert not cuda_code.has(found, "LDG.64")
    assert not cuda_code.has(found, "LD")


@pytest.mark.parametrize(
    ("ptx", "name"),
    [
        ("ld.global.v4.f32", "LDG.E.128"),
        ("ld.global.f32", "LDG.E"),
        ("st.shared.v2.u64", "STS.128"),
        ("ld.local.u32", "LDL"),
        ("ld.param.u64", ""),
        ("cp.async.cg.shared.global", "LDGSTS.E.BYPASS.128"),
        ("cp.async.wait_group", ""),
        ("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", "HMMA.1688.F32.TF32"),
        ("fma.rn.f32", "FFMA"),
        ("setp.lt.f64", "DSETP"),
        ("atom.global.add.f64", "RED.ADD.F64"),
        ("shfl.sync.bfly.b32", "SHFL"),
    ],
)
def test_names_of_instructions(ptx, name):
    assert cuda_code.machine_name(ptx) == name


def test_a_ghost_knows_where_it_stands():
    whole = Ghost((10, 4), np.float64, 8)
    assert whole[3:].shape == (7, 4)
    assert whole[3:].ctypes.data == 8 + 3 * 4 * 8
    assert whole.reshape(-1, 5).shape == (8, 5)
    assert whole.reshape(-1).ctypes.data == 8
    assert not compile.aligned(whole)


def test_every_kernel_of_the_column_is_launched_by_a_case():
    found = cuda_code.launches()
    assert {op for one in found for op in one.ops} == set(COLUMN)
    assert cuda_code.never_launched(found) == []
    assert {one.dtype for one in found} >= {"float32", "float64"}


def test_a_kernel_that_no_case_launches_is_named(monkeypatch):
    monkeypatch.setattr(compile, "forgotten_kernel", Kernel(half_in_doubles), raising=False)
    assert cuda_code.never_launched(cuda_code.launches()) == ["half_in_doubles"]


def test_both_kernels_of_an_op_that_asks_for_addresses_are_met(monkeypatch):
    def op(x, act, y):
        launch(wide if compile.aligned(x, y) else narrow, 1, 32, x, y)

    for column in (COLUMN, TF32_COLUMN):
        monkeypatch.setitem(column, "activate", op)
    found = cuda_code.launches.__wrapped__()
    assert {one.kernel.name for one in found if "activate" in one.ops} == {"wide", "narrow"}


def test_a_kernel_is_named_with_what_it_was_made_from():
    def product(tile, function):
        return Launched(Kernel(lambda x: function(x) + tile), ())

    act = 2
    inner = cuda.jit(device=True)(lambda x: x + act)
    assert product(128, inner).name == "<lambda>(act=2, tile=128)"
    assert product(128, cuda.jit(device=True)(half_in_doubles)).name == "<lambda>(half_in_doubles, tile=128)"
    assert Launched(Kernel(half_in_doubles), ()).name == "half_in_doubles"


def results(rows):
    """What an inspection finds."""
    versions = {"Numba": "0.68.1", "ptxas": "13.0.88"}
    return {"versions": versions, "rows": rows, "never launched": [], "instructions from": "nvdisasm"}


def row(name, capability, registers, faults=()):
    return {
        "kernel": name, "for": "float32", "capability": capability, "ops": ["dense", "latent"], "arguments": "uint32",
        "threads": 256, "registers": registers, "stack": 0, "spilled": 0, "shared": 4096,
        "instructions": {"FFMA": 64, "LDG.E.128": 1, "LDG.E.128.CONSTANT": 3, "LDS.U.128": 2, "ISETP.GE": 5},
        "faults": list(faults),
    }  # fmt: skip


def test_the_table(tmp_path, monkeypatch):
    made = results([row("tile", "9.0", 40), row("tile", "8.0", 38, ["8 bytes spilled"])])
    line = "| tile | float32 | 256 | 40 / 38 | 0 | 0 | 4096 | 75 | 64 FFMA, 4 LDG.128, 2 LDS.128 | dense, latent |"
    assert line in inspection.markdown(made)
    last = "1 kernels, 1 with their types, for compute capability 9.0 and 8.0 (Numba 0.68.1, ptxas 13.0.88): 1 faults"
    assert inspection.text(made).splitlines()[-2:] == ["tile, float32, 8.0: 8 bytes spilled", last]
    assert json.loads(inspection.as_json(made)) == made
    everything = dict.fromkeys(inspection.NEEDED, Path("here"))
    monkeypatch.setattr(toolkit, "gather", lambda folder: everything)
    monkeypatch.setattr(inspection, "inspect", lambda tools, say: made)
    said, ok = inspection.run(tmp_path / "code.json", print)
    assert not ok
    assert said == inspection.text(made)
    assert (tmp_path / "code.md").read_text("utf-8") == inspection.markdown(made)
    made["rows"][1]["faults"] = []
    assert inspection.run(None, print)[1]
    made["never launched"] = ["odd"]
    assert not inspection.run(None, print)[1]


def test_without_a_toolkit_it_says_so_and_does_not_fail(monkeypatch, capsys):
    monkeypatch.setattr(toolkit, "find", dict)
    monkeypatch.setenv("CUDA_HOME", "")
    assert command(["bench", "--cuda-code"]) == 0
    assert capsys.readouterr().out.startswith("CUDA code: not run, libnvvm, libdevice, ptxas not found: pip install")


def test_the_toolkit_is_found_in_packages_and_linked(tmp_path, monkeypatch):
    package = tmp_path / "site" / "nvidia" / "cu13"
    files = {"lib/libnvvm.so.4": "libnvvm", "nvvm/libdevice/libdevice.10.bc": "libdevice", "bin/ptxas": "ptxas"}
    for name in files:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(name)
    monkeypatch.setattr(toolkit, "INSTALLED", ())
    monkeypatch.setattr(toolkit, "sys", SimpleNamespace(path=["", str(tmp_path / "site")]))
    monkeypatch.setenv("CUDA_HOME", "")  # set and empty, it must not be looked into
    monkeypatch.delenv("CUDA_PATH", raising=False)
    home = tmp_path / "home"
    for _ in range(2):  # twice: links that stand are replaced
        found = toolkit.gather(home)
    assert found == {part: package / name for name, part in files.items()}
    assert (home / "nvvm/lib64/libnvvm.so").read_text() == "lib/libnvvm.so.4"
    assert (home / "nvvm/libdevice/libdevice.10.bc").exists()
    assert os.environ["CUDA_HOME"] == str(home)


# ---------------------------------------------------------------------------------------------- kept between processes

WORDS = """
import numpy as np
from tinyvae.kernels import cache
from tinyvae.kernels.cuda import conv
from tinyvae.kernels.cuda.engine import product, tile, windows

def kernels():
    for one in (tile.TINY, tile.SMALL, tile.TENSOR[2]):
        for width in (1, 4):
            factors = tile.matrix(True, one.rows, one, width), tile.matrix(False, one.columns, one, 4)
            yield product.product(np.dtype("f4"), one, *factors, tile.row_major, True)
    seen = windows.gathered(tile.TINY, tile.TINY.rows, 4, *conv.whole)
    for place in (tile.row_major, conv.phase_place):
        yield product.product(np.dtype("f4"), tile.TINY, seen, factors[1], place, True)

words = [repr(cache.described(kernel.function)) for kernel in kernels()]
"""


def test_kernels_made_by_functions_are_found_again_by_another_process():
    """Their place on disk is told by words that are the same in every process, and differ from kernel to kernel."""
    here: dict = {}
    exec(WORDS, here)
    assert len(set(here["words"])) == 8
    there = subprocess.run(
        [sys.executable, "-c", f"{WORDS}print(*words, sep='\\n')"], capture_output=True, text=True, timeout=99, cwd=ROOT
    )
    assert there.stdout.splitlines() == here["words"], there.stderr
