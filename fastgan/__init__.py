"""Fused Triton and C++/CUDA kernels for training GANs in PyTorch, as drop-in modules."""

from fastgan import nn
from fastgan.backends import BackendUnavailable, use_backend
from fastgan.convert import convert, explain, revert
from fastgan.nn.gradient_penalty import critic_step_wgan_gp, gradient_penalty

__version__ = "0.1.0"
__all__ = ["BackendUnavailable", "__version__", "convert", "critic_step_wgan_gp", "explain", "gradient_penalty", "nn", "revert", "use_backend"]
