"""An op's work in parts: the whole on one thread, or parts side by side where that pays."""

from __future__ import annotations

import numpy as np
from numba import prange

from .compile import inner, jit, parallel

CHUNK = 8192  # numbers per part of a flat array: its parts of all arguments stay in the first- and second-level cache
HEAVY = 1 << 16  # numbers from which threads pay, where each costs an exp
LIGHT = 1 << 18  # and where each costs a few products


def in_parts(unit, pays=0):
    """Decorates body(first, last, *arguments), the work on elements first … last − 1 of an op.

    What it returns is called from Python as run(count, size, *arguments): the body on all `count`
    elements, or, where `size`, the numbers to compute, is at least `pays`, on parts of `unit`
    elements, spread over the threads. Parts do not depend on the number of threads.
    """

    def decorate(body):
        body = jit(body) if pays else inner(body)

        @parallel
        def parts(count, *arguments):
            for part in prange((count + unit - 1) // unit):
                first = np.int64(part) * unit
                body(first, min(count, first + unit), *arguments)

        def run(count, size, *arguments):
            if size < pays:
                body(0, count, *arguments)
            else:
                parts(count, *arguments)

        return run

    return decorate


def in_tasks(body):
    """Decorates body(task, first, last, numbers, *arguments), a task's work on elements first … last − 1.

    What it returns is called from compiled code as run(count, tasks, numbers, *arguments): `count`
    elements in equal shares, one for each task, spread over the threads. `numbers` is a tuple; the
    arguments are none, as Numba wants it.
    """
    body = inner(body)

    @parallel
    def run(count, tasks, numbers, *arguments):
        for each in prange(tasks):
            task = np.int64(each)
            first, last = count * task // tasks, count * (task + 1) // tasks
            body(task, first, last, numbers, *arguments)

    return run
