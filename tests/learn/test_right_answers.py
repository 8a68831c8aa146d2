"""Right answers written otherwise than the solutions pass, three to an exercise; what is nearly right is explained.

The answers of a chapter stand in right_answers/, a file a chapter; chapter 14's are in test_cuda_learn.py."""

import importlib

import numpy as np
import pytest

from tinyvae.learn import CHAPTERS, chapter_of, grade
from tinyvae.learn.chapters.ch13 import spectral_norm, vaegan_grad
from tinyvae.learn.child_process import is_here
from tinyvae.measure import anomaly

ANSWERS = {
    c.number: importlib.import_module(f"right_answers.ch{c.number}").ANSWERS for c in CHAPTERS if c.number != "14"
}


@pytest.mark.parametrize(
    ("number", "name", "function"),
    [
        pytest.param(number, name, function, id=f"{number}-{name}-{i}")
        for number, answers in ANSWERS.items()
        for name, three in answers.items()
        for i, function in enumerate(three)
    ],
)
def test_a_right_answer_written_otherwise_passes(number, name, function):
    verdict = grade(chapter_of(number).exercise(name), function)
    assert verdict.ok, verdict.text


@pytest.mark.parametrize("number", ANSWERS)
def test_each_exercise_has_three(number):
    assert set(ANSWERS[number]) == {e.name for e in chapter_of(number).exercises}
    assert all(len(set(three)) == 3 for three in ANSWERS[number].values())


@pytest.mark.parametrize("number", ANSWERS)
def test_the_chapter_is_graded_in_this_process(number):
    assert is_here(chapter_of(number))


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


@pytest.mark.parametrize("function", [anomaly.auroc, anomaly.p_values])
def test_the_packages_own_functions_are_right_answers(function):
    """The exercises ask for what the package computes."""
    assert grade(chapter_of("12").exercise(function.__name__), function).ok


def test_power_iteration_comes_to_the_largest_singular_value():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 4))
    assert spectral_norm(weight, rng.standard_normal(4), 200)[0] == pytest.approx(np.linalg.norm(weight, 2), rel=1e-12)


def test_the_gradients_of_a_vaegan_are_those_of_their_losses():
    """Each by central differences of a loss written down here: the encoder's by z, the decoder's by its weight."""
    z, x, decoder, features, head, gamma = chapter_of("13").exercise("vaegan_grad").cases(np.random.default_rng(1), 0)

    def likeness(z, decoder):
        return 0.5 * np.square((z @ decoder - x) @ features).sum() / len(z)

    def decoders(z, decoder):
        d = 1 / (1 + np.exp(-(z @ decoder) @ features @ head))
        return gamma * likeness(z, decoder) - np.log(d).mean()

    grads = vaegan_grad(z, x, decoder, features, head, gamma)
    for loss, which, grad in ((likeness, 0, grads[0]), (decoders, 1, grads[1])):
        for place in np.ndindex(grad.shape):
            ends = []
            for h in (1e-5, -1e-5):
                moved = [z.copy(), decoder.copy()]
                moved[which][place] += h
                ends.append(loss(*moved))
            assert grad[place] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6, abs=1e-8)
