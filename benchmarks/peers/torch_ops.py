"""Products and convolutions by PyTorch, each gradient alone, in either layout of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tinyvae.bench.cases import Case
from tinyvae.bench.job import Job, Variant
from tinyvae.bench.jobs import named

from .burst import burst, burst_of

IMAGES = {"x", "grad_y", "y", "grad_x"}


def torch_job(case: Case, dtype: str, threads: int, variant: Variant) -> Job:
    """The case by PyTorch."""
    torch.set_num_threads(threads)
    host = named(case, case.arguments(np.dtype(dtype).type))
    place = "cuda" if variant.cuda else "cpu"
    convolution = case.group == "convs"
    made = _convolution(case, host, variant.channels_last, place) if convolution else _product(case, host, place)
    if not variant.cuda:
        return made
    from . import torch_cuda

    torch_cuda.set_precision(variant.tf32)
    return burst(made, burst_of(case), torch_cuda.wait, torch_cuda.Recorded)


def _product(case: Case, host: dict[str, Any], place: str) -> Job:
    """A dense layer's product into arrays made beforehand."""
    a: Any = {k: torch.tensor(v, device=place) for k, v in host.items() if isinstance(v, np.ndarray) and v.size}
    calls: dict[str, tuple[str, Callable[[], Any]]] = {
        "dense": ("y", lambda: torch.addmm(a["b"], a["x"], a["w"], out=a["y"])),
        "dense_grad_x": ("grad_x", lambda: torch.mm(a["grad_y"], a["w"].t(), out=a["grad_x"])),
        "dense_grad_w": ("grad_w", lambda: torch.mm(a["x"].t(), a["grad_y"], out=a["grad_w"])),
    }
    output, run = calls[case.op]
    return Job(run, lambda: {output: a[output].cpu().numpy().copy()})


def _convolution(case: Case, host: dict[str, Any], channels_last: bool, place: str) -> Job:
    """A convolution, or a transposed one, or one gradient of either; PyTorch makes its outputs anew in each call."""
    memory = torch.channels_last if channels_last else torch.contiguous_format

    def image(name: str) -> Any:
        return torch.tensor(host[name], device=place).permute(0, 3, 1, 2).contiguous(memory_format=memory)

    weight = host["w"] if "w" in host else np.zeros_like(host["grad_w"])  # values do not enter its own gradient
    w = torch.tensor(weight, device=place).permute(3, 2, 0, 1).contiguous(memory_format=memory)
    stride, padding = host["stride"], host["padding"]
    made: list[Any] = []
    if case.use == "forward":
        x, b = image("grad_y" if case.transposed else "x"), torch.tensor(host["b"], device=place)
        convolve: Any = F.conv_transpose2d if case.transposed else F.conv2d

        def forward() -> None:
            made[:] = [convolve(x, w, b, stride=stride, padding=padding)]

        return Job(forward, lambda: {"grad_x" if case.transposed else "y": _channels_last(made[0])})
    larger = [case.lengths[k] for k in ("B", "C", "H", "W")]
    smaller = [case.lengths[k] for k in ("B", "F", "OH", "OW")]
    to_x = case.use == "grad_x"
    # an operand whose values do not enter stands there with its shape
    shape_x = smaller if case.transposed else larger
    name_x, name_grad = ("grad_y", "x") if case.transposed else ("x", "grad_y")
    zeros = torch.zeros(shape_x, dtype=w.dtype, device=place)
    x = zeros.contiguous(memory_format=memory) if to_x else image(name_x)
    grad = image(name_grad)

    def backward() -> None:
        made[:] = torch.ops.aten.convolution_backward(
            grad, x, w, None, stride, padding, (1, 1), case.transposed, (0, 0), 1, [to_x, not to_x, False]
        )

    if to_x:
        return Job(backward, lambda: {"y" if case.transposed else "grad_x": _channels_last(made[0])})
    return Job(backward, lambda: {"grad_w": made[1].permute(2, 3, 1, 0).contiguous().cpu().numpy().copy()})


def _channels_last(image: Any) -> np.ndarray:
    return image.permute(0, 2, 3, 1).contiguous().cpu().numpy().copy()
