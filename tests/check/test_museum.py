"""Every exhibit of the bug museum is caught by a shipped check, which the healthy code passes.
Exhibits that no gradient check can see are caught by what they mean."""

import inspect

import numpy as np
import pytest

from tinyvae import gradcheck, gradcheck_fn, kernels
from tinyvae.check.meaning import MEANINGS as MEANINGS_OF_MODELS
from tinyvae.check.meaning_layers import LAYER_MEANINGS, UNIT_NORM
from tinyvae.check.meaning_likelihoods import LIKELIHOOD_MEANINGS, TARGETED
from tinyvae.check.meaning_ops import OP_MEANINGS
from tinyvae.check.museum import EXHIBITS, checks_for, detect, exhibit, find, planted, wrong_functions
from tinyvae.check.museum.exhibit import Exhibit
from tinyvae.check.table import checks, run_check
from tinyvae.errors import TinyvaeError
from tinyvae.kernels import OPS
from tinyvae.layers import Dense, Flatten

ALL = [pytest.param(e, id=e.name) for e in EXHIBITS]
HEALTHY = {}
NAMES = {
    m.name for m in (*MEANINGS_OF_MODELS, *OP_MEANINGS, *LAYER_MEANINGS, *LIKELIHOOD_MEANINGS, TARGETED, UNIT_NORM)
}

# The bugs that keep coming back in this field, and where they hang.
BUGS = {
    "exp(log-variance) used as the standard deviation": ("variance-for-sigma", "kl-of-log-variance"),
    "KL and reconstruction reduced differently": ("kl-mean-over-latents", "mean-over-pixels", "kl-not-averaged"),
    "KL with the wrong sign": ("kl-negative", "kl-pulls-away"),
    "sigmoid, then log": ("sigmoid-then-log",),
    "upstream gradient ignored or averaged": ("upstream-ignored", "averaged-twice"),
    "transposed gradient hidden by a square shape": ("weight-transposed", "grad-x-not-transposed"),
    "noise redrawn": ("noise-redrawn", "backward-draws-again"),
    "verification that NaN passes": ("last-column-unwritten",),
    "tile edges": ("whole-tiles-only",),
    "writes past the end": ("one-too-far",),
    "buffer aliasing seen by the user": ("buffer-handed-out", "in-place"),
    "host scalar frozen in a recorded step": ("learning-rate-frozen",),
    "last ragged batch": ("mean-of-batch-means",),
    "validation and training on different objectives": ("two-objectives",),
}


def healthy(check):
    """Whether the check passes without any mistake planted; asked once per check."""
    if check.name not in HEALTHY:
        HEALTHY[check.name] = run_check(check, "numpy", 0)
    return HEALTHY[check.name]


@pytest.mark.parametrize("bug", ALL)
def test_is_caught(bug):
    check, line = find(bug)
    assert not line.ok
    assert line.failures
    assert healthy(check).ok, f"{check.name} fails without {bug.name} as well: {healthy(check).failures}"


@pytest.mark.parametrize("bug", [p for p in ALL if p.values[0].hidden])
def test_no_gradient_check_sees_it(bug):
    """The other way round too: forward and backward agree, so only the meaning gives it away."""
    gradient = [check for check in checks_for(bug) if check.group in ("op", "layer")]
    for check in gradient:
        with planted(bug):
            assert run_check(check, "numpy", 0).ok, f"{check.name} sees {bug.name}: it is not hidden"
    assert find(bug)[0].group == "meaning"


def spoiled(name):
    """The op with a little error in all that it writes."""
    op, right = OPS[name], kernels.COLUMNS["numpy"][name]

    def wrong(*arguments):
        right(*arguments)
        for arg, array in zip(op.args, arguments, strict=True):
            if arg.role in ("out", "inout") and array.size:
                array[...] = array * 1.05 + 0.05 if array.dtype.kind == "f" else array ^ array.dtype.type(1)

    return wrong


def checked_by(check):
    return [e for e in EXHIBITS if set(e.places) & set(check.places)]


MEANINGS = [check for check in checks() if check.name in NAMES]


@pytest.mark.parametrize("check", MEANINGS, ids=lambda check: check.name)
def test_every_check_of_meaning_can_fail(check):
    """With an error in one of the ops that it looks at, or with an exhibit."""
    ops = [name for name in check.places if name in kernels.COLUMNS["numpy"]]
    wrong = [Exhibit("spoiled", f"{name} is a little wrong.", {name: spoiled(name)}) for name in ops]
    wrong += checked_by(check)
    for one in wrong:
        with planted(one):
            if not run_check(check, "numpy", 0).ok:
                return
    pytest.fail(f"{check.name} passes whatever is wrong with {', '.join(ops)}")


@pytest.mark.parametrize("bug", ALL)
def test_plain_functions_for_graders(bug):
    """At one of the three sizes the wrong functions fail where the right ones pass."""
    functions = [wrong for size in (1, 2, 0) for wrong in wrong_functions(bug, size)]
    unseen = bug.hidden or bug.name == "add-overwrites"
    for wrong in functions:
        try:
            report = gradcheck_fn(wrong.forward, wrong.backward, *wrong.arrays, wrt=wrong.wrt, kinks=wrong.kinks)
        except TinyvaeError:  # it did harm
            return
        if not report.ok:
            assert not unseen, report
            right = gradcheck_fn(
                wrong.right_forward, wrong.right_backward, *wrong.arrays, wrt=wrong.wrt, kinks=wrong.kinks
            )
            assert right.ok, right
            return
    assert unseen or not functions


def test_the_museum_is_large_and_spread_out():
    assert len(EXHIBITS) >= 24
    assert len({e.name for e in EXHIBITS}) == len(EXHIBITS)
    assert all(len(e.story) > 40 and e.places for e in EXHIBITS)
    ops = {op for e in EXHIBITS for op in e.ops}
    wanted = {"dense", "dense_grad_x", "dense_grad_w", "act_grad", "silu_grad", "conv2d", "conv2d_grad_x"}
    wanted |= {"conv2d_grad_w", "latent", "latent_grad", "bernoulli_nll", "gaussian_nll", "objective", "adam"}
    wanted |= {"grad_norm", "tick", "philox_normal", "philox_bits", "gather", "gather_binary"}
    assert wanted <= ops
    assert {e.place for e in EXHIBITS if e.place} >= {"Dense", "Reshape", "Flatten", "Model"}


@pytest.mark.parametrize("name", list(BUGS))
def test_the_bugs_of_the_field_are_there(name):
    assert all(exhibit(e).name == e for e in BUGS[name])


@pytest.mark.parametrize("bug", [p for p in ALL if p.values[0].ops])
def test_wrong_ops_are_called_like_the_right_ones(bug):
    for name, wrong in bug.ops.items():
        assert list(inspect.signature(wrong).parameters) == [arg.name for arg in OPS[name].args]


def test_detect_reports_the_story():
    text = detect(exhibit("variance-for-sigma"))
    assert "variance-for-sigma: caught by the meaning check “variance of z”" in text
    assert "exp(2 z_log_sigma)" in text


def test_what_no_check_catches_is_an_error():
    harmless = Exhibit("harmless", "Nothing is wrong.", {"silu": kernels.COLUMNS["numpy"]["silu"]})
    with pytest.raises(TinyvaeError, match="no check caught harmless"):
        detect(harmless)


def test_planting_ends_with_its_context():
    column, forward = kernels.COLUMNS["numpy"], Flatten().__class__
    bug, method = exhibit("weight-transposed"), exhibit("flatten-channels-first")
    with planted(bug):
        assert not gradcheck(Dense(4, 3)).ok
    assert kernels.COLUMNS["numpy"] is column
    assert gradcheck(Dense(4, 3)).ok
    twin, name, wrong = method.methods[0]
    right = twin.__dict__[name]
    with pytest.raises(ZeroDivisionError), planted(method):
        assert 1 / (twin.__dict__[name] is not wrong)
    assert twin.__dict__[name] is right
    assert gradcheck(forward(), (3, 2, 2)).ok


def test_ops_with_a_mistake_in_a_namespace():
    wrong, right = exhibit("target-minus-p").kernels(), kernels.load("numpy")
    for k, sign in ((right, 1), (wrong, -1)):
        nll, grad = np.empty(1), np.empty((1, 2))
        k.bernoulli_nll(np.zeros((1, 2)), np.zeros((1, 2)), np.ones(1), nll, grad)
        assert (grad == sign * 0.5).all()


def test_an_unknown_exhibit():
    with pytest.raises(KeyError, match="there is no exhibit 'dodo'"):
        exhibit("dodo")
