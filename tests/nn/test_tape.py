"""The tape of a critic is right for any function in it, and takes the least number of passes."""

import functools

import pytest
import torch

import fastgan
from fastgan import backends
from fastgan.nn._penalty import paths_of

from .penalty_critics import CRITICS, WAYS, assert_right, build, copies, dcgan, pair, path, step_of_ours
from .penalty_functions import ANY, FAST, Around

OPS = ("conv_norm_act", "conv_norm_act_dx", "conv_norm_act_dw")


@WAYS
@pytest.mark.parametrize("name", FAST)
def test_functions_on_the_fast_path(name, by_hand, ours):
    for model in assert_right(build(lambda: Around(FAST[name])), by_hand, ours, calls=1):
        assert path(model, step=ours is step_of_ours) == "fast", paths_of(model)


@WAYS
@pytest.mark.parametrize("name", ANY)
def test_any_function(name, by_hand, ours):
    assert_right(build(lambda: Around(ANY[name])), by_hand, ours)


class Log:
    """The batch sizes that each op of convolutions ran with, and whether one ran on nothing but zeros."""

    def __init__(self, monkeypatch, backend):
        self.sizes, self.zeros = {name: [] for name in OPS}, 0
        module = backends.load(backend, "conv_norm_act")
        for name in OPS:
            monkeypatch.setattr(module, name, functools.partial(self._run, name, getattr(module, name)))

    def clear(self):
        for sizes in self.sizes.values():
            sizes.clear()
        self.zeros = 0

    def _run(self, name, run, *args):
        images = [t for t in args if isinstance(t, torch.Tensor) and t.dim() == 4]
        self.zeros += any(not t.any() for t in images)
        self.sizes[name].append(images[0].shape[0])
        return run(*args)


@pytest.fixture
def log(monkeypatch):
    with fastgan.use_backend("reference"):
        yield Log(monkeypatch, "reference")


PASSES = {"dcgan": 3, "dcgan-no-bias": 3, "patch": 3, "residual": 6}


@pytest.mark.parametrize("converted", [False, True], ids=["stock", "converted"])
@pytest.mark.parametrize("name", PASSES)
def test_passes_of_a_penalty(log, name, converted):
    critic, layers = copies(build(CRITICS[name]))[converted], PASSES[name]
    log.clear()
    penalty = fastgan.gradient_penalty(critic, *pair(3))
    assert log.sizes == {"conv_norm_act": [3] * layers, "conv_norm_act_dx": [3] * layers, "conv_norm_act_dw": []}
    penalty.backward()
    # the tangent of what comes last is needed by nobody; after the residual critic's convolutions comes a linear layer
    tangents = layers if name == "residual" else layers - 1
    assert log.sizes["conv_norm_act"] == [3] * (layers + tangents)
    assert log.sizes["conv_norm_act_dx"] == log.sizes["conv_norm_act_dw"] == [3] * layers
    assert log.zeros == 0


@pytest.mark.parametrize("converted", [False, True], ids=["stock", "converted"])
@pytest.mark.parametrize("name", PASSES)
def test_passes_of_a_step(log, name, converted):
    critic, layers = copies(build(CRITICS[name]))[converted], PASSES[name]
    calls = []
    critic.register_forward_hook(lambda *_: calls.append(1))
    log.clear()
    fastgan.critic_step_wgan_gp(critic, *pair(3))
    tangents = layers if name == "residual" else layers - 1
    assert calls == [1]
    assert log.sizes["conv_norm_act"] == [9] * layers + [3] * tangents
    # by the first layer's input only the points' gradient is needed
    assert log.sizes["conv_norm_act_dx"] == [9] * (layers - 1) + [3]
    assert log.sizes["conv_norm_act_dw"] == [9] * layers
    assert log.zeros == 0


def test_frozen_layers_take_fewer_passes(log):
    critic = build(dcgan(True))
    critic[2].requires_grad_(False)
    critic[4].requires_grad_(False)
    log.clear()
    fastgan.gradient_penalty(critic, *pair(3)).backward()
    assert [len(log.sizes[name]) for name in OPS] == [3, 3, 1]
