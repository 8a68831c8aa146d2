"""The exercises: solutions pass, stubs fail, wrong answers are named, right ones written otherwise pass; and the files.
It knows what a learner does; the chapters' text is tested by running it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tinyvae import learn
from tinyvae.app import cli
from tinyvae.errors import TinyvaeError
from tinyvae.learn import CHAPTERS, Chapter, Exercise, Mistake, chapter_of, grade
from tinyvae.learn.child_process import is_here
from tinyvae.learn.exercise import CASES

# chapters that need another process are tested in one, see test_cuda_learn.py
ALL = [pytest.param(e, id=f"{c.number}-{e.name}") for c in CHAPTERS if is_here(c) for e in c.exercises]


@pytest.mark.parametrize("exercise", ALL)
def test_the_solution_passes(exercise):
    verdict = grade(exercise, exercise.solution)
    assert verdict.ok, verdict.text


@pytest.mark.parametrize("exercise", ALL)
def test_the_stub_fails_and_says_so(exercise):
    namespace = {"np": np}
    exec(exercise.stub, namespace)
    verdict = grade(exercise, namespace[exercise.name])
    assert not verdict.ok
    assert verdict.text == f"{exercise.name} is not written yet"


@pytest.mark.parametrize("exercise", ALL)
def test_every_planted_mistake_is_named(exercise):
    assert len(exercise.mistakes) >= 5
    assert len({m.says for m in exercise.mistakes}) == len(exercise.mistakes)
    for mistake in exercise.mistakes:
        verdict = grade(exercise, mistake.wrong)
        assert not verdict.ok, mistake.says
        assert verdict.mistake == mistake.says


@pytest.mark.parametrize("exercise", ALL)
def test_cases_differ_in_shape_and_none_is_square(exercise):
    """A transposed index shows only where lengths differ, and only where the cases are not all alike."""
    drawn = [exercise.cases(np.random.default_rng(0), case) for case in range(CASES)]
    shapes = {tuple(np.shape(a) for a in arguments) for arguments in drawn}
    assert len(shapes) > 1 or not any(any(shape) for shape in shapes)
    assert not any(np.shape(a)[0] == np.shape(a)[1] for arguments in drawn for a in arguments if np.ndim(a) == 2)


@pytest.mark.parametrize("exercise", ALL)
def test_hints_do_not_hold_the_answer(exercise):
    assert len(exercise.hints) == 3
    body = exercise.answer.split("\n")[-1].strip()
    assert not any(body in h for h in exercise.hints)


# ------------------------------------------------------------------------------------------------ the grader


def double(x):
    """2 x. x: (n,)."""
    return 2 * x


DOUBLE = Exercise(
    double, lambda rng, case: (rng.standard_normal(case + 2),), (Mistake("x itself", lambda x: x),), ("a", "b", "c")
)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: None, "returns None"),
        (lambda x: x[:1], r"has shape \(1,\) where \(2,\)"),
        (lambda x: (x, x), "returns 2 results where 1 are"),
        (lambda x: x / 0.0 * np.inf, "overflow, a division by zero"),
        (lambda x: 2 * x + 1e-6, "is right"),
        (lambda x: 6 * x, "3 times too large"),
        (lambda x: x @ x @ x, "stops with ValueError"),
        (lambda x: x.__imul__(2), "changes its input x"),
        (lambda x: ["a"] * len(x), "no array of numbers"),
        (lambda x: [[1.0], [1.0, 2.0]], "rows are not of one length"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_what_is_wrong_is_said(function, says):
    verdict = grade(DOUBLE, function)
    assert not verdict.ok
    assert verdict.mistake is None
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(verdict.text)


def test_a_right_answer_written_otherwise_passes():
    for function in (lambda x: x + x, lambda x: [2 * float(v) for v in x], lambda x: np.add(x, x)):
        assert grade(DOUBLE, function).ok


def pair(x):
    """x and 2 x, two results. x: (n,)."""
    return x, 2 * x


def test_a_list_is_several_results_where_several_are_asked_for():
    exercise = replace(DOUBLE, solution=pair)
    for function in (lambda x: [x, x + x], lambda x: (list(x), [2 * v for v in x])):
        assert grade(exercise, function).ok
    assert "returns 1 results where 2 are" in grade(exercise, lambda x: np.stack([x, 2 * x])).text
    rows = replace(DOUBLE, solution=lambda x: np.outer(x, x))
    assert grade(rows, lambda x: [v * x for v in x]).ok


def test_a_function_that_fills_an_array():
    def fill(x, out):
        """out = 2 x."""
        out[...] = 2 * x

    def cases(rng, case):
        return rng.standard_normal(case + 2), np.full(case + 2, np.nan)

    exercise = Exercise(fill, cases, (), ("", "", ""), writes=("out",))
    assert grade(exercise, fill).ok
    assert "never written" in grade(exercise, lambda x, out: None).text


def test_places_never_written_are_compared_too():
    """Two answers that leave different places unwritten are different mistakes."""

    def only(kept):
        def fill(x, out):
            """out = 2 x."""
            out[kept] = 2 * x[kept]

        return fill

    mistakes = (Mistake("all but the first", only(slice(1, None))), Mistake("the first alone", only(slice(0, 1))))
    cases = lambda rng, case: (rng.standard_normal(case + 2), np.full(case + 2, np.nan))  # noqa: E731
    exercise = Exercise(only(slice(None)), cases, mistakes, ("", "", ""), writes=("out",))
    assert grade(exercise, exercise.solution).ok
    assert grade(exercise, only(slice(0, 1))).mistake == "the first alone"
    assert grade(exercise, only(slice(1, None))).mistake == "all but the first"


def test_a_mistake_that_stops_is_known_by_where_it_stops():
    """Known only where it gives the same results on the cases on which neither stops."""

    def beyond(x, value=2):
        return value * x if len(x) == 2 else x[len(x)]

    exercise = replace(DOUBLE, mistakes=(Mistake("a number behind the last one", beyond),))
    assert grade(exercise, lambda x: x + x if len(x) == 2 else [x[9]]).mistake == "a number behind the last one"
    assert grade(exercise, lambda x: beyond(x, 3)).mistake is None
    other = grade(exercise, lambda x: x + x if len(x) == 2 else 1 / 0)
    assert other.mistake is None
    assert "stops with ZeroDivisionError: division by zero (line " in other.text
    always = replace(DOUBLE, mistakes=(Mistake("nothing at all", lambda x: x[9]),))
    assert grade(always, lambda x: x[9]).mistake is None, "an error alone names no mistake"


def test_a_gradient_is_checked_numerically_and_by_name():
    """A gradient that is neither right nor a known mistake is told where it is off; the true one passes."""
    exercise = chapter_of("04").exercise("kl_grad")

    halved = grade(exercise, lambda g, m, s: (0.5 * g[:, None] * m, 0.5 * g[:, None] * (np.exp(2 * s) - 1)))
    assert "0.5 times too large" in halved.text


# ------------------------------------------------------------------------------------------------ files and commands


def run(capsys, *arguments):
    status = cli.main(["learn", *arguments])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def run_to_the_end(capsys, *arguments):
    """The same, where a wrong answer ends the program."""
    try:
        return run(capsys, *arguments)
    except SystemExit as stopped:
        captured = capsys.readouterr()
        return stopped.code, captured.out + captured.err


def test_from_set_up_to_done(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, text = run(capsys, "4")
    path = tmp_path / "learn" / "chapter_04.py"
    assert status == 0
    assert "chapter_04.py is ready: sample, kl_grad" in text
    with pytest.raises(SystemExit) as stopped:
        run(capsys, "4", "--check")
    assert stopped.value.code == 1
    assert "✗ sample: sample is not written yet" in capsys.readouterr().out
    chapter = chapter_of("04")
    path.write_text("import numpy as np\n" + "\n\n".join(e.answer for e in chapter.exercises))
    status, text = run(capsys, "04", "--check")
    assert status == 0
    assert text.count("✓") == len(chapter.exercises)
    assert "2 of 2 done" in run(capsys)[1]
    assert "stays as it is" in run(capsys, "04")[1]
    assert "NotImplementedError" not in path.read_text()


def test_hints_come_one_by_one_and_the_solution_last(tmp_path, capsys):
    texts = [run(capsys, "04", "--hint", "sample", "--dir", str(tmp_path))[1] for _ in range(4)]
    assert [t.split(":")[0] for t in texts] == ["hint 1 of 3", "hint 2 of 3", "hint 3 of 3", "the solution"]
    assert "np.exp(z_log_sigma) * eps" in texts[3]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("99",), "chapter='99' is not there"),
        (("04", "--check"), "tinyvae learn 04 sets it up"),
        (("04", "--hint", "nothing"), "is no exercise of chapter 04; use one of sample, kl_grad"),
    ],
)
def test_wrong_use_is_one_sentence(tmp_path, capsys, arguments, says):
    status, text = run(capsys, *arguments, "--dir", str(tmp_path))
    assert status == 2
    assert says in text
    assert text.count("\n") == 1


def test_a_chapter_that_needs_another_process_is_graded_in_one(tmp_path, capfd):
    """Its stubs fail there, what they print is seen, its solutions pass there, and the record is kept here."""
    chapter = chapter_of("14")
    assert "cycles, sample_kernel, grad_w_kernel" in run(capfd, "14", "--dir", str(tmp_path))[1]
    path = tmp_path / "chapter_14.py"
    assert run_to_the_end(capfd, "14", "--check", "--dir", str(tmp_path))[0] == 1
    text = chapter.preamble + '\n\nprint("a word of mine")\n\n' + "\n\n\n".join(e.answer for e in chapter.exercises)
    path.write_text(text.replace("def sample_kernel", "@cuda.jit\ndef sample_kernel"))
    status, said = run_to_the_end(capfd, "14", "--check", "--dir", str(tmp_path))
    assert status == 0, said
    assert said.count("✓") == 3
    assert "a word of mine" in said
    assert "3 of 3 done" in run(capfd, "--dir", str(tmp_path))[1]
    path.write_text("def cycles(:\n")
    status, said = run_to_the_end(capfd, "14", "--check", "--dir", str(tmp_path))
    assert status == 2
    assert "chapter_14.py, line 1: " in said


def test_a_grading_process_that_dies_is_reported(tmp_path):
    (tmp_path / "chapter_14.py").write_text("import os\nos._exit(7)\n")
    with pytest.raises(TinyvaeError, match="chapter 14 ended with status 7"):
        list(learn.check(chapter_of("14"), tmp_path))


@pytest.mark.parametrize(
    ("content", "says"),
    [("def sample(:\n", "line 1: "), ("import nothing_at_all\n", "ModuleNotFoundError"), ("1 / 0\n", "ZeroDivision")],
)
def test_a_broken_working_file_is_one_sentence(tmp_path, capsys, content, says):
    (tmp_path / "chapter_04.py").write_text(content)
    status, text = run(capsys, "04", "--check", "--dir", str(tmp_path))
    assert status == 2
    assert says in text


def test_a_missing_function_is_named(tmp_path):
    (tmp_path / "chapter_04.py").write_text("x = 1\n")
    assert all("no such function" in line for _, line in learn.check(chapter_of("04"), tmp_path))


def test_a_damaged_record_costs_the_count_and_no_more(tmp_path):
    (tmp_path / ".progress.json").write_text("{")
    assert "0 of 2 done" in learn.overview(tmp_path)
    learn.hint(chapter_of("04"), "sample", tmp_path)
    assert json.loads((tmp_path / ".progress.json").read_text())["hints"] == {"04.sample": 1}


def test_every_chapter_is_of_one_form():
    numbers = [c.number for c in CHAPTERS]
    assert numbers == sorted(set(numbers))
    for chapter in CHAPTERS:
        assert isinstance(chapter, Chapter)
        assert chapter.file.startswith(f"{chapter.number}_")
        compile(chapter.preamble, "preamble", "exec")
