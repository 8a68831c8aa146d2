"""What all tests share: the devices there are, hypothesis's few examples, the same global state before and after a
test, and the list of what was skipped."""

import inspect
import os
import random
import sys
from collections import Counter, defaultdict
from functools import cache
from unittest.mock import patch

import pytest
from hypothesis import settings

from tinyvae import kernels
from tinyvae.device import open_device
from tinyvae.errors import DeviceError

settings.register_profile("tinyvae", deadline=None, max_examples=20, derandomize=True, database=None)
settings.load_profile("tinyvae")


@pytest.fixture(scope="session", params=list(kernels.COLUMNS))
def device(request):
    """The name of every device that has ops, one after the other; skipped where this machine lacks it."""
    try:
        open_device(request.param)
    except DeviceError as error:
        pytest.skip(str(error))
    return request.param


# ---------------------------------------------------------------------------------------------- global state


def of_torch(torch):
    return torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()


def of_numba(numba):
    started = sys.modules["numba.np.ufunc.parallel"]._is_initialized  # asking for the number would start the threads
    return numba.get_num_threads() if started else numba.config.NUMBA_NUM_THREADS


STATES = {  # name: (module, what of it a test must leave as it was); a module that is not imported has no state
    "the working directory": ("os", lambda os: os.getcwd()),
    "sys.path": ("sys", lambda sys: tuple(sys.path)),
    "Python's random state": ("random", lambda random: random.getstate()),
    "the handler of an interrupt": ("signal", lambda signal: signal.getsignal(signal.SIGINT)),
    "NumPy's handling of errors": ("numpy", lambda np: np.geterr()),
    "NumPy's random state": ("numpy", lambda np: np.random.get_state()[1].tobytes()),
    "Numba's number of threads": ("numba.np.ufunc.parallel", lambda _: of_numba(sys.modules["numba"])),
    "Matplotlib's rcParams": ("matplotlib", lambda matplotlib: dict.copy(matplotlib.rcParams)),
    "PyTorch's gradients, dtype or threads": ("torch", of_torch),
    "scikit-learn's configuration": ("sklearn", lambda sklearn: sklearn.get_config()),
    "JAX's 64 bits": ("jax", lambda jax: jax.config.jax_enable_x64),
}


def global_state():
    return {name: state(sys.modules[of]) for name, (of, state) in STATES.items() if of in sys.modules}


@pytest.fixture(autouse=True)
def the_process_stays_as_it_is():
    """No test changes a library's global state for the tests behind it.

    The environment is put back (Numba reads its variables again at every compilation); pytest itself puts back the
    filters of warnings. All else a test must put back itself.
    """
    before = global_state()
    with patch.dict(os.environ):
        yield
    after = global_state()
    changed = [name for name, state in before.items() if after[name] != state]
    assert not changed, f"the test changed {', '.join(changed)} and did not put it back"


# ---------------------------------------------------------------------------------------------- threads


def pytest_configure(config):
    """Processes that run tests at once do not fight for cores: OpenBLAS's threads wait by spinning."""
    if config.getoption("numprocesses", None):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when a worker imports NumPy


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Kernels of such a process use one thread, but where the ops themselves are tested."""
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    if hasattr(item.config, "workerinput") and parallel and parallel._is_initialized:
        numba = sys.modules["numba"]
        all_threads = numba.config.NUMBA_NUM_THREADS
        numba.set_num_threads(all_threads if "kernels" in item.path.parts else 1)


# ---------------------------------------------------------------------------------------------- choice and report


def pytest_addoption(parser):
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in a random order of this seed")


def pytest_itemcollected(item):
    if needs_torch(item):
        item.add_marker("torch")


@pytest.hookimpl(trylast=True)  # after pytest has sorted by device
def pytest_collection_modifyitems(config, items):
    seed = config.getoption("shuffle")
    if seed is not None:
        random.Random(seed).shuffle(items)


SKIPS = 'importorskip("torch")'


def needs_torch(item):
    """Whether the test, its module or a function that it calls is skipped without PyTorch, or a parameter names it."""
    params = getattr(item, "callspec", None)
    if params and any(str(value).startswith("torch") for value in params.params.values()):
        return True
    calls = item.function.__code__.co_names
    return "torch" in vars(item.module) or any(
        SKIPS in source_of(item.module, name) for name in (item.function.__name__, *calls)
    )


@cache
def source_of(module, name):
    """The source of a module's function; empty where it is none of its own."""
    function = vars(module).get(name)
    own = inspect.isfunction(function) and function.__module__ == module.__name__
    return inspect.getsource(function) if own else ""


def pytest_terminal_summary(terminalreporter):
    """What was skipped: how many tests, in which files, and why."""
    skipped = Counter()
    files = defaultdict(set)
    for report in terminalreporter.stats.get("skipped", ()):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        skipped[reason := reason.removeprefix("Skipped: ")] += 1
        files[reason].add(report.nodeid.split("::")[0].rsplit("/")[-1])
    if skipped:
        terminalreporter.section("skipped")
    for reason, count in skipped.most_common():
        names = sorted(files[reason])
        more = f" and {len(names) - 3} more files" if len(names) > 3 else ""
        terminalreporter.line(f"{count:6,} {reason}: {', '.join(names[:3])}{more}")
