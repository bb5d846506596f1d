"""Fused modules and functions, with the arguments and the state_dict of their torch.nn counterparts."""

from fastgan.nn import functional
from fastgan.nn.gradient_penalty import GradientPenalty
from fastgan.nn.modules import BatchNormAct2d, BiasAct, ConvNormAct2d, ConvTransposeNormAct2d
from fastgan.nn.sequential import Sequential

__all__ = ["BatchNormAct2d", "BiasAct", "ConvNormAct2d", "ConvTransposeNormAct2d", "GradientPenalty", "Sequential", "functional"]
