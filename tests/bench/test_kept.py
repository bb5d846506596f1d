"""What the memory suite counts."""

import torch
from torch import nn
from torch.autograd.profiler import profile

import fastgan
from benchmarks import networks, peers, results, run
from benchmarks.cases import dcgan
from benchmarks.suites.memory import Kept


def test_each_storage_counts_once_without_parameters_until_its_graph_goes():
    model, x = nn.Linear(4, 8), torch.ones(2, 4, requires_grad=True)
    kept = Kept(model)
    with kept.watching():
        # x by the product, y by the exponential and once more by the square
        y = model(x).exp()
        z = y.square()
        assert kept.now == 4 * (2 * 4 + 2 * 8)
    z.sum().backward()
    del y, z
    assert kept.now == 0 and kept.peak == 4 * (2 * 4 + 2 * 8)


def allocated(model, x):
    """Bytes that a forward pass leaves allocated, as torch's allocator tells."""
    with profile(profile_memory=True) as found:
        y = model(x)
    return y, sum(e.nbytes() for e in found.kineto_results.events() if e.name() == "[memory]")


def test_the_count_is_what_the_allocator_says():
    torch.manual_seed(0)
    stock = networks.network(dcgan(32, 8)[:4])
    x = torch.randn(4, 100, 1, 1)
    for model in (stock, fastgan.convert(networks.network(dcgan(32, 8)[:4]))):
        model(x).sum().backward()
        kept = Kept(model)
        with kept.watching():
            model(x)
        y, left = allocated(model, x)
        # the input was there before; running statistics and their like are small
        assert abs(left - (kept.peak - x.nbytes)) < 0.02 * left + 4096
        del y


def test_a_step_of_ours_keeps_less(tiny, settings):
    # what is as small as here runs torch's layers otherwise
    with fastgan.use_backend("reference"):
        (path,) = run.run(settings(["memory"], peers.load(["eager", "fastgan"])))
    game = [row["kept_bytes"] for row in results.read(path)["rows"] if row["case"] == "game"]
    assert game[1] < 0.8 * game[0]
