"""A step recorded once and replayed with one call: CUDA graphs, which Numba does not offer.
It knows a stream and what is launched on it, and nothing of what the step computes."""

from __future__ import annotations

import ctypes
import warnings
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from .driver import Driver, DriverError

Step = Callable[[], None]
THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE: what other threads do meanwhile is no concern of the recording


class Graph:
    """Launches as they were recorded, numbers and addresses included. The driver's part of it goes with this object."""

    def __init__(self, driver: Driver, stream: int, handle: int | None) -> None:
        self.driver, self.stream, self.handle = driver, ctypes.c_void_p(stream), ctypes.c_void_p(handle)
        weakref.finalize(self, _destroy, driver, "cuGraphExecDestroy", handle)

    def launch(self) -> None:
        """All of them again."""
        self.driver.call("cuGraphLaunch", self.handle, self.stream)


def _destroy(driver: Driver, function: str, handle: int | None) -> None:
    with suppress(DriverError):  # at the end of the process the driver may be gone before us
        driver.call(function, ctypes.c_void_p(handle))


class Recorder:
    """Records what is launched on one stream; the default stream cannot be recorded.

    defer_cleanup: a context in which memory that has become garbage is not given back, as a recording forbids that.
    """

    def __init__(self, driver: Driver, stream: int, defer_cleanup: Callable[[], AbstractContextManager[None]]) -> None:
        self.driver, self.stream, self.defer_cleanup = driver, stream, defer_cleanup
        self.recording = False

    def record(self, step: Step) -> Graph:
        """The launches of `step`, which does nothing meanwhile. Its own errors come through as they are; a DriverError
        says that the driver could not record."""
        with self.defer_cleanup():
            self.driver.call("cuStreamBeginCapture_v2", ctypes.c_void_p(self.stream), ctypes.c_int(THREAD_LOCAL))
            self.recording = True
            try:
                step()
            except BaseException:
                with suppress(DriverError):
                    _destroy(self.driver, "cuGraphDestroy", self._end())
                raise
            graph = self._end()
            try:
                handle = ctypes.c_void_p()
                self.driver.call(
                    "cuGraphInstantiateWithFlags", ctypes.byref(handle), ctypes.c_void_p(graph), ctypes.c_ulonglong(0)
                )
            finally:
                _destroy(self.driver, "cuGraphDestroy", graph)
        return Graph(self.driver, self.stream, handle.value)

    def _end(self) -> int | None:
        self.recording = False
        graph = ctypes.c_void_p()
        self.driver.call("cuStreamEndCapture", ctypes.c_void_p(self.stream), ctypes.byref(graph))
        return graph.value


class Recorded:
    """`step` with less overhead. The first call runs it, so that its kernels are compiled and loaded; the second
    records it, and from then on each call replays the recording. It holds `step`, and so the memory of that work."""

    def __init__(self, step: Step, recorder: Recorder) -> None:
        self.step, self.recorder = step, recorder
        self.ran, self.recordable = False, True
        self.graph: Graph | None = None

    def __call__(self) -> None:
        if self.ran and self.recordable and self.graph is None:
            self._record()
        if self.graph is not None:
            self.graph.launch()
        else:
            self.step()
            self.ran = True

    def _record(self) -> None:
        try:
            self.graph = self.recorder.record(self.step)
        except DriverError as error:
            self.recordable = False
            warnings.warn(
                f"the step cannot be recorded ({error}): its kernels are launched one by one, which is slower and "
                "changes no result; a newer driver may help",
                RuntimeWarning,
                stacklevel=3,
            )
