"""What all tests share: hypothesis draws the same few shapes and options in every run, and the devices there are.
It knows no test."""

import os
from unittest.mock import patch

import pytest
from hypothesis import settings

from tinyvae import kernels
from tinyvae.device import open_device
from tinyvae.errors import DeviceError

settings.register_profile("tinyvae", deadline=None, max_examples=20, derandomize=True, database=None)
settings.load_profile("tinyvae")


@pytest.fixture(scope="session", params=list(kernels.COLUMNS))
def device(request):
    """The name of every device that has ops, one after the other; skipped where this machine lacks it."""
    try:
        open_device(request.param)
    except DeviceError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture(autouse=True)
def the_environment_stays():
    """What a test changes in this process's environment (a command that holds libraries to one thread, say) is put
    back: Numba reads its variables again at every compilation."""
    with patch.dict(os.environ):
        yield
