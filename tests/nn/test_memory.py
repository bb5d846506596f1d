"""What converted models keep for backward."""

import copy
from collections import Counter

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

import fastgan
from fastgan.models.dcgan import Discriminator, Generator

from .common import generator, latents, twins

BATCH = 2


class Kept:
    """The tensors that one forward pass keeps for backward, parameters left out."""

    def __init__(self, model, x):
        parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
        saved = []
        with saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            self.result = model(x)
        self.tensors = [t for t in saved if t.untyped_storage().data_ptr() not in parameters]
        self.distinct = {t.untyped_storage().data_ptr(): t for t in self.tensors}

    def bytes(self):
        return sum(t.untyped_storage().nbytes() for t in self.distinct.values())

    def bytes_of_all_calls(self):
        return sum(t.untyped_storage().nbytes() for t in self.tensors)

    def images(self):
        """Return how many distinct tensors are kept of each shape of an image."""
        return Counter(tuple(t.shape) for t in self.distinct.values() if t.dim() == 4)


def both(model, x):
    return Kept(model, x), Kept(fastgan.convert(copy.deepcopy(model)), x)


def figures(stock, ours):
    distinct, calls = (stock.bytes(), ours.bytes()), (stock.bytes_of_all_calls(), ours.bytes_of_all_calls())
    rows = (("distinct storages", *distinct), ("sum over all calls", *calls))
    return "; ".join(f"{what}: stock {s} bytes, converted {o}, {o / s:.3f} of it" for what, s, o in rows)


@pytest.fixture(scope="module")
def dcgan():
    return Generator(64), torch.randn(BATCH, 100, 1, 1)


def test_a_generator_keeps_half(backend, dcgan):
    stock, ours = both(*dcgan)
    assert ours.bytes_of_all_calls() <= 0.5 * stock.bytes_of_all_calls(), figures(stock, ours)
    # both keep the result: 1/21 of stock's bytes
    assert ours.bytes() <= 0.53 * stock.bytes(), figures(stock, ours)


def test_a_generator_keeps_neither_normalised_nor_activated_tensors(backend, dcgan):
    stock, ours = both(*dcgan)
    hidden = [(BATCH, 512, 4, 4), (BATCH, 256, 8, 8), (BATCH, 128, 16, 16), (BATCH, 64, 32, 32)]
    ends = {(BATCH, 100, 1, 1): 1, (BATCH, 3, 64, 64): 1}
    assert stock.images() == dict.fromkeys(hidden, 2) | ends
    assert ours.images() == dict.fromkeys(hidden, 1) | ends


def test_a_critic_keeps_one_tensor_of_each_layer_and_none_of_the_first(backend):
    stock, ours = both(Discriminator(64, features=32), torch.randn(BATCH, 3, 64, 64))
    activated, normalised = (BATCH, 32, 32, 32), [(BATCH, 64, 16, 16), (BATCH, 128, 8, 8), (BATCH, 256, 4, 4)]
    image = {(BATCH, 3, 64, 64): 1}
    assert stock.images() == dict.fromkeys(normalised, 2) | image | {activated: 1}
    assert ours.images() == dict.fromkeys(normalised, 1) | image


@pytest.mark.parametrize("state", ["no gradients wanted", "no_grad"])
def test_nothing_is_kept_where_stock_keeps_nothing(backend, state):
    for model in twins(generator()):
        if state == "no_grad":
            with torch.no_grad():
                assert not Kept(model, latents()).tensors
        else:
            assert not Kept(model.requires_grad_(False), latents()).tensors


def test_what_is_kept_is_freed_by_backward(backend):
    """A graph gone through once holds no image any more, as in stock."""
    for model in twins(generator()):
        kept = Kept(model, latents())
        kept.result.sum().backward()
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            kept.result.sum().backward()
