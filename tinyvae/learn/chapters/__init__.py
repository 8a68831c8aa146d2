"""The chapters that have exercises, in order. Each module holds the solutions that the stubs are made from.
They know the arithmetic of their chapter; the checks of a chapter need nothing of later ones."""

from __future__ import annotations

from ...errors import ConfigError
from ..exercise import Chapter
from . import ch01, ch02, ch03, ch04, ch05, ch06, ch07, ch08, ch09, ch10, ch11, ch12, ch13, ch14

CHAPTERS: tuple[Chapter, ...] = tuple(
    c.CHAPTER for c in (ch01, ch02, ch03, ch04, ch05, ch06, ch07, ch08, ch09, ch10, ch11, ch12, ch13, ch14)
)


def chapter_of(number: str) -> Chapter:
    """The chapter of this number, written "4" or "04"."""
    wanted = str(number).zfill(2)
    for chapter in CHAPTERS:
        if chapter.number == wanted:
            return chapter
    raise ConfigError(f"chapter={number!r} is not there; use one of {', '.join(c.number for c in CHAPTERS)}")
