"""Stock Sequentials as JAX functions: NHWC, parameters and running statistics taken from the torch modules."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers.peer import Refused

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Parameters = list[dict[str, Any]]


def array(x: Tensor) -> Any:
    """A JAX array of a tensor, images as NHWC."""
    value = x.detach().cpu().numpy()
    return jnp.asarray(np.ascontiguousarray(value.transpose(0, 2, 3, 1)) if value.ndim == 4 else value)


def parameters(model: nn.Module) -> Parameters:
    """The parameters of each module; weights of convolutions as (kernel, kernel, in, out)."""
    found = []
    for module in model.modules():
        own = {name: p.detach().cpu().numpy() for name, p in module.named_parameters(recurse=False)}
        if isinstance(module, nn.Conv2d):
            own["weight"] = own["weight"].transpose(2, 3, 1, 0)
        elif isinstance(module, nn.ConvTranspose2d):
            # a transposed convolution is one of the stretched image with the weight turned round
            own["weight"] = own["weight"].transpose(2, 3, 0, 1)[::-1, ::-1]
        if own:
            found.append({name: jnp.asarray(np.ascontiguousarray(value)) for name, value in own.items()})
    return found


def flat(model: nn.Module, values: Parameters) -> Tensor:
    """Values like ``parameters`` in the order of the torch model's parameters."""
    found = []
    modules = [m for m in model.modules() if list(m.parameters(recurse=False))]
    for module, own in zip(modules, values, strict=True):
        for name, _ in module.named_parameters(recurse=False):
            value = np.array(own[name])
            if isinstance(module, nn.Conv2d) and name == "weight":
                value = value.transpose(3, 2, 0, 1)
            elif isinstance(module, nn.ConvTranspose2d) and name == "weight":
                value = value[::-1, ::-1].transpose(2, 3, 0, 1)
            found.append(torch.from_numpy(np.ascontiguousarray(value).flatten()))
    return torch.cat(found)


def function(model: nn.Module, dtype: Any) -> Any:
    """``apply(parameters, x) -> y``; batch statistics are of the batch, as in training.

    Args:
        dtype: that convolutions are computed in, as under torch's autocast.
    Raises: Refused for a module that it does not know.
    """
    steps = [m for m in model.modules() if not list(m.children())]
    known = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.LeakyReLU, nn.ReLU, nn.Tanh, nn.Flatten)
    for module in steps:
        if not isinstance(module, known):
            raise Refused(f"{type(module).__name__} is not written in JAX here")
    if len(list(model.children())) != len(steps):
        raise Refused("only plain Sequentials are written in JAX here")

    def apply(values: Parameters, x: Any) -> Any:
        own = iter(values)
        for module in steps:
            x = _one(module, next(own) if list(module.parameters()) else {}, x, dtype)
        return x

    return apply


def _one(module: nn.Module, own: dict[str, Any], x: Any, dtype: Any) -> Any:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        return _convolve(module, own, x.astype(dtype), dtype)
    if isinstance(module, nn.BatchNorm2d):
        wide = x.astype(jnp.float32)
        mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
        return ((wide - mean) * jax.lax.rsqrt(var + module.eps) * own["weight"] + own["bias"]).astype(x.dtype)
    if isinstance(module, nn.LeakyReLU):
        return jnp.where(x > 0, x, module.negative_slope * x)
    if isinstance(module, nn.ReLU):
        return jnp.maximum(x, 0)
    return jnp.tanh(x) if isinstance(module, nn.Tanh) else x.astype(jnp.float32).reshape(-1)


def _convolve(module: Any, own: dict[str, Any], x: Any, dtype: Any) -> Any:
    kernel, stride, padding = module.kernel_size[0], module.stride[0], module.padding[0]
    options: dict[str, Any] = {"window_strides": (stride, stride), "padding": [(padding, padding)] * 2}
    if isinstance(module, nn.ConvTranspose2d):
        edge = kernel - 1 - padding
        options = {"window_strides": (1, 1), "padding": [(edge, edge)] * 2, "lhs_dilation": (stride, stride)}
    y = jax.lax.conv_general_dilated(x, own["weight"].astype(dtype), dimension_numbers=DIMENSIONS, **options)
    return y + own["bias"].astype(dtype) if "bias" in own else y
