"""What an exhibit is, and how it is planted: a wrong op in a device's column, or a wrong method in a class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ... import kernels

Array = Any  # of NumPy; wrong ops are written for the numpy device


@dataclass(frozen=True)
class Exhibit:
    """One mistake that people make.

    name: short, with hyphens. story: what they do and where it shows. ops: op → its wrong version, with the op's own
    arguments. methods: (class, name of the method, its wrong version) where the mistake is not in an op.
    hidden: True where forward and backward are wrong together, so that no gradient check can see it.
    """

    name: str
    story: str
    ops: Mapping[str, Callable[..., None]] = field(default_factory=dict)
    methods: tuple[tuple[type, str, Callable[..., Any]], ...] = ()
    place: str = ""
    hidden: bool = False

    @property
    def places(self) -> tuple[str, ...]:
        """The ops, or the class, that it is planted in."""
        return (*self.ops, *((self.place,) if self.place else ()))

    def kernels(self, unchecked: bool = False) -> kernels.Kernels:
        """The ops of the numpy device with the wrong ones among them."""
        return kernels.Kernels("numpy", {**kernels.COLUMNS["numpy"], **self.ops}, unchecked)


def op_exhibit(hidden: bool = False, **ops: Callable[..., None]) -> Exhibit:
    """The exhibit of wrong ops: it is named after the first one, whose docstring is the story."""
    return Exhibit(*_name_and_story(ops), ops, hidden=hidden)


def op_exhibits(op: str, *wrong: Callable[..., None]) -> list[Exhibit]:
    """An exhibit of each of these wrong versions of one op."""
    return [Exhibit(*_name_and_story({op: one}), {op: one}) for one in wrong]


def method_exhibit(place: str, kind: type, hidden: bool = False, **methods: Callable[..., Any]) -> Exhibit:
    """The exhibit of wrong methods of the class `kind`, named as above. place: what checks call that class."""
    wrong = tuple((kind, name, method) for name, method in methods.items())
    return Exhibit(*_name_and_story(methods), methods=wrong, place=place, hidden=hidden)


def _name_and_story(wrong: Mapping[str, Callable[..., Any]]) -> tuple[str, str]:
    first = next(iter(wrong.values()))
    return first.__name__.replace("_", "-"), " ".join((first.__doc__ or "").split())


@contextmanager
def planted(exhibit: Exhibit) -> Iterator[Exhibit]:
    """Inside this context every layer and model that is built on the numpy device has the mistake.

    with planted(exhibit): report = gradcheck(Dense(4, 3))
    """
    column = kernels.COLUMNS["numpy"]
    healthy = [(cls, name, vars(cls).get(name)) for cls, name, _ in exhibit.methods]
    kernels.COLUMNS["numpy"] = {**column, **exhibit.ops}
    try:
        for cls, name, wrong in exhibit.methods:
            setattr(cls, name, wrong)
        yield exhibit
    finally:
        kernels.COLUMNS["numpy"] = column
        for cls, name, right in healthy:
            if right is None:  # inherited
                delattr(cls, name)
            else:
                setattr(cls, name, right)
