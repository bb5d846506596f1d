"""Fused Triton and C++/CUDA kernels for training GANs in PyTorch, as drop-in modules."""

from fastgan.backends import BackendUnavailable, use_backend

__version__ = "0.1.0"
__all__ = ["BackendUnavailable", "__version__", "use_backend"]
