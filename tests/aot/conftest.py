"""What the tests of CUDA kernels on the CPU share."""

import shutil

import pytest


@pytest.fixture(scope="session")
def compiler():
    """Return the C++ compiler that the kernels are compiled with."""
    found = shutil.which("g++")
    if not found:
        pytest.skip("g++ is not on PATH: the arithmetic of the CUDA kernels was not checked here")
    return found
