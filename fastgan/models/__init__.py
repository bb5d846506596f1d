"""Models to train; each is built from stock ``torch.nn`` modules, which ``fastgan.convert`` turns into fused ones."""

from fastgan.models import dcgan
from fastgan.models.recipe import Batch, Recipe, Setup

MODELS: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in (dcgan.DCGAN,)}

__all__ = ["MODELS", "Batch", "Recipe", "Setup", "dcgan"]
