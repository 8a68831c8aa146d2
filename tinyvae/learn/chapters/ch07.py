"""Chapter 07, convolution and its transpose: the output's size, one channel's convolution, and its two gradients.
It knows the arithmetic, its typical mistakes and its hints; the text is in tutorials/."""

from __future__ import annotations

import numpy as np

from ..exercise import Chapter, Exercise, Mistake

GEOMETRY = (((5, 7), (2, 3), 1, 0), ((7, 5), (3, 2), 2, 1), ((9, 11), (4, 3), 3, 2))  # image, kernel, stride, padding


def output_size(size, kernel, stride, padding):
    """How many places a window of `kernel` pixels has along a side of `size` pixels with `padding` zeros at each end.

    All four are whole numbers; the window moves by `stride`. Returns a whole number.
    """
    return (size + 2 * padding - kernel) // stride + 1


def conv(x, w, stride, padding):
    """y[i, j] = Σ_{u, v} x[i·stride + u − padding, j·stride + v − padding] · w[u, v], x taken as 0 outside.

    x: (H, W). w: (KH, KW). stride, padding: whole numbers, the same for both sides. Returns y (OH, OW).
    """
    KH, KW = w.shape
    padded = np.pad(x, padding)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (KH, KW))[::stride, ::stride]
    return np.einsum("ijuv,uv->ij", windows, w)


def conv_grad_w(grad_y, x, w, stride, padding):
    """The gradient of Σ grad_y · conv(x, w, stride, padding) with respect to w.

    grad_y: (OH, OW). x: (H, W). w: (KH, KW), of which only the shape matters. Returns (KH, KW).
    """
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, padding), w.shape)[::stride, ::stride]
    return np.einsum("ijuv,ij->uv", windows, grad_y)


def conv_grad_x(grad_y, x, w, stride, padding):
    """The gradient of Σ grad_y · conv(x, w, stride, padding) with respect to x: the transposed convolution of grad_y.

    grad_y: (OH, OW). x: (H, W), of which only the shape matters. w: (KH, KW). Returns (H, W).
    """
    (H, W), (KH, KW) = x.shape, w.shape
    padded = np.zeros((H + 2 * padding, W + 2 * padding))
    for i, j in np.ndindex(grad_y.shape):
        padded[i * stride : i * stride + KH, j * stride : j * stride + KW] += grad_y[i, j] * w
    return padded[padding : padding + H, padding : padding + W]


def _arrays(rng: np.random.Generator, case: int) -> tuple:
    image, kernel, stride, padding = GEOMETRY[case]
    return rng.standard_normal(image), rng.standard_normal(kernel), stride, padding


def _with_grad(rng: np.random.Generator, case: int) -> tuple:
    x, w, stride, padding = _arrays(rng, case)
    return rng.standard_normal(conv(x, w, stride, padding).shape), x, w, stride, padding


def _conv(x, w, stride, padding):
    return conv(x, w, int(stride), int(padding))


def _flipped(w):
    return w[::-1, ::-1]


def _overwritten(g, x, w, s, p):
    (H, W), (KH, KW) = x.shape, w.shape
    padded = np.zeros((H + 2 * p, W + 2 * p))
    for i, j in np.ndindex(g.shape):
        padded[i * s : i * s + KH, j * s : j * s + KW] = g[i, j] * w
    return padded[p : p + H, p : p + W]


def _cut(a, shape):
    out = np.zeros(shape)
    H, W = min(shape[0], a.shape[0]), min(shape[1], a.shape[1])
    out[:H, :W] = a[:H, :W]
    return out


SIZES = ((28, 4, 2, 1), (7, 3, 1, 0), (10, 3, 3, 2))

CHAPTER = Chapter(
    "07",
    "Convolution and its transpose",
    "07_convolution_and_its_transpose.md",
    (
        Exercise(
            output_size,
            lambda rng, case: SIZES[case],
            (
                Mistake("one place too few: the + 1 for the first one is missing",
                        lambda n, k, s, p: (n + 2 * p - k) // s),
                Mistake("the size with the padding at one end only", lambda n, k, s, p: (n + p - k) // s + 1),
                Mistake("the size without the padding", lambda n, k, s, p: (n - k) // s + 1),
                Mistake("size / stride, whatever the window", lambda n, k, s, p: n // s),
                Mistake("the size for a stride of 1", lambda n, k, s, p: n + 2 * p - k + 1),
                Mistake("the size rounded up: a window that does not fit has no place",
                        lambda n, k, s, p: -(-(n + 2 * p - k) // s) + 1),
            ),
            (
                "Where can the window's first pixel stand? At 0, stride, 2 stride, … as long as the window fits.",
                "The side is size + 2 padding long; the last place is at most that minus the kernel.",
                "The number of strides that fit, // stride, plus one for the place at 0.",
            ),
        ),
        Exercise(
            conv,
            _arrays,
            (
                Mistake("the convolution with the kernel turned round, as mathematics has it and networks do not",
                        lambda x, w, s, p: conv(x, _flipped(w), s, p)),
                Mistake("the mean over the window where the sum belongs", lambda x, w, s, p: conv(x, w, s, p) / w.size),
                Mistake("the window's sum, without the weights", lambda x, w, s, p: conv(x, np.ones_like(w), s, p)),
                Mistake("the convolution padded with the border's pixels instead of zeros",
                        lambda x, w, s, p: conv(np.pad(x, p, mode="edge"), w, s, 0)),
                Mistake("a convolution that takes the window's first row only",
                        lambda x, w, s, p: conv(x, np.vstack([w[:1], np.zeros_like(w[1:])]), s, p)),
                Mistake("the convolution with its sign turned", lambda x, w, s, p: -conv(x, w, s, p)),
            ),
            (
                "np.pad(x, padding) lays the frame of zeros; then no window needs a question about borders.",
                "Loop over i and j; the window is padded[i·stride : i·stride + KH, j·stride : j·stride + KW].",
                "Its product with w, summed, is y[i, j].",
            ),
        ),
        Exercise(
            conv_grad_w,
            _with_grad,
            (
                Mistake("the gradient turned round", lambda g, x, w, s, p: _flipped(conv_grad_w(g, x, w, s, p))),
                Mistake("the mean over the windows where the sum belongs",
                        lambda g, x, w, s, p: conv_grad_w(g, x, w, s, p) / g.size),
                Mistake("the sum of the windows, without grad_y",
                        lambda g, x, w, s, p: conv_grad_w(np.ones_like(g), x, w, s, p)),
                Mistake("the gradient times w: w itself does not occur in it",
                        lambda g, x, w, s, p: w * conv_grad_w(g, x, w, s, p)),
                Mistake("the gradient of the first window only",
                        lambda g, x, w, s, p: g[0, 0] * np.pad(x, p)[: w.shape[0], : w.shape[1]]),
                Mistake("the gradient with its sign turned", lambda g, x, w, s, p: -conv_grad_w(g, x, w, s, p)),
            ),
            (
                "w[u, v] occurs in every y[i, j]. With which number of the padded x?",
                "With padded[i·stride + u, j·stride + v]. So each window is added, weighted.",
                "grad_w = Σ over i, j of grad_y[i, j] times the window at (i, j).",
            ),
            forward=_conv,
            wrt=("w",),
        ),
        Exercise(
            conv_grad_x,
            _with_grad,
            (
                Mistake("patches that overwrite one another: = where += belongs", _overwritten),
                Mistake("the gradient with the window turned round",
                        lambda g, x, w, s, p: conv_grad_x(g, x, _flipped(w), s, p)),
                Mistake("the padded gradient's corner: the frame is cut off at the wrong side",
                        lambda g, x, w, s, p: _cut(conv_grad_x(g, np.pad(x, p), w, s, 0), x.shape)),
                Mistake("patches of w that all count the same: grad_y is left out",
                        lambda g, x, w, s, p: conv_grad_x(np.ones_like(g), x, w, s, p)),
                Mistake("the gradient divided by the window's size",
                        lambda g, x, w, s, p: conv_grad_x(g, x, w, s, p) / w.size),
                Mistake("the gradient with its sign turned", lambda g, x, w, s, p: -conv_grad_x(g, x, w, s, p)),
            ),
            (
                "Begin with an image of zeros that has the frame already.",
                "Each grad_y[i, j] adds a copy of w, times itself, where its window stood.",
                "Use +=, since windows overlap; at the end cut off the frame, padding pixels at each side.",
            ),
            forward=_conv,
            wrt=("x",),
        ),
    ),
)  # fmt: skip
