"""What all tests share: hypothesis draws the same few shapes and options in every run, and the devices there are.
It knows no test."""

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
