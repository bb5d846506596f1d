"""Runs a group of layers as one fused op, or layer by layer where that would be noticed.

``Sequential`` and traced models share it.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from fastgan import ops
from fastgan.backends.reference.activation import SAVES_INPUT
from fastgan.nn._autocast import autocast_dtype
from fastgan.nn._conv import Convolution, Value, Vectors, conv_act, finish, tensor_of
from fastgan.nn._layers import (
    ACT,
    CONV,
    NORM,
    NORM_DIMS,
    Activation,
    activation_after,
    activation_of,
    changes_input,
    kind_of,
    stock_activation,
)
from fastgan.nn._parts import part_by_part, parts_of
from fastgan.nn._plain import why_not_here
from fastgan.nn._reasons import (
    shows_output,
    vectors_of,
    why_not_act,
    why_not_backend,
    why_not_conv,
    why_not_conv_norm_act,
    why_not_input,
    why_not_norm,
    why_not_norm_act,
)
from fastgan.nn._small import few_values, little_work
from fastgan.nn._sync import process_group_of, sync_norm_act
from fastgan.nn.functional import run_norm_act, update_running


def count_batch(norm: _BatchNorm, vectors: Vectors) -> tuple[bool, float, Vectors]:
    """Count the batch as torch does, and return whether its statistics are used, momentum, and what to update."""
    weight, bias, mean, var = vectors
    training, momentum = norm.training or mean is None, norm.momentum
    if norm.training and not norm.track_running_stats:
        mean = var = None
    elif norm.training and (count := norm.num_batches_tracked) is not None:
        count.add_(1)
        if momentum is None:
            momentum = 1.0 / float(count)
    return training, 0.0 if momentum is None else momentum, (weight, bias, mean, var)


def fused_norm_act(
    x: Tensor, norm: _BatchNorm, activation: str, negative_slope: float, act_first: bool, parts: int = 1
) -> Tensor | None:
    """Return batch norm and activation of x by one op, None if that cannot be. Counts the batch as torch does.

    Args:
        parts: of the batch, each of which has its own op and is counted.
    """
    if parts == 1 and few_values(x, norm):
        return None
    # a subclass is a BatchNormAct2d
    if why_not_input(x) or x.dim() not in NORM_DIMS.get(type(norm), (4,)):
        return None
    vectors, part = vectors_of(norm), (x.shape[0] // parts, *x.shape[1:])
    if why_not_norm(norm, vectors, (part, x.device, x.dtype)) or why_not_backend("norm_act", x.device, x.dtype):
        return None
    run = partial(_norm_act, norm, vectors, activation, negative_slope, act_first)
    return run(x) if parts == 1 else part_by_part(run, parts, x)


def _norm_act(
    norm: _BatchNorm, vectors: Vectors, activation: str, negative_slope: float, act_first: bool, x: Tensor
) -> Tensor:
    group = process_group_of(norm)
    if group is not None and act_first:
        x, activation = stock_activation(x, (activation, negative_slope, False)), "identity"
    training, momentum, vectors = count_batch(norm, vectors)
    if group is not None:
        return sync_norm_act(x, None, vectors, momentum, norm.eps, activation, negative_slope, group)
    attributes = (norm.eps, activation, negative_slope, act_first)
    return run_norm_act(x, *vectors, training, momentum, *attributes)


def norm_act(x: Tensor, norm: _BatchNorm, act: Activation, act_first: bool = False, private: bool = False) -> Tensor:
    """Return act(norm(x)), or norm(act(x)) with ``act_first``: by one op where nobody can tell, else by the modules.

    Args:
        norm: of kind NORM.
        private: nobody but the caller holds x, so that an activation may change it in place.
    """
    if not why_not_norm_act(norm, act, act_first, private):
        name, slope = activation_of(act)
        y = fused_norm_act(x, norm, name, slope, act_first, parts_of(norm))
        if y is not None:
            return y
    return norm(stock_activation(x, act)) if act_first else stock_activation(norm(x), act)


def conv_group(
    value: Value, conv: _ConvNd, norm: _BatchNorm | None = None, act: Activation | None = None, act_first: bool = False,
    lazy: bool = False,
) -> Value:  # fmt: skip
    """Return act(norm(conv(value))), norm(act(conv(value))) with ``act_first``, or less where norm or act is None.

    Args:
        conv: of kind CONV.
        lazy: the next layer is a convolution, so that norm and activation may be left to it.
    """
    x = tensor_of(value)
    if why_not_conv(conv, x):
        return _after(conv(finish(value)), norm, act, act_first, not shows_output(conv))
    c = Convolution.of(conv)
    if c.why_not(x) or why_not_backend("conv_norm_act", x.device, autocast_dtype(x)):
        return _after(c.stock(finish(value)), norm, act, act_first)
    if norm is None:
        if act is None:
            return conv_act(value, c, "identity", 0.0, lazy)
        if why_not_act(act):
            return _after(finish(conv_act(value, c, "identity", 0.0, False)), None, act, False)
        return conv_act(value, c, *activation_of(act), lazy)
    shape = (x.shape[0], c.channels(), *c.output_size(x))
    meta = (shape, x.device, autocast_dtype(x))
    after, first = activation_after(norm, act, act_first)
    name, slope = activation_of(after)
    separate = parts_of(norm) > 1 or (first and (name in SAVES_INPUT or process_group_of(norm) is not None))
    if separate or why_not_conv_norm_act(norm, act) or why_not_norm(norm, vectors_of(norm), meta):
        # a norm of torch's alone is a group here, too
        act = after if type(norm) in NORM_DIMS else act
        return _after(finish(conv_act(value, c, "identity", 0.0, False)), norm, act, act_first)
    return _conv_norm_act(value, c, norm, name, slope, first, lazy)


def _conv_norm_act(
    value: Value, conv: Convolution, norm: _BatchNorm, name: str, slope: float, act_first: bool, lazy: bool
) -> Value:
    training, momentum, vectors = count_batch(norm, vectors_of(norm))
    group = process_group_of(norm)
    raw = conv.norm_act(value, vectors, training, norm.eps, name, slope, act_first, lazy and group is None)
    if group is not None:
        return sync_norm_act(raw.u, raw.norm[2:], vectors, momentum, norm.eps, name, slope, group)
    if training:
        update_running(raw.u, vectors, raw.norm, momentum)
    return raw if lazy else finish(raw)


def _after(y: Tensor, norm: _BatchNorm | None, act: Activation | None, act_first: bool, private: bool = True) -> Tensor:
    """Return what the layers after a convolution make of its result; private: nobody else holds it."""
    if norm is not None:
        return norm(y) if act is None else norm_act(y, norm, act, act_first, private)
    if act is None:
        return y
    if few_values(y) or (not private and changes_input(act)):
        return stock_activation(y, act)
    name, slope = activation_of(act)
    if why_not_act(act) or why_not_input(y) or y.dim() < 2 or why_not_backend("bias_act", y.device, y.dtype):
        return stock_activation(y, act)
    return y if name == "identity" else ops.bias_act.bias_act(y, None, name, slope)


def traced_norm_act(x: Tensor, norm: nn.Module, act: Activation, act_first: bool = False) -> Tensor:
    """``norm_act`` for traced code, where the modules may have been replaced since."""
    if kind_of(norm) == NORM and _still_known(act) and not why_not_here():
        return norm_act(x, norm, act, act_first)  # type: ignore[arg-type]
    return norm(stock_activation(x, act)) if act_first else stock_activation(norm(x), act)


def traced_conv(
    x: Tensor, conv: nn.Module, norm: nn.Module | None = None, act: Activation | None = None, act_first: bool = False
) -> Tensor:
    """``conv_group`` for traced code, where the modules may have been replaced since."""
    known = kind_of(conv) == CONV and (norm is None or kind_of(norm) == NORM) and (act is None or _still_known(act))
    if known and not why_not_here() and not little_work(x, conv, norm):  # type: ignore[arg-type]
        return finish(conv_group(x, conv, norm, act, act_first))  # type: ignore[arg-type]
    return one_by_one(x, conv, norm, act, act_first)


def one_by_one(x: Tensor, conv: nn.Module, norm: nn.Module | None, act: Activation | None, act_first: bool) -> Tensor:
    """Return what torch's own layers make of x."""
    y = conv(x)
    for layer in (act, norm) if act_first else (norm, act):
        if layer is not None:
            y = stock_activation(y, layer)
    return y


def _still_known(act: Activation) -> bool:
    return isinstance(act, tuple) or kind_of(act) == ACT
