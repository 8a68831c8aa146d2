"""The exercises that are graded in Numba's CUDA simulator: of them is asked what test_learn.py asks of the others.
The simulator wants a process of its own: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/test_cuda_learn.py."""

import pytest
import test_learn as every

from tinyvae.learn import chapter_of
from tinyvae.learn.elsewhere import is_here

CHAPTER = chapter_of("14")
pytestmark = pytest.mark.skipif(not is_here(CHAPTER), reason="the CUDA simulator is off: NUMBA_ENABLE_CUDASIM=1")
CHECKS = (
    every.test_the_solution_passes,
    every.test_the_stub_fails_and_says_so,
    every.test_every_planted_mistake_is_named,
    every.test_cases_differ_in_shape_and_none_is_square,
    every.test_hints_do_not_hold_the_answer,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("test_"))
@pytest.mark.parametrize("exercise", CHAPTER.exercises, ids=lambda e: e.name)
def test_exercise(exercise, check):
    check(exercise)
