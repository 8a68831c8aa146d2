"""What a check has to say: rows of figures, failures in words, and the table that both make."""

from __future__ import annotations

from dataclasses import dataclass, field

SKIPPED_LIMIT = 0.02  # share of elements at a kink above which nothing has been proved


@dataclass(frozen=True)
class Failure:
    """One thing that is wrong. `analytic` and `numeric` are None where a structure check failed."""

    layer: str
    parameter: str
    index: tuple[int, ...] | str = ()
    analytic: float | None = None
    numeric: float | None = None
    cause: str = ""
    where: str = ""

    def __str__(self) -> str:
        place = self.layer + (f" ({self.where})" if self.where else "")
        if self.analytic is None or self.numeric is None:
            return f"{place}: {self.parameter}: {self.cause}"
        index = self.index if isinstance(self.index, str) else f"[{', '.join(map(str, self.index))}]"
        figures = f"the backward pass says {self.analytic:.7g}, differences say {self.numeric:.7g}"
        return f"{place}: gradient of {self.parameter}{index}: {figures}. Likely cause: {self.cause}"


@dataclass(frozen=True)
class Row:
    """One tensor, or one structure check (`checked` 0): what was found out about it."""

    where: str
    what: str
    shape: tuple[int, ...] = ()
    checked: int = 0
    skipped: int = 0
    worst: float = 0.0
    ok: bool = True


@dataclass
class Report:
    """The outcome of a check. `str(report)` is the table."""

    title: str
    rows: list[Row] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything held, and something was looked at."""
        return self.checked > 0 and not self.failures and all(row.ok for row in self.rows)

    @property
    def checked(self) -> int:
        """Derivatives compared: elements and directions."""
        return sum(row.checked for row in self.rows)

    @property
    def skipped(self) -> int:
        """Derivatives left out, because a kink lies between +h and −h."""
        return sum(row.skipped for row in self.rows)

    @property
    def worst(self) -> float:
        """The largest relative error among them."""
        return max((row.worst for row in self.rows), default=0.0)

    @property
    def too_many_skipped(self) -> bool:
        """Whether more than 2 % of the elements stood at a kink, so that little is proved."""
        return self.skipped > SKIPPED_LIMIT * (self.checked + self.skipped)

    def judge_skipped(self) -> None:
        """Adds a failure where more than 2 % of the elements stood at a kink."""
        total = self.checked + self.skipped
        if self.too_many_skipped:
            cause = (
                f"{self.skipped} of {total} elements stand at a kink, so that nothing is proved; use inputs away from "
                "the kinks, or look for an activation that sits at exactly 0"
            )
            self.failures.append(Failure(self.title, "kinks", cause=cause))

    def __str__(self) -> str:
        tensors = [row for row in self.rows if row.checked + row.skipped]
        names = [f"{row.where}  {row.what}" if row.where else row.what for row in tensors]
        shapes = ["×".join(map(str, row.shape)) or "number" for row in tensors]
        wide = max([len(n) for n in names] + [len("gradient of")])
        wide_shape = max([len(s) for s in shapes] + [len("shape")])
        lines = [self.title]
        lines += [f"  {'gradient of':<{wide}}  {'shape':<{wide_shape}}  checked  skipped  worst error"]
        for row, name, shape in zip(tensors, names, shapes, strict=True):
            verdict = "ok" if row.ok else "WRONG"
            figures = f"{row.checked:>7}  {row.skipped:>7}  {row.worst:>11.1e}"
            lines.append(f"  {name:<{wide}}  {shape:<{wide_shape}}  {figures}  {verdict}")
        structure: dict[str, bool] = {}
        for row in self.rows:
            if not row.checked + row.skipped:
                structure[row.what] = structure.get(row.what, True) and row.ok
        if structure:
            lines.append("  " + ", ".join(f"{what}: {'ok' if ok else 'WRONG'}" for what, ok in structure.items()))
        total = self.checked + self.skipped
        lines.append(f"  skipped at kinks: {self.skipped} of {total} ({100 * self.skipped / max(1, total):.2f} %)")
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  {failure}" for failure in self.failures]
        count = len(self.failures)
        lines.append("  all gradients right" if self.ok else f"  {count} failure{'' if count == 1 else 's'}")
        return "\n".join(lines)
