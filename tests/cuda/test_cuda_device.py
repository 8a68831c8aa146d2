"""The border to a GPU: what is said where one is missing, memory, copies, the recorded step, precision.
Numba over a fake driver runs in a process of its own. What needs arrays there runs on a GPU or in the simulator, also
in a process of its own: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/cuda/test_cuda_device.py."""

import gc
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_driver import FakeDriver

import tinyvae
from tinyvae import device, kernels, zoo
from tinyvae.app.run import configure, reconfigure
from tinyvae.config import RunConfig, TrainConfig
from tinyvae.device import host, machine, open_device
from tinyvae.device.driver import Driver, DriverError, find_driver
from tinyvae.device.graph import Recorded, Recorder
from tinyvae.device.machine import Card, Machine
from tinyvae.errors import ConfigError, DeviceError, KernelError
from tinyvae.kernels import RELU, ops_of
from tinyvae.kernels.clock import LR
from tinyvae.layers import Dense, Flatten, Reshape, Sequential
from tinyvae.models import VAE
from tinyvae.training import checkpoint
from tinyvae.training.step import Feed, Step, evaluate_pass

HERE = Path(__file__).parents[1]


@pytest.fixture
def gpu():
    """The device "cuda", be it simulated."""
    try:
        return open_device("cuda")
    except DeviceError as error:
        pytest.skip(str(error))


# ------------------------------------------------------------------------------------------------ what is missing

TOOLKIT = {"libnvvm": "/t/libnvvm.so", "libdevice": "/t/libdevice.10.bc", "cudart": "/t/libcudart.so"}
CARD = Card("Fake GPU", (9, 0), 3 << 30)
WHOLE = Machine(None, (13, 0), "", (CARD,), TOOLKIT, (13, 0))

MISSING = [
    (Machine(home="", driver=(13, 0), cards=(CARD,), toolkit=TOOLKIT), "CUDA_HOME is set but empty", "unset it"),
    (Machine(toolkit=TOOLKIT), "there is no NVIDIA driver", "install the one for your GPU"),
    (Machine(driver=(13, 0), toolkit=TOOLKIT), "the NVIDIA driver finds no GPU (it counts none)", "nvidia-smi"),
    (Machine(driver=(13, 0), failure="cuInit: none here (100)"), "no GPU (cuInit: none here (100))", "nvidia-smi"),
    (Machine(driver=(12, 0), cards=(Card("Old", (7, 5), 1),)), "Old has compute capability 7.5", "device='numba'"),
    (Machine(driver=(13, 0), cards=(CARD,)), "libnvvm, libdevice, cudart of the CUDA", "install the toolkit"),
    (
        Machine(driver=(13, 0), cards=(CARD,), elsewhere=frozenset(TOOLKIT)),
        "libnvvm, libdevice, cudart of the CUDA toolkit", "`eval $(python -m tinyvae.device.toolkit FOLDER)`",
    ),
    (
        Machine("/opt/cuda", (13, 0), "", (CARD,), {k: TOOLKIT[k] for k in ("libnvvm", "cudart")}),
        "cannot be found under CUDA_HOME=/opt/cuda: install", "set CUDA_HOME",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("found", "what", "how"), MISSING)
def test_what_is_missing_is_one_sentence_with_the_way_to_get_it(found, what, how):
    sentence = found.missing()
    assert what in sentence
    assert how in sentence
    assert "\n" not in sentence
    assert ". " not in sentence
    assert len(sentence) < 300


def test_nothing_is_missing():
    assert WHOLE.missing() is None


def test_what_info_prints_of_a_machine():
    (_, gpu), (_, toolkit) = WHOLE.lines()
    assert gpu == "Fake GPU, compute capability 9.0, 3.0 GiB; driver for CUDA 13.0"
    assert toolkit == "13.0: libnvvm /t/libnvvm.so, libdevice /t/libdevice.10.bc, cudart /t/libcudart.so"
    (_, gpu), (_, toolkit) = Machine(toolkit={"libnvvm": "/t/libnvvm.so"}).lines()
    assert gpu == "none; no driver"
    assert toolkit == "none: libnvvm /t/libnvvm.so, libdevice missing, cudart missing"
    (_, toolkit) = Machine(driver=(12, 4), version=(13, 0)).lines()[1]
    assert toolkit.startswith("13.0 (newer than the driver)")


@pytest.fixture
def fake():
    return FakeDriver()


CUDART = frozenset({"cudart"})


def look(monkeypatch, driver):
    """What is found with this driver and no toolkit."""
    monkeypatch.setattr(machine, "find_driver", lambda: driver)
    monkeypatch.setattr(machine, "find_toolkit", lambda: ({}, None))
    monkeypatch.setattr(machine, "find", lambda: {"cudart": Path("/elsewhere")})
    monkeypatch.delenv("CUDA_HOME", raising=False)
    return machine.look()


def test_looking_at_a_machine(monkeypatch, fake):
    assert look(monkeypatch, Driver(fake)) == Machine(None, (12, 8), "", (CARD,), elsewhere=CUDART)
    fake.fail["cuInit"] = 100
    assert look(monkeypatch, Driver(fake)) == Machine(None, (12, 8), "cuInit: made to fail (100)", elsewhere=CUDART)
    fake.fail["cuGetErrorString"] = 1
    assert look(monkeypatch, Driver(fake)).failure == "cuInit: error 100"
    assert look(monkeypatch, None) == Machine(elsewhere=CUDART)


def test_the_driver_is_looked_for_where_numba_looks(monkeypatch):
    monkeypatch.setenv("NUMBA_CUDA_DRIVER", "/nowhere/libcuda.so")
    assert find_driver() is None


def test_without_numba(monkeypatch):
    for module in (device, host):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    for name in ("numba", "cuda"):
        device._cuda_device.cache_clear()
        with pytest.raises(DeviceError, match=f"device='{name}' needs the package numba: pip install numba"):
            open_device(name)


WITHOUT = {"NUMBA_CUDA_DRIVER": "0", "NUMBA_ENABLE_CUDASIM": "0"}  # "0": Numba's word for no driver


def tinyvae_command(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "tinyvae", *arguments], env=os.environ | WITHOUT | variables, capture_output=True,
        text=True, timeout=300, cwd=HERE.parent,
    )  # fmt: skip


@pytest.mark.parametrize("command", [("train",), ("gradcheck",), ("bench", "--verify-only")], ids=lambda c: c[0])
def test_without_a_gpu_every_command_says_so_in_one_line(command, tmp_path):
    done = tinyvae_command(
        *command, "--device", "cuda", *(("--out", str(tmp_path / "run")) if "train" in command else ())
    )
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(f"tinyvae {command[0]}: error: device='cuda': there is no NVIDIA driver (libcuda.so.1): ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_info_shows_it_all():
    text = tinyvae_command("info").stdout
    lines = {line[:14].strip(): line[14:] for line in text.splitlines()}
    assert lines["devices"] == "numpy, numba, cuda"
    assert lines["cuda"].startswith("not usable: there is no NVIDIA driver")
    assert lines["GPU"] == "none; no driver"
    assert "libnvvm" in lines["CUDA toolkit"]
    assert "kernels-" in lines["CUDA cache"]
    assert "simulated" in tinyvae_command("info", NUMBA_ENABLE_CUDASIM="1").stdout


def test_numba_over_a_driver_in_plain_python():
    """Everything that Numba's own arrays, launches and files do, in a process where a fake driver can stay."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "driver_checks.py")],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "0"}, capture_output=True, text=True, timeout=600, cwd=HERE.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


# ------------------------------------------------------------------------------------------------ recording

STREAM = 7
BEGIN, END = ("cuStreamBeginCapture_v2", (STREAM, 1)), "cuStreamEndCapture"


class Steps:
    """A step that notes its calls among the driver's, and fails when told to; and its recording."""

    def __init__(self, fake):
        self.fake, self.error = fake, None
        self.recorded = Recorded(self.step, Recorder(Driver(fake), STREAM, self.deferred))

    def step(self):
        self.fake.calls.append(("step", None))
        if self.error:
            raise self.error

    @contextmanager
    def deferred(self):
        self.fake.calls.append(("deferred", None))
        yield
        self.fake.calls.append(("cleanup", None))

    def calls(self, count=1):
        """What `count` calls of the recorded step do."""
        self.fake.calls.clear()
        for _ in range(count):
            self.recorded()
        return list(self.fake.calls)


def test_the_first_call_runs_the_second_records_the_others_replay(fake):
    steps = Steps(fake)
    assert steps.calls() == [("step", None)]
    calls = steps.calls()
    graph, executable = calls[3][1][1], calls[4][1][1]
    launch = ("cuGraphLaunch", (executable, STREAM))
    assert calls == [
        ("deferred", None), BEGIN, ("step", None), (END, (STREAM, graph)),
        ("cuGraphInstantiateWithFlags", (graph, executable)), ("cuGraphDestroy", graph), ("cleanup", None), launch,
    ]  # fmt: skip
    assert steps.calls(3) == [launch] * 3
    fake.calls.clear()
    del steps
    gc.collect()
    assert fake.calls == [("cuGraphExecDestroy", executable)]


def test_a_first_call_that_fails_is_not_recorded(fake):
    steps = Steps(fake)
    steps.error = ValueError("too soon")
    with pytest.raises(ValueError, match="too soon"):
        steps.recorded()
    steps.error = None
    assert steps.calls() == [("step", None)]
    assert BEGIN in steps.calls()


@pytest.mark.parametrize("end", [0, 901])
def test_an_error_while_recording_comes_through_and_ends_the_recording(fake, end):
    steps = Steps(fake)
    steps.calls()
    steps.error, fake.fail[END] = ValueError("the step's own"), end
    with pytest.raises(ValueError, match="the step's own"):
        steps.recorded()
    names = [name for name, _ in fake.calls]
    assert END in names
    assert ("cuGraphDestroy" in names) == (end == 0)
    assert "cuGraphLaunch" not in names
    assert not steps.recorded.recorder.recording
    steps.error, fake.fail[END] = None, 0
    assert steps.calls()[-1][0] == "cuGraphLaunch"  # the next call records


@pytest.mark.parametrize("function", [BEGIN[0], END, "cuGraphInstantiateWithFlags"])
def test_a_driver_that_cannot_record_costs_speed_and_one_warning(fake, function):
    steps = Steps(fake)
    steps.calls()
    fake.fail[function] = 801
    with pytest.warns(RuntimeWarning, match=rf"cannot be recorded \({function}: made to fail \(801\)\)") as told:
        calls = steps.calls()
    assert len(told) == 1
    assert calls[-1] == ("step", None)
    assert [name for name, _ in calls].count("step") == (1 if function == BEGIN[0] else 2)  # one of them did nothing
    assert ("cuGraphDestroy" in [name for name, _ in calls]) == (function == "cuGraphInstantiateWithFlags")
    assert steps.calls(3) == [("step", None)] * 3


def test_a_driver_too_old_for_graphs(monkeypatch, fake):
    steps = Steps(SimpleNamespace(calls=[], cuGetErrorString=fake.cuGetErrorString))
    steps.calls()
    with pytest.warns(RuntimeWarning, match="this driver has no cuStreamBeginCapture_v2"):
        steps.calls()


def test_a_graph_that_fails_says_why(fake):
    steps = Steps(fake)
    steps.calls(2)
    fake.fail["cuGraphLaunch"] = 700
    with pytest.raises(DriverError, match=r"cuGraphLaunch: made to fail \(700\)"):
        steps.recorded()


def test_on_the_host_a_recorded_step_is_the_step():
    for name in ("numpy", "numba"):
        step = Steps(FakeDriver()).step
        assert open_device(name).record(step) == step


# ------------------------------------------------------------------------------------------------ precision


def test_precision_is_a_choice_of_a_gpus_float32():
    for given, message in (
        ({"precision": "tf32"}, "precision='tf32' is for device='cuda' with dtype='float32', got device='numba'"),
        ({"precision": "tf32", "device": "cuda", "dtype": "float64"}, "got device='cuda', dtype='float64'"),
        ({"precision": "bf16", "device": "cuda"}, "precision='bf16' is not known; use one of 'fp32', 'tf32'"),
    ):
        with pytest.raises(ConfigError, match=message):
            zoo.build("vae", (3, 2, 1), 2, (4,), **given)
        with pytest.raises(ConfigError, match=message):
            configure(given)
    with pytest.raises(ConfigError, match="got device='numpy'"):
        kernels.load("numpy", precision="tf32")
    assert configure({"precision": "fp32"}).device == "numba"


def test_precision_is_kept_with_a_run():
    run = configure({"precision": "tf32", "device": "cuda"})
    plain = json.loads(json.dumps(run.to_json()))
    assert RunConfig.from_json(plain, zoo.from_plain) == run
    assert reconfigure(run, {"epochs": 3}, Path("run")).precision == "tf32"
    with pytest.raises(ConfigError, match="--precision fp32: the run in run was made with 'tf32'"):
        reconfigure(run, {"precision": "fp32"}, Path("run"))
    del plain["precision"]  # a run of an older version
    assert RunConfig.from_json(plain, zoo.from_plain).precision == "fp32"


def test_precision_on_the_command_line(tmp_path):
    done = tinyvae_command("train", "--precision", "tf32", "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "precision='tf32' is for device='cuda'" in done.stderr


def test_precision_chooses_other_functions_for_products_only(monkeypatch):
    from tinyvae.kernels import cuda

    others = {name: op for *_, file in cuda._FOUND for name, op in getattr(file, "TF32", {}).items()}
    assert cuda.COLUMN | others == cuda.TF32_COLUMN
    assert not [name for name, op in others.items() if op is cuda.COLUMN[name]]
    monkeypatch.setattr(cuda, "TF32_COLUMN", cuda.COLUMN | {"activate": len})
    for precision, op in (("tf32", len), ("fp32", cuda.COLUMN["activate"])):
        assert kernels.load("cuda", unchecked=True, precision=precision).activate.__wrapped__ is op


def test_a_model_binds_the_functions_of_its_precision(gpu, monkeypatch):
    needs(*ops_of("cuda"))
    model = zoo.build("vae", (3, 2, 1), 2, (4,), device="cuda", precision="tf32")
    assert model.precision == "tf32"
    twin = model.batch("train", 2).twins["encoder"].twins[1]
    assert twin.dense.__wrapped__ is kernels.TF32["dense"]


# ------------------------------------------------------------------------------------------------ arrays


def test_host_arrays_are_refused_without_a_gpu_too():
    x, y = np.ones(3, np.float32), np.empty(3, np.float32)
    with pytest.raises(KernelError, match=r"activate: argument x is not an array of the GPU; upload it once, with dev"):
        kernels.load("cuda").activate(x, RELU, y)
    with pytest.raises(DeviceError, match=r"argument x is an array of the host; upload it with device\.put"):
        kernels.load("cuda", unchecked=True).activate(x, RELU, y)


def test_arrays_of_the_gpu_are_checked_like_others(gpu):
    ops, x = kernels.load("cuda"), gpu.put(np.ones(6, np.float32))
    with pytest.raises(KernelError, match="activate: argument y must be float32, got float64"):
        ops.activate(x, RELU, gpu.empty(6, np.float64))
    with pytest.raises(KernelError, match="activate: y must be"):
        ops.activate(x, RELU, gpu.empty(5, np.float32))
    with pytest.raises(KernelError, match="activate: y overlaps x"):
        ops.activate(x[:4], RELU, x[2:])
    with pytest.raises(KernelError, match="activate: argument x is not contiguous"):
        ops.activate(x[::2], RELU, gpu.empty(3, np.float32))
    with pytest.raises(KernelError, match="activate: argument x is an array of the GPU; copy it to the host"):
        kernels.load("numpy").activate(x, RELU, np.empty(6, np.float32))
    ops.activate(x[:3], RELU, x[3:])  # neighbours do not overlap
    with pytest.raises(DeviceError, match="is on the GPU"):
        gpu.put(x, x)


def test_filling_on_the_gpu(gpu, monkeypatch):
    monkeypatch.setattr("tinyvae.device.gpu.PIECE", 4)
    for count in (0, 1, 3, 4, 5, 8, 21):
        for dtype, value in ((np.float32, -1.5), (np.float64, np.nan), (np.int64, 2**40)):
            array = gpu.put(np.zeros(count + 2, dtype))
            gpu.fill(array[1 : count + 1], value)
            want = np.zeros(count + 2, dtype)
            want[1:-1] = value
            np.testing.assert_array_equal(gpu.get(array), want)


def test_arrays_of_the_gpu_begin_on_256_bytes_and_do_not_touch(gpu):
    arrays = [gpu.empty(n, dtype) for n in (1, 3, 65, 1000) for dtype in (np.float32, np.float64, np.uint8)]
    places = [(device.address(a), a.nbytes) for a in arrays]
    assert all(start % 256 == 0 for start, _ in places)
    ordered = sorted(places)
    assert all(start + size <= after for (start, size), (after, _) in pairwise(ordered))
    assert open_device("cuda") is gpu, "one arena and one stream for a process"


# ------------------------------------------------------------------------------------------------ training

SHAPE = (4, 4, 1)


def needs(*names):
    lacking = [name for name in names if name not in kernels.COLUMNS["cuda"]]
    if lacking:
        pytest.skip(f"the cuda column lacks {', '.join(lacking)}")


class Replay:
    """Stands in for the Recorder where there is no driver: notes the launches of a step, and makes them again with the
    numbers and arrays of then. A copy while it records fails as it would there."""

    recording = False

    def record(self, step):
        from tinyvae.kernels.cuda.engine import compile as compiled

        launches = []
        compiled.on_launch, self.recording = lambda *launch: launches.append(launch), True
        try:
            step()
        finally:
            compiled.on_launch, self.recording = None, False
        assert launches
        return SimpleNamespace(launch=lambda: [compiled.launch(*launch[:3], *launch[3]) for launch in launches])


def small(name, seed=5):
    """A VAE with few launches, as the simulator takes a third of a second for a product."""
    encoder = Sequential(Flatten(), Dense(16, 4, "tanh"))
    return VAE(encoder, Sequential(Dense(2, 16), Reshape(*SHAPE)), 2, SHAPE, device=name, dtype="float64", seed=seed)


class Run:
    """A model in training. A learning rate and a KL weight that change, dynamic binarisation, ragged batches."""

    CONFIG = TrainConfig(
        epochs=10, batch_size=3, lr=0.01, schedule="cosine", beta=0.7, warmup=4, clip=5.0, binarize="dynamic"
    )

    def __init__(self, model):
        images = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8)
        self.model = model
        self.feed = Feed(self.model, images, "dynamic")
        self.step = Step(self.model, self.feed, self.CONFIG)

    def train(self, steps):
        """The metrics of each step."""
        rows = []
        for _ in range(steps):
            if self.step.done % self.step.per_epoch == 0:
                self.feed.shuffle(self.model.seed, self.step.epoch)
            rows.append(self.model.device.get(self.step.run().metrics))
        return np.array(rows)

    def arrays(self):
        """All that training changes."""
        model, (optimizer,) = self.model, self.step.optimizers
        every = [model.table.values, model.table.grads, optimizer.m, optimizer.v, model.clock.counters]
        return [model.device.get(a) for a in (*every, model.clock.rates, model.sums["train"])]


@pytest.fixture
def recording(gpu, monkeypatch):
    """A GPU that records; the simulated one with a stand-in."""
    needs(*ops_of("cuda"))
    if gpu.recorder is None:
        monkeypatch.setattr(gpu, "recorder", Replay())
    return gpu


def test_training_equals_that_of_numpy(gpu):
    needs(*ops_of("cuda"))
    there, here = (
        Run(zoo.build("vae", SHAPE, 2, (3,), device=name, dtype="float64", seed=5)) for name in ("cuda", "numpy")
    )
    np.testing.assert_allclose(there.train(3), here.train(3), rtol=1e-10)
    for got, want in zip(there.arrays(), here.arrays(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-13)
    figures = [
        evaluate_pass(run.model, Feed(run.model, np.full((3, *SHAPE), 100, np.uint8)), 2) for run in (there, here)
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-10)


def test_recorded_steps_equal_plain_ones(recording, monkeypatch):
    recorded, steps = Run(small("cuda")), 6 if device.SIMULATED else 20
    rows = recorded.train(steps)
    assert len(recorded.step.recorded) == 2
    assert all(r.graph is not None for r in recorded.step.recorded.values())
    monkeypatch.setattr(recording, "recorder", None)
    plain, rates = Run(small("cuda")), []
    for row in rows:
        assert plain.train(1).tobytes() == row.tobytes()
        rates.append(recording.get(plain.model.clock.rates))
    assert [a.tobytes() for a in plain.arrays()] == [a.tobytes() for a in recorded.arrays()]
    for which in (LR, -1):
        assert len({rate[which] for rate in rates}) > 4, "the learning rate and the KL weight change"


def test_a_checkpoint_is_loaded_while_recorded(recording, tmp_path):
    """The buffers stay where they are, so the recording goes on with what was loaded."""
    run = Run(small("cuda"))
    run.train(4)
    checkpoint.save(run.model, tmp_path / "four", run.step)
    rows = run.train(2)
    after = [a.tobytes() for a in run.arrays()]
    assert all(r.graph is not None for r in run.step.recorded.values())
    checkpoint.restore(tmp_path / "four", run.model, run.step)
    assert run.train(2).tobytes() == rows.tobytes()
    assert [a.tobytes() for a in run.arrays()] == after
    here = Run(small("numpy", seed=6))
    checkpoint.restore(tmp_path / "four", here.model, here.step)  # the file knows no device
    np.testing.assert_allclose(here.train(2), rows, rtol=1e-10)


def test_a_whole_run_on_the_gpu(recording, tmp_path):
    """Epochs, evaluation, checkpoints and resuming, as with any device; the look for NaN too."""
    images, rows = np.random.default_rng(1).integers(0, 256, (5, *SHAPE), np.uint8), {}
    for name in ("cuda", "numpy"):
        rows[name] = tinyvae.train(small(name), images, epochs=2, batch_size=2, check_finite=True, out=tmp_path / name)
    for got, want in zip(rows["cuda"], rows["numpy"], strict=True):
        for part in ("train", "test"):
            assert got[part] == pytest.approx(want[part], rel=1e-10)
    model = small("cuda", seed=6)
    more = tinyvae.train(model, images, epochs=3, batch_size=2, out=tmp_path / "cuda", resume=True)
    assert len(more) == 3
    assert model.sample(2, seed=0).shape == (2, *SHAPE)
    z_mean, z_log_sigma = model.encode(images[:3])
    assert np.isfinite(z_mean).all()
    assert np.isfinite(z_log_sigma).all()
