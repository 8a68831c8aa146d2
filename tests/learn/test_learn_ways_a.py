"""Right answers to the exercises of chapters 01 to 05, 08 and 09, each written in three other ways: all must pass.
It knows answers as learners write them, and what the grader says to answers that are nearly right."""

import itertools

import numba
import numpy as np
import pytest

from tinyvae.learn import chapter_of, grade

HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)

# ------------------------------------------------------------------------------------------------ chapter 1


def sigmoid_by_masks(a):
    out, low = np.empty_like(a), a < 0
    out[~low] = 1 / (1 + np.exp(-a[~low]))
    out[low] = np.exp(a[low]) / (1 + np.exp(a[low]))
    return out


def cross_entropy_by_loops(logits, x):
    total = 0.0
    for a, target in zip(logits.ravel(), x.ravel(), strict=True):
        total += max(a, 0) - a * target + np.log1p(np.exp(-abs(a)))
    return total / logits.shape[0]


def cross_entropy_grad_by_rows(grad_y, logits, x):
    rows = []
    for a, target in zip(logits, x, strict=True):
        rows.append(float(grad_y) * (sigmoid_by_masks(a) - target) / len(logits))
    return rows


# ------------------------------------------------------------------------------------------------ chapter 2


def numerical_gradient_in_place(f, x, h):
    grad = np.empty_like(x)
    for i in range(x.size):
        kept = x.flat[i]
        x.flat[i] = kept + h
        above = f(x)
        x.flat[i] = kept - h
        grad.flat[i] = (above - f(x)) / (2 * h)
        x.flat[i] = kept
    return grad


def numerical_gradient_by_one_hot(f, x, h):
    steps = h * np.eye(x.size).reshape(-1, *x.shape)
    return np.array([(f(x + s) - f(x - s)) / (2 * h) for s in steps]).reshape(x.shape)


def numerical_gradient_by_nditer(f, x, h):
    grad, moved = np.zeros_like(x), x.copy()
    walk = np.nditer(x, flags=["multi_index"])
    for value in walk:
        i = walk.multi_index
        moved[i] = value + h
        grad[i] = f(moved)
        moved[i] = value - h
        grad[i] = (grad[i] - f(moved)) / (2 * h)
        moved[i] = value
    return grad


def product_backward_by_loops(grad_y, x, w):
    grad_x, grad_w = np.zeros(x.shape), np.zeros(w.shape)
    for b, k, n in np.ndindex(len(x), *w.shape):
        grad_x[b, k] += grad_y[b, n] * w[k, n]
        grad_w[k, n] += grad_y[b, n] * x[b, k]
    return grad_x, grad_w


# ------------------------------------------------------------------------------------------------ chapter 3


def leaky_backward_by_loops(grad_y, y):
    grad = grad_y.tolist()
    for b, n in np.ndindex(y.shape):
        if y[b, n] <= 0:
            grad[b][n] /= 5
    return grad


def dense_by_loops(x, w, b):
    y = []
    for row in x:
        sums = [sum(row[k] * w[k, n] for k in range(len(row))) + b[n] for n in range(len(b))]
        y.append([s if s > 0 else 0.0 for s in sums])
    return y


def dense_backward_by_mask(grad_y, x, w, b):
    g = grad_y.copy()
    g[np.maximum(x @ w + b, 0) == 0] = 0
    return [np.dot(g, w.T), np.dot(x.T, g), np.ones(len(x)) @ g]


def dense_backward_by_images(grad_y, x, w, b):
    grad_x, grad_w, grad_b = np.zeros_like(x), np.zeros_like(w), np.zeros_like(b)
    for i in range(len(x)):
        g = np.where(x[i] @ w + b > 0, grad_y[i], 0)
        grad_x[i] = w @ g
        grad_w += np.outer(x[i], g)
        grad_b += g
    return grad_x, grad_w, grad_b


def dense_backward_by_einsum(grad_y, x, w, b):
    g = np.sign(np.maximum(x @ w + b, 0)) * grad_y
    return np.einsum("bn,kn->bk", g, w), np.einsum("bk,bn->kn", x, g), np.einsum("bn->n", g)


# ------------------------------------------------------------------------------------------------ chapter 4


def kl_grad_by_loops(grad_y, z_mean, z_log_sigma):
    both = np.zeros((2, *z_mean.shape))
    for b, i in np.ndindex(z_mean.shape):
        sigma = np.exp(z_log_sigma[b, i])
        both[:, b, i] = grad_y[b] * z_mean[b, i], grad_y[b] * (sigma * sigma - 1)
    return list(both)


# ------------------------------------------------------------------------------------------------ chapter 5


def gaussian_nll_by_densities(mean, x, sigma):
    density = np.exp(-0.5 * ((x - mean) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    return [-np.log(row).sum() for row in density]


def best_sigma_by_newton(x, mean):
    squares = float(((x - mean) ** 2).sum())
    sigma = 1.0
    for _ in range(50):
        sigma = 0.5 * (sigma + squares / x.size / sigma)  # Heron's rule for the root
    return sigma


# ------------------------------------------------------------------------------------------------ chapter 8


def blocked_by_matmul(a, b, c, depth):
    c[...] = 0
    for start in range(0, len(b), depth):
        c += a[:, start : start + depth] @ b[start : start + depth]
    return c  # nobody asked for it, nobody minds


def blocked_last_block_first(a, b, c, depth):
    starts = list(range(0, len(b), depth))
    total = np.zeros(c.shape, np.float32)
    while starts:
        k = starts.pop()
        total = total + np.einsum("ik,kj->ij", a[:, k : k + depth], b[k : k + depth])
    np.copyto(c, total)


@numba.njit
def blocked_compiled(a, b, c, depth):
    c[:] = 0
    for k0 in range(0, a.shape[1], depth):
        for i in range(a.shape[0]):
            for k in range(k0, min(k0 + depth, a.shape[1])):
                for j in range(b.shape[1]):
                    c[i, j] += a[i, k] * b[k, j]


def pack_panel_by_questions(b, j, columns):
    rows = []
    for row in b:
        rows.append([row[j + q] if j + q < len(row) else 0 for q in range(columns)])
    return rows


def pack_panel_by_slices(b, j, columns):
    panel = np.zeros((len(b), columns), np.float32)  # as the chapter's tile wants it
    panel[:, : b.shape[1] - j] = b[:, j : j + columns]
    return panel


def micro_kernel_in_place(a_panel, b_panel, c):
    for k in range(len(a_panel)):
        for i in range(c.shape[0]):
            c[i] += a_panel[k, i] * b_panel[k]


def micro_kernel_one_number_at_a_time(a_panel, b_panel, c):
    for i, j in np.ndindex(c.shape):
        c[i, j] = c[i, j] + sum(a_panel[:, i] * b_panel[:, j])


# ------------------------------------------------------------------------------------------------ chapter 9


def places_by_counting(sizes):
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += size
        while end % 64:
            end += 1
    return [*starts, np.int64(end)]


def adam_of_arrays(grads, t, lr, eps, values, m, v):
    m *= 0.9
    m += 0.1 * grads
    v += 0.001 * (grads**2 - v)
    values -= lr * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + eps)


def adam_with_copies(grads, t, lr, eps, values, m, v):
    m_new, v_new = 0.9 * m + 0.1 * grads, 0.999 * v + 0.001 * np.square(grads)
    step = lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    values[:] = values - step * m_new / (np.sqrt(v_new) + eps * np.sqrt(1 - 0.999**t))
    m[:], v[:] = m_new, v_new


@numba.njit
def adam_compiled(grads, t, lr, eps, values, m, v):
    first, second = 1 / (1 - 0.9**t), 1 / (1 - 0.999**t)
    for i in range(grads.size):
        m[i] += 0.1 * (grads[i] - m[i])
        v[i] += 0.001 * (grads[i] * grads[i] - v[i])
        values[i] -= lr * m[i] * first / (np.sqrt(v[i] * second) + eps)


def philox_round_by_divmod(c0, c1, c2, c3, k0, k1):
    p, low_p = divmod(c0 * 0xD2511F53, 2**32)
    q, low_q = divmod(c2 * 0xCD9E8D57, 2**32)
    return [q ^ c1 ^ k0, low_q, p ^ c3 ^ k1, low_p]


def philox_round_in_numpy(c0, c1, c2, c3, k0, k1):
    products = np.array([c2, c0], np.uint64) * np.array([0xCD9E8D57, 0xD2511F53], np.uint64)
    high, low = products >> np.uint64(32), products & np.uint64(0xFFFFFFFF)
    high ^= np.array([c1, c3], np.uint64) ^ np.array([k0, k1], np.uint64)
    return tuple(np.stack([high, low], axis=1).ravel())


def philox_round_by_text(c0, c1, c2, c3, k0, k1):
    p, q = f"{c0 * 0xD2511F53:064b}", f"{c2 * 0xCD9E8D57:064b}"
    return int(q[:32], 2) ^ c1 ^ k0, int(q[32:], 2), int(p[:32], 2) ^ c3 ^ k1, int(p[32:], 2)


def box_muller_complex(a, b):
    u = ((a >> 8).astype(float) + 1) / 2**24
    z = np.sqrt(-2 * np.log(u)) * np.exp(2j * np.pi * (b >> 8) / 2**24)
    return z.real, z.imag


def box_muller_one_by_one(a, b):
    points = []
    for first, second in zip(a.tolist(), b.tolist(), strict=True):
        r = (-2 * np.log((first // 256 + 1) / 16777216)) ** 0.5
        angle = second // 256 / 16777216 * 2 * np.pi
        points.append((r * np.cos(angle), r * np.sin(angle)))
    return tuple(np.array(points).T)


def box_muller_by_waves(a, b):
    r = np.sqrt(-2 * np.log(((a >> 8) + 1) / 2**24))
    return [r * wave((b >> 8) * (np.pi * 2**-23)) for wave in (np.cos, np.sin)]


OTHERWISE = {
    ("01", "sigmoid"): (
        sigmoid_by_masks,
        lambda a: 0.5 * (1 + np.tanh(0.5 * a)),
        lambda a: np.exp(-np.logaddexp(0, -a)),
    ),
    ("01", "cross_entropy"): (
        cross_entropy_by_loops,
        lambda logits, x: np.mean(np.sum(np.logaddexp(0, logits) - x * logits, axis=1)),
        lambda logits, x: np.sum(x * np.logaddexp(0, -logits) + (1 - x) * np.logaddexp(0, logits)) / logits.shape[0],
    ),
    ("01", "cross_entropy_grad"): (
        cross_entropy_grad_by_rows,
        lambda grad_y, logits, x: grad_y / len(x) * (0.5 + 0.5 * np.tanh(logits / 2) - x),
        lambda grad_y, logits, x: np.multiply(grad_y, 1 / (1 + np.exp(-logits)) - x) / x.shape[0],
    ),
    ("02", "numerical_gradient"): (
        numerical_gradient_in_place,
        numerical_gradient_by_one_hot,
        numerical_gradient_by_nditer,
    ),
    ("02", "tanh_backward"): (
        lambda grad_y, x: grad_y / np.cosh(x) ** 2,
        lambda grad_y, x: grad_y * (1 - np.tanh(x)) * (1 + np.tanh(x)),
        lambda grad_y, x: [grad_y[b] * 4 / (np.exp(x[b]) + np.exp(-x[b])) ** 2 for b in range(len(x))],
    ),
    ("02", "row_mean_backward"): (
        lambda grad_y, x: np.broadcast_to(grad_y[:, None] / x.shape[1], x.shape),
        lambda grad_y, x: np.outer(grad_y, np.full(x.shape[1], 1 / x.shape[1])),
        lambda grad_y, x: [[g / x.shape[1]] * x.shape[1] for g in grad_y],
    ),
    ("02", "product_backward"): (
        product_backward_by_loops,
        lambda grad_y, x, w: [np.einsum("bn,kn->bk", grad_y, w), np.einsum("bn,bk->kn", grad_y, x)],
        lambda grad_y, x, w: ((w @ grad_y.T).T, (grad_y.T @ x).T),
    ),
    ("03", "dense"): (
        dense_by_loops,
        lambda x, w, b: (x @ w + b).clip(min=0),
        lambda x, w, b: np.where(x @ w > -b, np.einsum("bk,kn->bn", x, w) + b, 0),
    ),
    ("03", "dense_backward"): (dense_backward_by_mask, dense_backward_by_images, dense_backward_by_einsum),
    ("03", "leaky_backward"): (
        lambda grad_y, y: 0.2 * grad_y + 0.8 * grad_y * (y > 0),
        leaky_backward_by_loops,
        lambda grad_y, y: np.choose(y > 0, (0.2 * grad_y, grad_y)),
    ),
    ("04", "sample"): (
        lambda m, s, e: np.exp(s) * (e + m * np.exp(-s)),
        lambda m, s, e: np.sqrt(np.exp(2 * s)) * e + m,
        lambda m, s, e: [mean + np.exp(log_sigma) * noise for mean, log_sigma, noise in zip(m, s, e, strict=True)],
    ),
    ("04", "kl_grad"): (
        kl_grad_by_loops,
        lambda g, m, s: [(m.T * g).T, (np.expm1(2 * s).T * g).T],
        lambda g, m, s: tuple(np.einsum("b,pbl->pbl", g, np.array([m, np.exp(s) ** 2 - 1]))),
    ),
    ("05", "gaussian_nll"): (
        gaussian_nll_by_densities,
        lambda m, x, s: np.sum(0.5 * ((x - m) / s) ** 2 + np.log(s) + HALF_LOG_2PI, axis=-1),
        lambda m, x, s: 0.5 * (np.einsum("bp,bp->b", x - m, x - m) / s**2 + x.shape[1] * np.log(2 * np.pi * s**2)),
    ),
    ("05", "gaussian_nll_grad"): (
        lambda g, m, x, s: ((m - x).T * g / s**2).T,
        lambda g, m, x, s: np.diag(g / (s * s)) @ (m - x),
        lambda g, m, x, s: [-g[b] * (x[b] - m[b]) / s**2 for b in range(len(g))],
    ),
    ("05", "effective_beta"): (
        lambda weight, height, width, channels: 0.5 * weight * (height * width * channels),
        lambda weight, *sizes: weight * np.prod(sizes) / 2,
        lambda weight, height, width, channels: [weight / (2 / height / width / channels)][0],
    ),
    ("05", "best_sigma"): (
        best_sigma_by_newton,
        lambda x, mean: np.linalg.norm(x - mean) / x.size**0.5,
        lambda x, mean: np.exp(0.5 * np.log(np.var(x - mean) + np.mean(x - mean) ** 2)),
    ),
    ("08", "roof"): (
        lambda peak, bandwidth, f: peak if bandwidth * f > peak else bandwidth * f,
        lambda peak, bandwidth, f: 1 / max(1 / peak, 1 / (bandwidth * f)),
        lambda peak, bandwidth, f: np.minimum(peak, f * bandwidth),
    ),
    ("08", "blocked"): (blocked_by_matmul, blocked_last_block_first, blocked_compiled),
    ("08", "pack_panel"): (
        pack_panel_by_questions,
        pack_panel_by_slices,
        lambda b, j, columns: np.pad(b, ((0, 0), (0, columns)))[:, j : j + columns],
    ),
    ("08", "micro_kernel"): (
        micro_kernel_in_place,
        micro_kernel_one_number_at_a_time,
        lambda a_panel, b_panel, c: np.add(c, a_panel.T @ b_panel, out=c),
    ),
    ("09", "places"): (
        places_by_counting,
        lambda sizes: np.cumsum([0] + [-(-s // 64) * 64 for s in sizes]),
        lambda sizes: list(itertools.accumulate(sizes, lambda end, size: end + size + -size % 64, initial=0)),
    ),
    ("09", "adam"): (adam_of_arrays, adam_with_copies, adam_compiled),
    ("09", "epoch_and_cursor"): (
        lambda step, n, batch_size: [(step - 1) // n, (step - 1) * batch_size % (n * batch_size)],
        lambda step, per_epoch, batch_size: tuple(np.array(divmod(step - 1, per_epoch)) * (1, batch_size)),
        lambda step, n, batch_size: (int((step - 1) / n), (step - 1 - n * ((step - 1) // n)) * batch_size),
    ),
    ("09", "philox_round"): (philox_round_by_divmod, philox_round_in_numpy, philox_round_by_text),
    ("09", "box_muller"): (
        box_muller_complex,
        box_muller_one_by_one,
        box_muller_by_waves,
    ),
}  # fmt: skip
ANSWERS = [
    pytest.param(*key, f, id="-".join((*key, str(i)))) for key, three in OTHERWISE.items() for i, f in enumerate(three)
]


@pytest.mark.parametrize(("chapter", "name", "function"), ANSWERS)
def test_a_right_answer_written_otherwise_passes(chapter, name, function):
    verdict = grade(chapter_of(chapter).exercise(name), function)
    assert verdict.ok, verdict.text


@pytest.mark.parametrize("number", sorted({chapter for chapter, _ in OTHERWISE}))
def test_no_exercise_is_left_out(number):
    assert {name for chapter, name in OTHERWISE if chapter == number} == {e.name for e in chapter_of(number).exercises}
    assert all(len(set(three)) == 3 for three in OTHERWISE.values())


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (lambda y: y.squeeze(), r"has shape \(5,\) where \(1, 5\)"),
        (lambda y: y[None], r"has shape \(1, 3, 2\) where \(3, 2\)"),
        (lambda y: (*y, y[0]), "returns 4 results where 1 are"),
        (lambda y: y.T, r"has shape \(2, 3\)"),
    ],
)
def test_another_form_than_the_one_asked_for_is_told(form, says):
    """Results may come as a list, or row by row, but not with an axis too many or too few."""
    exercise = chapter_of("03").exercise("dense")
    verdict = grade(exercise, lambda x, w, b: form(exercise.solution(x, w, b)))
    assert not verdict.ok
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(verdict.text)


def test_the_line_that_is_told_is_the_learners():
    """Also where a library stopped, whose own lines help nobody."""
    verdict = grade(chapter_of("09").exercise("places"), lambda sizes: np.linalg.inv(np.zeros((2, 2))))
    assert "it stops with LinAlgError" in verdict.text
    assert "verdict = grade(" in verdict.text


def test_small_differences_are_told_with_all_their_digits():
    words = chapter_of("09").exercise("philox_round")
    verdict = grade(words, lambda *counter: [word ^ 1 for word in words.solution(*counter)])
    said, right = (int(float(word)) for word in verdict.text.split() if word.isdigit() and len(word) > 5)
    assert said ^ right == 1
    draw = chapter_of("04").exercise("sample")
    verdict = grade(draw, lambda m, s, e: draw.solution(m, s, e).astype(np.float32))
    assert "compute in float64" in verdict.text


def test_nan_in_one_place_is_not_taken_for_nan_everywhere():
    """A number that was never written is told by its place, not by the mistake that makes all of them NaN."""
    exercise = chapter_of("08").exercise("blocked")

    def forgets_a_corner(a, b, c, depth):
        c[1:] = (a @ b)[1:]

    verdict = grade(exercise, forgets_a_corner)
    assert not verdict.ok
    assert verdict.mistake is None
    assert "nan at (0, 0)" in verdict.text
