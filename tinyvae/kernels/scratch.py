"""Lengths: of a convolution's output, and of the workspace that ops with a `work` argument need.

The workspace of a convolution includes padding for its alignment to a vector; a device's column fills it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TASKS = 16  # the most tasks that a batch is split into; fixed, so that bits do not depend on the number of threads
WIDEST = 32  # numbers in a row of the widest register tile of any machine
NARROW = 16  # channels below which an image's gradient is computed by scattering windows
TALLEST = 14  # rows of the tallest register tile of any machine
SUMMED, NORM_SUMS = 2048, 2048  # gradients in a sum of their norm at least; such sums at most
BLOCKS = 264  # that keep a GPU busy: two to each multiprocessor of a large one
SHALLOW = 256  # terms that a partial sum has at least


def round_up(count: int) -> int:
    """`count` rounded up to whole rows of the widest tile."""
    return -(-count // WIDEST) * WIDEST


def padded_size(rows: int, columns: int, channels: int) -> int:
    """Numbers that a padded image takes, followed by a row of a tile that may be overwritten."""
    return round_up(rows * columns * channels) + WIDEST


def output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """The length of a convolution's output along one axis: (size + 2·padding − kernel) // stride + 1."""
    return (size + 2 * padding - kernel) // stride + 1


def phase_rows(size: int, out: int, kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """Rows of zeros before the gradient, and rows in all, so that every pixel of the image finds its windows.

    Pixel h of the image contributes to row oh of the output where h + padding = stride·oh + u, 0 ≤ u < kernel.
    """
    before = -(-kernel // stride) - 1
    last = (size - 1 + padding) // stride
    return before, before + max(out, last + 1)


def depth_parts(M: int, N: int, K: int) -> int:
    """How many partial sums a deep product of few results is made of on a GPU, so that its tiles are enough blocks."""
    return max(1, min(K // SHALLOW, BLOCKS // max(1, -(-M // 64) * -(-N // 64))))


def depth_parts_workspace(M: int, N: int, K: int) -> int:
    """The partial sums of a product, and those of a bias's gradient behind each."""
    parts = depth_parts(M, N, K)
    return parts * (M + 1) * N if parts > 1 else 0


def line_parts(R: int, N: int) -> int:
    """How many partial sums a sum over R lines of N numbers is made of on a GPU."""
    return max(1, min(R // SHALLOW, BLOCKS // max(1, -(-N // 32))))


def line_parts_workspace(d: Mapping[str, Any]) -> int:
    """bias_grad: the partial sums."""
    parts = line_parts(d["R"], d["N"])
    return parts * d["N"] if parts > 1 else 0


def transposed_x_workspace(d: Mapping[str, Any]) -> int:
    """dense_grad_w: on a CPU the transposed x, on a GPU partial sums."""
    return max(d["K"] * round_up(d["B"]), depth_parts_workspace(d["K"], d["N"], d["B"]))


def transposed_weight_workspace(d: Mapping[str, Any]) -> int:
    """dense_grad_x: the transposed weight."""
    return d["N"] * d["K"]


def partial_sums(pixels: int) -> int:
    """How many partial sums a convolution's weight gradient is made of: from the shapes, never from the threads."""
    return max(1, min(TASKS, pixels // 512))


def images_together(image: int) -> int:
    """Padded images, of `image` numbers each, whose windows are summed at a time: what fits a second-level cache."""
    return max(1, min(8, 65_536 // image))


def forward_workspace(d: Mapping[str, Any]) -> int:
    """conv2d: the packed weight, and a padded image for each task."""
    (ph, pw), taps = d["padding"], d["KH"] * d["KW"] * d["C"]
    return WIDEST + taps * round_up(d["F"]) + TASKS * padded_size(d["H"] + 2 * ph, d["W"] + 2 * pw, d["C"])


def image_grad_workspace(d: Mapping[str, Any]) -> int:
    """conv2d_grad_x: the packed weight; for each task a padded gradient, or, for narrow images, a padded image and a
    patch of windows."""
    (ph, pw), (sh, sw) = d["padding"], d["stride"]
    if d["C"] < NARROW:
        taps = round_up(d["KH"] * d["KW"] * d["C"])
        image = padded_size(d["H"] + 2 * ph, d["W"] + 2 * pw, d["C"])
        return WIDEST + d["F"] * taps + TASKS * (image + TALLEST * taps)
    rows = phase_rows(d["H"], d["OH"], d["KH"], sh, ph)[1]
    columns = phase_rows(d["W"], d["OW"], d["KW"], sw, pw)[1]
    return WIDEST + d["KH"] * d["KW"] * d["F"] * round_up(d["C"]) + TASKS * padded_size(rows, columns, d["F"])


def weight_grad_workspace(d: Mapping[str, Any]) -> int:
    """conv2d_grad_w: on a CPU, for each task a sum and some padded images; on a GPU partial sums."""
    (ph, pw), taps = d["padding"], d["KH"] * d["KW"] * d["C"]
    tasks, image = partial_sums(d["B"] * d["OH"] * d["OW"]), padded_size(d["H"] + 2 * ph, d["W"] + 2 * pw, d["C"])
    on_a_gpu = depth_parts_workspace(taps, d["F"], d["B"] * d["OH"] * d["OW"])
    return max(WIDEST + tasks * (round_up(taps * d["F"]) + images_together(image) * image), on_a_gpu)


def norm_sums(gradients: int) -> int:
    """How many partial sums a gradient's norm is made of, on a device that keeps them in memory."""
    return max(1, min(NORM_SUMS, gradients // SUMMED))


def norm_workspace(d: Mapping[str, Any]) -> int:
    """grad_norm: the sums in float64, each as long as two float32, and one to begin on a boundary of float64."""
    return 2 * norm_sums(d["n"]) + 1
