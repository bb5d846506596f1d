"""What all tests share."""

import pytest
import torch
import torch._inductor.config

import fastgan

# inductor keeps compiled graphs on disk and does not notice that a shape function of ours has changed
torch._inductor.config.force_disable_caches = True

# the tensors of the tests are small: more threads only wait for each other; test_robustness.py uses several
torch.set_num_threads(1)


@pytest.fixture
def backend(request):
    """Run the whole test, so its backward passes too, on the backend named by the parameter."""
    with fastgan.use_backend(request.param):
        yield request.param


@pytest.fixture
def nan_in_new_memory():
    """Fill all new memory with NaN: what a kernel forgets to write shows."""
    was_on, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(was_on, warn_only=warned)


@pytest.fixture
def threads():
    """Return ``torch.set_num_threads``, undone at the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
