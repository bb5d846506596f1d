"""Every test of modules that asks for ``backend`` runs on each backend that this machine has for CPU tensors."""

import pytest

import fastgan
from fastgan.backends import native


@pytest.fixture(params=["reference", "native"])
def backend(request):
    if request.param == "native" and native.missing():
        pytest.skip(native.missing())
    with fastgan.use_backend(request.param):
        yield request.param


@pytest.fixture
def no_fast_backend(monkeypatch):
    """As on a machine where nothing was built: ``auto`` is left with the reference."""
    from fastgan import backends
    from fastgan.nn import _reasons

    monkeypatch.setattr(backends, "unavailable", lambda name, *_: "" if name == "reference" else f"{name} is not here")
    backends.automatic.cache_clear()
    _reasons._no_fast_backend.cache_clear()
    with fastgan.use_backend("auto"):
        yield
    backends.automatic.cache_clear()
    _reasons._no_fast_backend.cache_clear()
