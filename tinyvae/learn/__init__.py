"""The exercises of the tutorials: stubs to fill in, a grader that says what is wrong, hints, and the solution last.
It knows exercises and files; the chapters' text is in tutorials/."""

from .chapters import CHAPTERS, chapter_of
from .exercise import Chapter, Exercise, Mistake
from .grade import Verdict, grade
from .workbook import check, hint, overview, set_up

__all__ = [
    "CHAPTERS", "Chapter", "Exercise", "Mistake", "Verdict", "chapter_of", "check", "grade", "hint", "overview",
    "set_up",
]  # fmt: skip
