"""A contestant sets the threads of its library for a process of its own; here it shares one with other tests."""

import sys

import pytest


@pytest.fixture(autouse=True)
def torch_keeps_its_threads():
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    yield
    if torch:
        torch.set_num_threads(threads)
