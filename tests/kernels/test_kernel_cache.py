"""The folder of machine code: what its name depends on, several processes in it at once, and when it is removed.
That a broken or missing folder is harmless is tested with the compiled columns."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinyvae.app import run
from tinyvae.kernels import cache, locks

# ------------------------------------------------------------------------------------------------ its name

TREE = cache.KERNELS.parent
SOURCES = sorted(cache.KERNELS.rglob("*.py"))


def test_the_name_depends_on_every_source_of_kernels(tmp_path):
    kernels = tmp_path / "kernels"
    shutil.copytree(cache.KERNELS, kernels, ignore=shutil.ignore_patterns("__pycache__"))
    first, seen = cache.fingerprint(kernels=kernels), set()
    assert first == cache.fingerprint()
    for source in SOURCES:
        path = tmp_path / source.relative_to(TREE)
        content = path.read_bytes()
        path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:] if content else b"#")
        seen.add(cache.fingerprint(kernels=kernels))
        path.write_bytes(content)
    assert len(seen) == len(SOURCES) > 40
    assert cache.fingerprint(kernels=kernels) == first not in seen
    (kernels / "cpu" / "conv.py").rename(kernels / "cpu" / "folded.py")
    assert cache.fingerprint(kernels=kernels) != first


# ------------------------------------------------------------------------------------------------ several processes

FORMS = """
from tinyvae.kernels.cpu.engine.compile import jit

def form(factor):
    @jit
    def times(x):
        total = 0.0
        for i in range(x.size):
            total += x[i] * factor
        return total

    return times

forms = [form(float(k)) for k in range(8)]
once = form(0.5)

@jit
def outer(x):
    return once(x) + 1
"""

USER = """
import sys, time
from pathlib import Path
import numpy as np
from tinyvae.kernels.cpu.engine import compile as compiled
import factory

compiles = []
compiled.on_compile = lambda: compiles.append(1)
print("ready", flush=True)
sys.stdin.readline()
first = int(sys.argv[1])
calls = [lambda: factory.outer(np.arange(5.0)) == 6, lambda: factory.once(np.arange(5.0)) == 5]
for call in (calls, calls[::-1], [])[first % 3]:  # one waits for the other, nested in its own turn or not
    assert call()
for k in range(8):
    k = (k + first) % 8
    assert factory.forms[k](np.arange(5.0)) == 10.0 * k, k
try:
    factory.forms[0]("no array")
except Exception as error:
    assert "Typing" in type(error).__name__
print(len(compiles) - 1)  # without the one that failed
"""


@pytest.fixture
def user(tmp_path):
    """A function that starts a process with the eight forms; they are used when it is told so."""
    (tmp_path / "factory.py").write_text(FORMS)
    environment = os.environ | {"TINYVAE_CACHE": str(tmp_path / "cache"), "PYTHONPATH": f"{tmp_path}:{TREE.parent}"}
    started = []

    def start(first=0):
        process = subprocess.Popen(
            [sys.executable, "-c", USER, str(first)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def compiled_by(*processes):
    """How many forms the processes compile, all at once."""
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    counts = []
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        counts.append(int(output))
    return sum(counts)


def test_processes_that_compile_at_once_share_the_work_and_lose_nothing(user, tmp_path):
    assert compiled_by(*(user(first) for first in range(6))) == 10
    assert len(list(tmp_path.rglob("*.nbi"))) == 2
    assert len(list(tmp_path.rglob("*.nbc"))) == 10
    assert [path.name for path in tmp_path.rglob("*lock")] == ["lock"]  # nothing is left of the turns
    assert compiled_by(user()) == 0


def test_machine_code_in_the_wrong_place_is_not_taken(user, tmp_path):
    """As it was when two processes had given two kernels the same file."""
    assert compiled_by(user(2)) == 8
    one, two, *_ = sorted(tmp_path.rglob("*.nbc"))
    two.write_bytes(one.read_bytes())
    assert compiled_by(user(2)) == 1
    assert compiled_by(user(2)) == 0


HOLDER = """
import sys, time
from pathlib import Path
from tinyvae.kernels import locks
assert locks.acquire(Path(sys.argv[1]), 1) is not None
print("held", flush=True)
time.sleep(99)
"""


@pytest.mark.skipif(os.name == "nt", reason="no signals")
def test_a_lock_is_waited_for_once_and_ends_with_its_process(tmp_path):
    path, other = tmp_path / "lock", tmp_path / "none" / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        start = time.monotonic()
        assert locks.acquire(path, 0.3) is None
        assert 0.3 <= time.monotonic() - start < 5
        assert locks.acquire(path, 60) is None  # was waited for in vain
        assert time.monotonic() - start < 5
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    held = locks.acquire(path, 0)
    assert held is not None
    locks.release(held, path)
    assert not path.exists()
    assert locks.acquire(other, 1) is None


def test_readers_share_a_lock(tmp_path):
    path = tmp_path / "lock"
    one, two = locks.acquire(path, 1, shared=True), locks.acquire(path, 1, shared=True)
    assert one is not None
    assert two is not None or os.name == "nt"
    assert locks.acquire(path, 0) is None
    locks.release(one)
    locks.release(two)


# ------------------------------------------------------------------------------------------------ its end


def test_folders_that_nobody_used_for_a_month_are_removed(monkeypatch, tmp_path):
    monkeypatch.setenv("TINYVAE_CACHE", str(tmp_path))
    days = {"kernels-00": 31, "kernels-01": 29, "kernels-02": 365, "kernels-mine": 365, "other": 365}
    for name, age in days.items():
        (tmp_path / name / "product_0").mkdir(parents=True)
        (tmp_path / name / "product_0" / "x.nbc").write_bytes(bytes(500_000))
        os.utime(tmp_path / name, (time.time() - age * 86400,) * 2)
    folder = cache.cache_folder("02")
    assert folder == tmp_path / "kernels-02"
    assert {path.name for path in tmp_path.iterdir()} == set(days) - {"kernels-00"}
    assert time.time() - folder.stat().st_mtime < 60  # used today
    assert cache.folders_beside(folder) == [tmp_path / "kernels-01", folder]
    assert run.cache_size(folder) == "1.0 MB in 2 folders"


def test_a_folder_that_cannot_be_removed_is_left(monkeypatch, tmp_path):
    monkeypatch.setenv("TINYVAE_CACHE", str(tmp_path))
    (tmp_path / "kernels-00").mkdir()
    os.utime(tmp_path / "kernels-00", (0, 0))
    monkeypatch.setattr(Path, "lstat", lambda self: (_ for _ in ()).throw(PermissionError()))
    assert cache.cache_folder("01") == tmp_path / "kernels-01"
    assert (tmp_path / "kernels-00").is_dir()
