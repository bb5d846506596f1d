"""Models to train; each is built from stock ``torch.nn`` modules, which ``fastgan.convert`` turns into fused ones."""

from fastgan.models import cyclegan, dcgan, inpaint, srgan, videogan
from fastgan.models.recipe import Batch, Recipe, Setup

MODELS: dict[str, type[Recipe]] = {
    recipe.name: recipe for recipe in (dcgan.DCGAN, srgan.SRGAN, inpaint.Inpaint, cyclegan.CycleGAN, videogan.VideoGAN)
}

__all__ = ["MODELS", "Batch", "Recipe", "Setup", "cyclegan", "dcgan", "inpaint", "srgan", "videogan"]
