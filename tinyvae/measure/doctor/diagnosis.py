"""What a doctor says: a verdict, why, what was measured and what to change.
The diagnoses are made in latent.py and game.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HEALTHY = "healthy"


@dataclass(frozen=True)
class Diagnosis:
    """verdict: one word, or two joined by "and". findings: what was measured. advice: what to change, best first."""

    verdict: str
    why: str
    findings: tuple[str, ...]
    advice: tuple[str, ...]
    figures: Mapping[str, Any]

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.why}", "", "measured"]
        lines += [f"  {line}" for line in self.findings]
        lines += ["", "to change" if self.verdict != HEALTHY else "to try"]
        return "\n".join(lines + [f"  {i}. {line}" for i, line in enumerate(self.advice, 1)])

    def __and__(self, other: Diagnosis) -> Diagnosis:
        """Both: what is ill of the two, with its advice; healthy where neither is."""
        ill = [d for d in (self, other) if d.verdict != HEALTHY] or [self, other]
        return Diagnosis(
            " and ".join(dict.fromkeys(d.verdict for d in ill)),
            "; ".join(d.why for d in ill),
            self.findings + other.findings,
            tuple(dict.fromkeys(line for d in ill for line in d.advice)),
            {**self.figures, **other.figures},
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        rest = {"findings": list(self.findings), "advice": list(self.advice), "figures": dict(self.figures)}
        return {"verdict": self.verdict, "why": self.why} | rest
