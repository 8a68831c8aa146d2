"""Runs the shipped checks on a planted mistake and reports which one caught it, and how."""

from __future__ import annotations

from ...errors import TinyvaeError
from ..table import Check, Line, checks, run_check
from .exhibit import Exhibit, planted


def checks_for(exhibit: Exhibit) -> list[Check]:
    """The checks that look at an op or class of the exhibit: ops first, then meaning, layers and whole models."""
    return [check for check in checks() if set(check.places) & set(exhibit.places)]


def find(exhibit: Exhibit, seed: int = 0) -> tuple[Check, Line]:
    """The first check that fails on the exhibit, and the line of the table that it gives."""
    for check in checks_for(exhibit):
        with planted(exhibit):
            line = run_check(check, "numpy", seed)
        if not line.ok:
            return check, line
    raise TinyvaeError(f"no check caught {exhibit.name}: {exhibit.story}")


def detect(exhibit: Exhibit, seed: int = 0) -> str:
    """Which check caught the exhibit, and what it said; a TinyvaeError if none did."""
    check, line = find(exhibit, seed)
    return f"{exhibit.name}: caught by the {check.group} check “{check.name}”.\n  {line.failures[0]}"
