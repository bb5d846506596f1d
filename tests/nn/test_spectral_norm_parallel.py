"""Spectral norm in several processes: each does what one process does with the whole batch."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

import fastgan

from .common import assert_same, images
from .parallel import in_two_processes
from .spectral import newer, older, ours, sn_critic

MAKES = {"newer": newer, "older": older, "ours": ours}
BACKENDS = ("reference", "auto")
REAL, FAKE = images(8), images(8, seed=1)


def steps(model, real, fake):
    """Return losses' gradients, parameters and buffers after two steps of the hinge loss, fake and real apart."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (torch.relu(1 - model(real)).mean() + torch.relu(1 + model(fake)).mean()).backward()
        optimizer.step()
    return [p.grad for p in model.parameters()] + list(model.parameters()) + list(model.buffers())


def process(rank):
    half, results = slice(4 * rank, 4 * rank + 4), {}
    for backend in BACKENDS:
        with fastgan.use_backend(backend):
            for name, make in MAKES.items():
                model = DistributedDataParallel(fastgan.convert(sn_critic(make)))
                results[backend, name] = [t.detach() for t in steps(model, REAL[half], FAKE[half])]
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return in_two_processes(process, tmp_path_factory.mktemp("parallel"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", MAKES)
def test_two_processes_are_one(results, backend, make):
    expected = [t.detach() for t in steps(sn_critic(older if make == "older" else newer), REAL, FAKE)]
    for rank in range(2):
        assert_same(results[rank][backend, make], expected)
