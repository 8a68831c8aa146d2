"""What the tests of damaged files share: drawn damage, and a limit on the memory that reading may take."""

import tracemalloc
from contextlib import contextmanager

from hypothesis import strategies as st

FLIPS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4)
CUT = st.one_of(st.none(), st.integers(0, 10**6))


def damaged(data, flips, cut):
    """`data` with the bytes `flips` (place, value) changed, and without what stands behind `cut`."""
    data = bytearray(data)
    for position, byte in flips:
        data[position % len(data)] = byte
    if cut is not None:
        del data[cut % len(data) :]
    return data


@contextmanager
def little_memory():
    """What happens in this context takes less than 8 MiB."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
