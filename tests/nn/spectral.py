"""Layers and critics with spectral norm that the tests of it share."""

import copy

import torch
from torch import nn
from torch.nn.utils import parametrizations

import fastgan
from fastgan.nn import utils
from fastgan.testing import CountOps, random_values

newer, older = parametrizations.spectral_norm, nn.utils.spectral_norm
ours = utils.spectral_norm
# a layer, and the shape of its input; none for indices
LAYERS = {
    "Linear": (lambda: nn.Linear(5, 4), (3, 5)),
    "Conv1d": (lambda: nn.Conv1d(3, 4, 3), (2, 3, 7)),
    "Conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), groups=2), (2, 4, 7, 6)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 3)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(3, 4, 3), (2, 3, 5)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(3, 4, 4, 2, 1), (2, 3, 4, 4)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(3, 2, 2), (1, 3, 3, 2, 3)),
    "Embedding": (lambda: nn.Embedding(6, 3), None),
}


def layer(name, apply, dtype=torch.float64, **options):
    """Return a layer with spectral norm and an input for it, both the same at each call."""
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    module = apply(make().to(dtype), **options)
    return module, torch.arange(6).reshape(2, 3) if shape is None else random_values(shape, 1).to(dtype)


def sn_critic(apply, width=8, **options):
    """Return a critic of 16 x 16 pixels in float64 with four spectral norms, nested in two Sequentials."""
    torch.manual_seed(0)
    convs = nn.Sequential(
        nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(width, 2 * width, 4, 2, 1), nn.LeakyReLU(0.1)
    )
    model = nn.Sequential(convs, nn.Conv2d(2 * width, 3, 3), nn.Flatten(), nn.Linear(12, 1)).double()
    for module in (convs[0], convs[2], model[1], model[3]):
        apply(module, **options)
    return model


def vectors(module):
    """Return u and v of the weight of a layer of either kind."""
    if hasattr(module, "weight_orig"):
        return module.weight_u, module.weight_v
    norm = module.parametrizations.weight[0]
    return norm._u, norm._v


def original(module):
    """Return the weight that is not divided by sigma."""
    return module.weight_orig if hasattr(module, "weight_orig") else module.parametrizations.weight.original


def converted(model):
    return fastgan.convert(copy.deepcopy(model))


def iterations(f, *args):
    """Return how many calls iterate while f runs."""
    with CountOps() as count:
        f(*args)
    return count["spectral_norm_power_iteration"]
