"""Models to train; each is built from stock ``torch.nn`` modules, which ``fastgan.convert`` turns into fused ones."""

from fastgan.models import dcgan

__all__ = ["dcgan"]
