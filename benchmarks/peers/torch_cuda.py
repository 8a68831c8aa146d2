"""What PyTorch is asked for on a GPU: a precision, to wait, and calls captured as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

WARM = 3  # calls before a capture: libraries choose their kernels, the optimiser makes its state


def set_precision(tf32: bool) -> None:
    """TF32 on or off, for products and convolutions alike; cuDNN tries its kernels and keeps the fastest."""
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True


def wait() -> None:
    """Until the GPU has done all that it was given."""
    torch.cuda.synchronize()


class Recorded:
    """`call` as one CUDA graph: the first time it is warmed up and captured, then and later replayed.

    What it makes stands at the same addresses each time.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.graph: Any = None

    def __call__(self) -> None:
        if self.graph is None:
            self.graph = self._capture()
        self.graph.replay()

    def _capture(self) -> Any:
        aside, here = torch.cuda.Stream(), torch.cuda.current_stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):  # PyTorch wants the warm-up beside the stream that is captured
            for _ in range(WARM):
                self.call()
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.call()
        return graph
