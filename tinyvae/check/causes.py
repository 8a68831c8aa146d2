"""From a wrong gradient to a likely mistake: the ratio to the true one, its order, its signs, where it is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

CLOSE = 1e-4  # relative agreement that counts as "the same numbers"


@dataclass(frozen=True)
class Evidence:
    """analytic (c, size) for each cotangent; numeric (c + 1, size), the last for a cotangent of ones, NaN where it was
    not asked for; wrong (size,) says which elements failed."""

    analytic: np.ndarray
    numeric: np.ndarray
    wrong: np.ndarray
    shape: tuple[int, ...]
    batch: int
    cotangents: np.ndarray

    def row(self) -> int:
        """The first cotangent under which something is wrong."""
        for row in range(len(self.analytic)):
            if not same(self.analytic[row], self.numeric[row]):
                return row
        return 0


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays agree wherever both are known; False where nothing is."""
    known = np.isfinite(b)
    if not known.any():
        return False
    size = np.abs(b[known]).max()
    return bool(np.all(np.abs(a[known] - b[known]) <= CLOSE * (np.abs(b[known]) + 1e-3 * size)))


def likely_cause(e: Evidence) -> str:
    """One sentence: what a gradient that is wrong in this way usually comes from."""
    row = e.row()
    a, n = e.analytic[row], e.numeric[row]
    for look in (_not_a_number, _zero, _upstream, _sign_and_scale, _order, _place, _same_signs):
        found = look(e, a, n)
        if found:
            return found
    return "no simple relation to the true gradient; check the indices first, then each factor of the chain rule"


def _not_a_number(e: Evidence, a: np.ndarray, n: np.ndarray) -> str | None:
    if np.isfinite(e.analytic).all():
        return (
            None if np.isfinite(n).any() else "the outputs are not finite near this input: a log of 0, or an overflow"
        )
    share = f"{int((~np.isfinite(a)).sum())} of {a.size} elements"
    return (
        f"{share} are NaN or infinite: never written, or added to what was there (buffers hold NaN before the call), "
        "or 0·inf, or a log of 0; "
        "note that a test of the form |a − n| > tolerance lets NaN pass"
    )


def _zero(e: Evidence, a: np.ndarray, n: np.ndarray) -> str | None:
    known = n[np.isfinite(n)]
    if known.size and np.any(a) and not np.any(known):
        return "the outputs do not depend on this array at all, yet it has a gradient: the forward pass leaves it out"
    if np.any(a) or not np.any(known):
        return None
    return "the gradient is zero everywhere: it is never computed, or was multiplied by a mask that is never true"


def _upstream(e: Evidence, a: np.ndarray, n: np.ndarray) -> str | None:
    """Is grad_y used at all, and linearly?"""
    if len(e.analytic) < 2:
        return None
    if same(a, e.numeric[-1]) or (np.any(a) and np.allclose(e.analytic[0], e.analytic[1], rtol=CLOSE, atol=0)):
        return "the upstream gradient is ignored: the result does not depend on grad_y; multiply by it (chain rule)"
    if same(e.analytic[0], e.numeric[0]) and not same(e.analytic[1], e.numeric[1]):
        return (
            "right for grad_y of scale 1, wrong for scale 100: the backward pass is not linear in grad_y "
            "(it clips, rounds or normalises)"
        )
    return None


def _sign_and_scale(e: Evidence, a: np.ndarray, n: np.ndarray) -> str | None:
    """A constant ratio to the true gradient."""
    ratio = constant_ratio(a, n)
    return None if ratio is None else explain_ratio(ratio, e, int(np.isfinite(n).sum()))


def constant_ratio(a: np.ndarray, n: np.ndarray) -> float | None:
    """a / n where it is the same for all elements that are not small; None otherwise."""
    known = np.isfinite(n) & np.isfinite(a)
    if not known.any() or not np.abs(n[known]).max():
        return None
    a, n = a[known], n[known]
    large = np.abs(n) > 1e-3 * np.abs(n).max()
    ratio = float(np.median(a[large] / n[large]))
    return ratio if same(a, ratio * n) and abs(ratio - 1) > CLOSE else None


def explain_ratio(ratio: float, e: Evidence, count: int) -> str | None:
    """What a constant ratio of `count` elements to the true gradient usually means; None where it may be chance."""
    if abs(ratio + 1) < CLOSE:
        return "the sign is wrong: it is minus the true gradient"
    sign = "minus " if ratio < 0 else ""
    size = abs(ratio)
    n_out = e.cotangents.shape[1]
    if abs(size - 2) < CLOSE and e.batch != 2:
        return (
            f"the gradient is {sign}twice the true one: counted twice, or the derivative of the square was taken "
            "where the forward pass has half the square"
        )
    for size_of, what in ((e.batch, "the batch size"), (n_out, "the number of outputs"), (n_out // e.batch, "one row")):
        if size_of > 1 and abs(size / size_of - 1) < CLOSE:
            return f"the gradient is {sign}{size_of} times the true one, {what}: averaging was forgotten, or undone"
        if size_of > 1 and abs(size * size_of - 1) < CLOSE:
            return (
                f"the gradient is {sign}1/{size_of} of the true one, {what}: averaged once too often; "
                "grad_y carries the 1/B already"
            )
    if abs(size - 0.5) < CLOSE:
        return (
            f"the gradient is {sign}half the true one: one of two equal terms is missing, or a square became its half"
        )
    if count < 3:
        return None
    return f"the gradient is {ratio:.5g} times the true one: a constant factor is missing or extra"


def _order(e: Evidence, a: np.ndarray, n: np.ndarray) -> str | None:
    """The right numbers in the wrong places."""
    if not np.isfinite(n).all() or len(e.shape) < 2:
        return None
    true, given = n.reshape(e.shape), a.reshape(e.shape)
    if len(e.shape) == 2:
        if e.shape[0] == e.shape[1] and same(given, true.T):
            return "it is the transposed gradient: swap the factors of the product (only a square shape lets this run)"
        if same(a, true.T.reshape(-1)):
            return "it is the transposed gradient, forced into this shape: swap the factors of the product"
    if len(e.shape) == 4 and same(given, true[::-1, ::-1]):
        return "the kernel is flipped in both axes: a convolution's gradient where a cross-correlation's is needed"
    for axes in permutations(range(len(e.shape))):
        if axes != tuple(range(len(e.shape))) and same(a, true.transpose(axes).reshape(-1)):
            return f"the right numbers in the order of axes {axes}: a transpose or reshape in the wrong order"
    if same(np.sort(a), np.sort(n)):
        return "the right numbers in the wrong places: a reshape or an index order (channels first or last?) is wrong"
    return None


def _place(e: Evidence, a: np.ndarray, n: np.ndarray) -> str | None:
    """Wrong in a part of the tensor only: which part, and by what ratio there."""
    known = np.isfinite(n)
    wrong = known & (np.abs(a - n) > CLOSE * np.abs(n) + 1e-9 * np.abs(n[known]).max(initial=0))
    good = known & ~wrong
    if not good.any() or not wrong.any() or not len(e.shape):
        return _axis_factor(e, a, n)
    grids = np.meshgrid(*[np.arange(length) for length in e.shape], indexing="ij")
    ratio = constant_ratio(a[wrong], n[wrong])
    words = None if ratio is None else explain_ratio(ratio, e, int(wrong.sum()))
    reason = f"; there, {words}" if words else ""
    if wrong.sum() > 1 and not np.any(a[wrong]):
        reason = "; it is zero there"
    for k, length in enumerate(e.shape):
        bad = np.unique(grids[k].reshape(-1)[wrong])
        if length > 1 and len(bad) == 1 and bad[0] in (0, length - 1):
            end = "last" if bad[0] else "first"
            return f"wrong only at the {end} index of axis {k}: a loop or a tile that ends too early{reason}"
    if len(e.shape) == 4:
        at_edge = np.zeros(e.shape, bool)
        for k in (1, 2):
            at_edge |= (grids[k] == 0) | (grids[k] == e.shape[k] - 1)
        if not np.any(wrong & ~at_edge.reshape(-1)) and np.any(good & ~at_edge.reshape(-1)):
            return f"only elements at the edges are wrong: look at the padding{reason}"
    second_half = (grids[-1] >= e.shape[-1] // 2).reshape(-1)
    if e.shape[-1] % 2 == 0:
        for which, half in (("second", second_half), ("first", ~second_half)):
            if not np.any(wrong & ~half):
                return f"wrong only in the {which} half of the last axis{reason}"
    share = f"{int(wrong.sum())} of {int(known.sum())} elements are wrong, the others right"
    return f"{share}: a mask or a case distinction{reason}"


def _same_signs(e: Evidence, a: np.ndarray, n: np.ndarray) -> str | None:
    """Every sign right and every size wrong: a positive factor is missing."""
    known = np.isfinite(n)
    if known.sum() < 8 or not np.all(np.sign(a[known]) == np.sign(n[known])):
        return None
    return (
        "all signs are right and the sizes are wrong: a positive factor that differs between elements is missing "
        "or extra (the derivative of an activation, sigma, exp of something)"
    )


def _axis_factor(e: Evidence, a: np.ndarray, n: np.ndarray) -> str | None:
    """A ratio that depends on the place along one axis only: a factor of the chain rule is missing."""
    if not np.isfinite(n).all() or len(e.shape) < 2 or not np.all(n):
        return None
    ratio = (a / n).reshape(e.shape)
    for axis in range(len(e.shape)):
        others = tuple(k for k in range(len(e.shape)) if k != axis)
        if e.shape[axis] < 2 or ratio.size < 2 * e.shape[axis]:
            continue
        if np.all(np.ptp(ratio, axis=others) <= CLOSE * np.abs(ratio).max()):
            factors = ", ".join(f"{f:.3g}" for f in ratio.mean(axis=others)[:4])
            return (
                f"off by a factor that depends on the place along axis {axis} only ({factors}, …): a factor is missing"
            )
    return None
