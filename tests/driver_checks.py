"""Numba's real arrays, launches and files over a driver in plain Python: what the simulator cannot show.
test_cuda_device.py runs these in a process of their own, since the driver stays in place."""

import gc
import warnings

import fake_driver
import numpy as np
import pytest

fake = fake_driver.install()

from tinyvae import kernels  # noqa: E402
from tinyvae.device import address, cuda, cuda_stream, gpu, open_device  # noqa: E402
from tinyvae.device.machine import look  # noqa: E402
from tinyvae.errors import DeviceError, KernelError  # noqa: E402
from tinyvae.kernels import RELU  # noqa: E402
from tinyvae.kernels.cuda.engine import compile as compiled  # noqa: E402
from tinyvae.kernels.cuda.engine.intrinsics import load4  # noqa: E402

device = open_device("cuda")
ops = kernels.load("cuda", unchecked=True)
needs_toolkit = pytest.mark.skipif(len(look().toolkit) < 3, reason="no CUDA toolkit to compile with")


@pytest.fixture(autouse=True)
def fresh():
    fake.fail.clear()
    fake.calls.clear()


def settle():
    """Gives back memory that nothing uses."""
    gc.collect()
    cuda.current_context().memory_manager.deallocations.clear()


def test_the_card_is_seen():
    (card,) = look().cards
    assert (card.name, card.capability, card.memory) == ("Fake GPU", (9, 0), 3 << 30)
    assert look().driver == (12, 8)


def test_copies_go_by_the_stream_and_are_waited_for():
    host = np.arange(12, dtype=np.float32).reshape(3, 4)
    array = device.put(host)
    assert fake.names()[-2:] == ["cuMemcpyHtoDAsync", "cuStreamSynchronize"]
    np.testing.assert_array_equal(device.get(array), host)
    assert fake.names() == ["cuMemcpyDtoHAsync", "cuStreamSynchronize"]
    device.put(host * 2, array)
    stream = int(cuda_stream())
    assert stream > 2, "streams 0, 1 and 2 are default streams"
    assert [noted for name, noted in fake.calls if name.startswith("cuMemcpy")] == [(48, stream)]


def test_views_of_views_reach_the_right_bytes():
    array = device.put(np.arange(24.0))
    block = array[4:16].reshape(3, 4)
    np.testing.assert_array_equal(device.get(block), np.arange(4.0, 16).reshape(3, 4))
    device.put(np.full(4, -1.0), block.reshape(-1)[4:8])
    want = np.arange(24.0)
    want[8:12] = -1
    np.testing.assert_array_equal(device.get(array), want)
    device.put(7, array[23:])  # as NumPy would: one number for all
    assert device.get(array)[23] == 7
    with pytest.raises(DeviceError, match="is on the GPU"):
        device.put(array, block)


@pytest.mark.parametrize("count", [1, 5, gpu.PIECE - 1, 3 * gpu.PIECE + 17])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_filling(count, dtype):
    array = device.put(np.zeros(count + 2, dtype))
    device.fill(array[1 : count + 1], 3)
    got = device.get(array)
    assert (got[1:-1] == 3).all()
    assert got[[0, -1]].tolist() == [0, 0]
    sizes = [noted[0] for name, noted in fake.calls if name == "cuMemcpyHtoDAsync"]
    assert max(sizes[1:]) <= gpu.PIECE * array.dtype.itemsize, "no host array as large as the buffer"


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (3, 0, 2)], ids=str)
def test_arrays_of_nothing(shape):
    array = device.empty(shape, np.float32)
    assert array.shape == shape
    assert array.is_c_contiguous()
    assert array.reshape(-1).shape == (0,)
    assert device.get(array).shape == shape
    device.fill(array, 1)
    device.put(np.zeros(shape), array)
    assert "cuMemAlloc" not in fake.names()


def test_the_arena_takes_blocks_and_lends_aligned_views():
    arena = gpu.Arena()
    views = [arena.take(size) for size in (1, 255, 256, 257, 1 << 20)]
    places = [address(view) for view in views]
    assert all(place % gpu.ALIGNMENT == 0 for place in places)
    assert places == sorted(places)
    assert all(a + view.size <= b for a, b, view in zip(places, places[1:], views, strict=False))
    assert fake.names() == ["cuMemAlloc"]
    large = arena.take(gpu.LARGE + 1)
    assert ("cuMemAlloc", gpu.LARGE + 1 + gpu.ALIGNMENT) in fake.calls
    assert large.size == gpu.LARGE + 1
    assert address(arena.take(1)) == places[-1] + (1 << 20)  # the block goes on where it was


def test_a_block_goes_back_with_its_last_view():
    settle()
    before, arena = len(fake.memory), gpu.Arena()
    first = arena.take(gpu.LARGE)
    kept = arena.take(8)
    for _ in range(5):
        arena.take(gpu.LARGE)
    settle()
    assert len(fake.memory) == before + 2
    del first
    settle()
    assert len(fake.memory) == before + 2
    del kept
    settle()
    assert len(fake.memory) == before + 1
    del arena
    settle()
    assert len(fake.memory) == before


def test_no_room_is_one_sentence():
    fake.fail["cuMemAlloc"] = fake_driver.OUT_OF_MEMORY
    with pytest.raises(DeviceError, match=r"no room for 64 MiB \(1,024 of 3,072 MiB are free\); try a smaller --batch"):
        device.empty(8 << 20, np.float64)
    fake.fail["cuMemAlloc"] = 999
    with pytest.raises(Exception, match="CUDA_ERROR_UNKNOWN"):
        device.empty(8 << 20, np.float64)


def test_memory_in_circles_is_given_back_before_giving_up():
    class Model:
        pass

    model = Model()
    model.itself, model.array = model, device.empty(gpu.LARGE + 1, np.uint8)
    settle()
    lent = len(fake.memory)
    del model

    def allocate(out, size):
        if len(fake.memory) >= lent:
            raise cuda.cudadrv.driver.CudaAPIError(2, "CUDA_ERROR_OUT_OF_MEMORY")
        return type(fake).do_cuMemAlloc(fake, out, size)

    gc.disable()
    fake.do_cuMemAlloc = allocate
    try:
        assert device.empty(gpu.LARGE + 1, np.uint8).size == gpu.LARGE + 1
    finally:
        del fake.do_cuMemAlloc
        gc.enable()


def test_too_many_elements():
    with pytest.raises(DeviceError, match=r"\(65536, 32768\) has 2,147,483,648 elements"):
        device.empty((1 << 16, 1 << 15), np.uint8)


# ------------------------------------------------------------------------------------------------ launches


def activate(x, y):
    ops.activate(x, RELU, y)


@needs_toolkit
def test_a_launch():
    x, y = device.put(np.ones((30, 10), np.float32)), device.empty((30, 10), np.float32)
    activate(x, y)
    launched = [noted for name, noted in fake.calls if name == "cuLaunchKernel"]
    assert [stream for *_, stream in launched] == [int(cuda_stream())]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a small grid is no reason for one
        activate(x, y)
    assert not {"cuMemAlloc", "cuMemcpyHtoDAsync", "cuStreamSynchronize"} & set(fake.names()[-3:])
    nothing = device.empty((30, 0), np.float32)
    fake.calls.clear()
    activate(nothing, nothing)
    assert "cuLaunchKernel" not in fake.names()


@needs_toolkit
def test_scalars_travel_as_they_are_documented():
    def probe(x, n, a, b):
        if n > 0:
            x[0] = a + b

    kernel = compiled.Kernel(probe)
    compiled.launch(kernel, 1, 1, device.empty((2, 3), np.float32), 6, 1.5, np.float32(2))
    (seen,) = kernel.dispatcher.overloads
    assert [str(t) for t in seen[1:]] == ["uint32", "float64", "float32"]
    assert (seen[0].ndim, seen[0].layout) == (1, "C")


def test_host_arrays_are_refused():
    there, host = device.empty(3, np.float32), np.zeros(3, np.float32)
    with pytest.raises(DeviceError, match=r"argument x is an array of the host; upload it with device\.put"):
        activate(host, there)
    with pytest.raises(KernelError, match="activate: argument y is not an array of the GPU; upload it once"):
        kernels.load("cuda").activate(there, RELU, host)
    with pytest.raises(KernelError, match="activate: argument x is an array of the GPU; copy it to the host"):
        kernels.load("numpy").activate(there, RELU, host)
    whole = device.empty(6, np.float32)
    with pytest.raises(KernelError, match="activate: y overlaps x"):
        kernels.load("cuda").activate(whole[:4], RELU, whole[2:])
    kernels.OPS["activate"].check((whole[:3], RELU, whole[3:]), on_gpu=True)  # neighbours do not overlap
    assert not [name for name, _ in fake.calls if name.startswith("cuMemcpy")]


@needs_toolkit
def test_a_driver_that_is_older_than_the_toolkit():
    def probe(x):
        x[0] = 1

    fake.fail["cuLinkAddData"] = fake_driver.UNSUPPORTED_PTX
    with pytest.raises(DeviceError, match=r"the driver \(for CUDA 12\.8\) cannot load what the toolkit .* update"):
        compiled.launch(compiled.Kernel(probe), 1, 1, device.empty(1, np.float32))


# ------------------------------------------------------------------------------------------------ recording


@needs_toolkit
def test_a_step_is_recorded_once_and_replayed():
    x, y = device.put(np.ones(300, np.float32)), device.empty(300, np.float32)

    def step():
        activate(x, y)
        activate(y, x)

    activate(x, y)
    fake.calls.clear()
    recorded = device.record(step)
    recorded()
    assert fake.names() == ["cuLaunchKernel", "cuLaunchKernel"]
    recorded()
    begin, end = "cuStreamBeginCapture_v2", "cuStreamEndCapture"
    made = ["cuGraphInstantiateWithFlags", "cuGraphDestroy", "cuGraphLaunch"]
    assert fake.names() == [begin, "cuLaunchKernel", "cuLaunchKernel", end, *made]
    recorded()
    recorded()
    assert fake.names() == ["cuGraphLaunch", "cuGraphLaunch"]
    del recorded
    gc.collect()
    assert fake.names() == ["cuGraphExecDestroy"]


@needs_toolkit
def test_garbage_waits_for_the_end_of_a_recording():
    x = device.put(np.ones(300, np.float32))
    garbage = []

    def step():
        activate(x, x)
        garbage.clear()
        gc.collect()

    recorded = device.record(step)
    recorded()
    settle()
    garbage += [cuda.device_array(10) for _ in range(30)]  # more than Numba lets wait, as a rule
    fake.calls.clear()
    recorded()
    settle()
    assert [noted for name, noted in fake.calls if name == "cuMemFree"] == [None] * 30


@pytest.mark.parametrize("what", ["get", "put", "fill", "empty", "sync"])
def test_what_a_recorded_step_must_not_do(what):
    x = device.put(np.ones(3, np.float32))
    do = {
        "get": lambda: device.get(x), "put": lambda: device.put(np.zeros(3, np.float32), x), "sync": device.sync,
        "fill": lambda: device.fill(x, 0), "empty": lambda: device.empty(3, np.float32),
    }[what]  # fmt: skip
    recorded = device.record(do)
    recorded()
    with pytest.raises(DeviceError, match=f"device.{what} inside a recorded step"):
        recorded()
    assert "cuStreamEndCapture" in fake.names()
    do()  # the device is as before


# ------------------------------------------------------------------------------------------------ the disk


@needs_toolkit
def test_machine_code_is_kept_and_a_broken_file_forgiven(monkeypatch, tmp_path):
    compiles = []
    monkeypatch.setattr(compiled, "CACHE", tmp_path)
    monkeypatch.setattr(compiled, "on_compile", lambda: compiles.append(1))
    x = device.empty(3, np.float32)

    def run(value=2.0):
        """Compiles, or finds, a kernel that a function made."""
        load4._Intrinsic__uuid = None  # as in a new process: Numba draws a number for it
        fake.calls.clear()
        compiled.launch(made_kernel(value), 1, 1, x)
        return len(compiles), "cuLinkAddData" in fake.names()

    assert run() == (1, True)
    assert not list(tmp_path.glob("*.nb?"))
    assert not compiled.cache.is_cold(tmp_path)
    assert run() == (1, False)
    for path in tmp_path.rglob("*.nbc"):
        path.write_bytes(path.read_bytes()[:40])
    assert run() == (2, True)
    assert run() == (2, False)
    assert run(3.0) == (3, True)
    assert run(3.0) == run(2.0) == (3, False)
    monkeypatch.setattr(compiled, "CACHE", None)
    assert run() == (4, True)


def made_kernel(value):
    """The same lines at every value, with an intrinsic by way of a function."""
    load = load4

    @compiled.device_function
    def first(x):
        return load(x, 0)[0]

    def times(x):
        x[0] = first(x) * value

    return compiled.Kernel(times)


@needs_toolkit
def test_a_full_disk_costs_time_only(monkeypatch, tmp_path):
    from numba.core.caching import IndexDataCacheFile

    def full(self, key, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiled, "CACHE", tmp_path)
    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    compiled.launch(made_kernel(3.0), 1, 1, device.empty(3, np.float32))
    assert "cuLaunchKernel" in fake.names()
