"""Models to train; each is built from stock ``torch.nn`` modules, which ``fastgan.convert`` turns into fused ones."""

from fastgan.models import cgan, dcgan, dcgan_keras, infogan, mlp, progressive
from fastgan.models.recipe import Batch, Recipe, Setup

_RECIPES = (
    mlp.MLP,
    dcgan.DCGAN,
    dcgan_keras.DCGANKeras,
    cgan.CGAN,
    infogan.InfoGAN,
    progressive.Progressive,
)
MODELS: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in _RECIPES}

__all__ = ["MODELS", "Batch", "Recipe", "Setup", "cgan", "dcgan", "dcgan_keras", "infogan", "mlp", "progressive"]
