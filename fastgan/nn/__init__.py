"""Fused modules and functions, with the arguments and the state_dict of their torch.nn counterparts."""

from fastgan.nn import functional, utils
from fastgan.nn.gradient_penalty import GradientPenalty
from fastgan.nn.modules import BatchNormAct2d, BiasAct, ConvNormAct2d, ConvTransposeNormAct2d
from fastgan.nn.sequential import Sequential
from fastgan.nn.utils import SpectralNormGroup

__all__ = [
    "BatchNormAct2d",
    "BiasAct",
    "ConvNormAct2d",
    "ConvTransposeNormAct2d",
    "GradientPenalty",
    "Sequential",
    "SpectralNormGroup",
    "functional",
    "utils",
]
