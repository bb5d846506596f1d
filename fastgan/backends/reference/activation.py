r"""The activations a(z) and their first two derivatives, of the pre-activation z or of the result s = a(z).

| name       | a(z)               | a'(z), from z or s | a''(z)            | saved |
|------------|--------------------|--------------------|-------------------|-------|
| identity   | z                  | 1                  | 0                 | y     |
| relu       | max(z, 0)          | [z > 0]            | 0                 | y     |
| leaky_relu | z if z > 0 else kz | 1 if z > 0 else k  | 0                 | y     |
| tanh       | tanh(z)            | 1 - s^2            | -2s(1 - s^2)      | y     |
| sigmoid    | p = 1/(1 + e^-z)   | s(1 - s)           | (1 - 2s)s(1 - s)  | y     |
| silu       | zp                 | p(1 + z(1 - p))    | p(1-p)(2+z(1-2p)) | x     |

k is ``negative_slope`` >= 0; the sign of s then is the sign of z, so all but silu are differentiated from the result.
"""

from __future__ import annotations

import torch
from torch import Tensor

ACTIVATIONS = ("identity", "relu", "leaky_relu", "tanh", "sigmoid", "silu")
PIECEWISE_LINEAR = ("identity", "relu", "leaky_relu")
SAVES_INPUT = ("silu",)


def act(z: Tensor, activation: str, negative_slope: float) -> Tensor:
    """Return a(z)."""
    if activation == "identity":
        return z
    if activation == "relu":
        return torch.relu(z)
    if activation == "leaky_relu":
        return torch.where(z > 0, z, z * negative_slope)
    if activation == "tanh":
        return torch.tanh(z)
    return torch.sigmoid(z) if activation == "sigmoid" else z * torch.sigmoid(z)


def dact(z: Tensor, activation: str, negative_slope: float) -> Tensor:
    """Return a'(z)."""
    if activation in SAVES_INPUT:
        p = torch.sigmoid(z)
        return p * (1 + z * (1 - p))
    return dact_from_result(act(z, activation, negative_slope), activation, negative_slope)


def dact_from_result(s: Tensor, activation: str, negative_slope: float) -> Tensor:
    """Return a'(z) given s = a(z); not for silu."""
    if activation == "tanh":
        return 1 - s * s
    if activation == "sigmoid":
        return s * (1 - s)
    slope = {"identity": 1.0, "relu": 0.0, "leaky_relu": negative_slope}[activation]
    return torch.where(s > 0, torch.ones_like(s), torch.full_like(s, slope))


def ddact(z: Tensor, activation: str, negative_slope: float) -> Tensor:
    """Return a''(z)."""
    if activation == "tanh":
        s = torch.tanh(z)
        return -2 * s * (1 - s * s)
    if activation in PIECEWISE_LINEAR:
        return torch.zeros_like(z)
    p = torch.sigmoid(z)
    return p * (1 - p) * ((1 - 2 * p) if activation == "sigmoid" else (2 + z * (1 - 2 * p)))
