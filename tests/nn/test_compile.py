"""torch.compile takes converted models whole, without a graph break."""

import pytest
import torch

import fastgan
import fastgan.nn as fnn

from . import zoo
from .common import assert_same, critic, generator, images, latents, twins


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Graphs:
    """A compiler that keeps the code of each graph it gets."""

    def __init__(self):
        self.codes = []

    def __call__(self, graph, inputs):
        self.codes.append(graph.code)
        return graph.forward


def results(model, data):
    model.zero_grad()
    y = model(data)
    y = y[0] if isinstance(y, tuple) else y
    y.sin().sum().backward()
    return [y, *(p.grad for p in model.parameters()), *model.buffers()]


@pytest.mark.parametrize(
    ("make", "data", "training"),
    [
        (generator, latents(), True),
        (critic, images(), False),
        (zoo.Block, images(size=6), True),
        (lambda: zoo.Named(4), images(), False),
    ],
    ids=["generator", "critic", "traced", "own"],
)
def test_fullgraph(backend, make, data, training):
    stock, ours = twins(make())
    stock.train(training), ours.train(training)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        assert_same(results(stock, data), results(compiled, data))


def test_ops_are_in_the_graph(backend):
    graphs = Graphs()
    _, ours = twins(critic())
    torch.compile(ours, fullgraph=True, backend=graphs)(images())
    assert graphs.codes[0].count("fastgan.conv_norm_act(") == graphs.codes[0].count("torch.ops.fastgan.") == 3


def test_hooks_and_modes_compile_again(backend):
    graphs = Graphs()
    stock, ours = twins(critic())
    compiled = torch.compile(ours, fullgraph=True, backend=graphs)
    stock(images()), compiled(images())
    for model in (stock, ours):
        model.eval()
        model[3].register_forward_hook(lambda m, a, out: out * 2)
    assert_same([stock(images())], [compiled(images())])
    assert [code.count("fastgan.conv_norm_act(") for code in graphs.codes] == [3, 3]
    assert ["batch_norm(" in code for code in graphs.codes] == [False, True]


def test_no_fast_backend(no_fast_backend):
    graphs = Graphs()
    _, ours = twins(critic())
    compiled = torch.compile(ours, fullgraph=True, backend=graphs)
    compiled(images())
    assert "fastgan" not in graphs.codes[-1]
    with fastgan.use_backend("reference"):
        compiled(images())
    assert "fastgan.conv_norm_act" in graphs.codes[-1]


def test_modules(backend):
    model = torch.nn.Sequential(fnn.ConvNormAct2d(3, 4, 3), fnn.ConvTransposeNormAct2d(4, 4, 3, norm=False))
    model.append(fnn.BiasAct(4)).append(fnn.BatchNormAct2d(4, act_first=True)).double()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    model.eval()
    assert_same(results(model, images()), results(compiled, images()))
