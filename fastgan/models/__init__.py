"""Models to train; each is built from stock ``torch.nn`` modules, which ``fastgan.convert`` turns into fused ones."""

from fastgan.models import (
    cgan,
    cyclegan,
    dcgan,
    dcgan_keras,
    infogan,
    inpaint,
    mlp,
    progressive,
    srgan,
    videogan,
)
from fastgan.models.recipe import Batch, Recipe, Setup

_RECIPES = (
    *(mlp.MLP, dcgan.DCGAN, dcgan_keras.DCGANKeras, cgan.CGAN, infogan.InfoGAN, progressive.Progressive),
    *(srgan.SRGAN, inpaint.Inpaint, cyclegan.CycleGAN, videogan.VideoGAN),
)
MODELS: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in _RECIPES}

__all__ = [
    "MODELS",
    "Batch",
    "Recipe",
    "Setup",
    "cgan",
    "cyclegan",
    "dcgan",
    "dcgan_keras",
    "infogan",
    "inpaint",
    "mlp",
    "progressive",
    "srgan",
    "videogan",
]
