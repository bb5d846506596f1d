"""What a tape knows of torch's functions: which of them are linear, or piecewise linear, in each sample."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan import ops
from fastgan.backends.geometry import Attributes
from fastgan.backends.layout import accumulate_dtype, is_channels_last
from fastgan.backends.reference.activation import PIECEWISE_LINEAR
from fastgan.nn._autocast import autocast, autocast_weight
from fastgan.nn._checks import pair
from fastgan.nn._conv import Convolution as Sizes
from fastgan.nn._tape import Curved, Samples, Tape
from fastgan.nn._tape_nodes import NO_NORM, Activation, Add, Convolution, Function, Linear, Reshape


def _check_parameters(tape: Tape, **parameters: Any) -> None:
    for name, parameter in parameters.items():
        if parameter is not None and type(parameter) not in (Tensor, torch.nn.Parameter):
            raise Curved(f"the {name} of a layer is a {type(parameter).__name__}, not a plain Tensor")
        if tape.place(parameter) is not None:
            raise Curved(f"the {name} of a layer comes from the critic's input")


def _read(tensor: Tensor | None) -> Tensor | None:
    with torch.enable_grad():
        return None if tensor is None else autocast_weight(tensor)


def _convolve(tape: Tape, x: Tensor, weight: Tensor, bias: Tensor | None, *sizes: Any) -> Tensor:
    """Record torch's convolution; ``sizes`` as the first six of Attributes."""
    _check_parameters(tape, weight=weight, bias=bias)
    if x.dim() != 4 or weight.dim() != 4:
        raise Curved("a convolution of one image, without a dimension of samples, is called")
    if any(isinstance(size, str) for size in sizes):
        raise Curved("the padding of a convolution is given in words")
    stride, padding, dilation, output_padding, transposed, groups = sizes
    stride, padding, dilation, output_padding = (pair(size) for size in (stride, padding, dilation, output_padding))
    convolution = Sizes(weight, bias, stride, padding, dilation, output_padding, transposed, groups)
    if reason := convolution.why_not(x):
        raise Curved(reason)
    given = autocast(x)
    w = _read(weight)
    a = convolution.attributes(channels_last=is_channels_last(given) or is_channels_last(weight))
    return _record_convolution(tape, _cast(tape, x, given), w, bias, a)  # type: ignore[arg-type]


def _cast(tape: Tape, x: Tensor, given: Tensor) -> Tensor:
    """Record that x is used in another dtype."""
    if given is x:
        return x
    place, dtype = tape.place(x), given.dtype
    assert place is not None
    return tape.append(Function(place, lambda t: t.to(dtype)), given)


def _record_convolution(tape: Tape, x: Tensor, weight: Tensor, bias: Tensor | None, a: Attributes) -> Tensor:
    place = tape.place(x)
    assert place is not None
    node = Convolution(place, weight, bias, a)
    b = None if bias is None else bias.detach()
    return tape.append(node, ops.conv_norm_act.conv_norm_act(x.detach(), node.w, b, *NO_NORM, *a)[0])


def _conv2d(
    tape: Tape, input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Tensor:  # fmt: skip
    return _convolve(tape, input, weight, bias, stride, padding, dilation, 0, False, groups)


def _conv_transpose2d(
    tape: Tape, input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    return _convolve(tape, input, weight, bias, stride, padding, dilation, output_padding, True, groups)


def _conv_norm_act(tape: Tape, x: Tensor, weight: Tensor, bias: Any, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    normalises, a = rest[2] is not None, Attributes(*rest[4:])
    if normalises or a.stats:
        raise Curved("it normalises")
    if a.activation not in PIECEWISE_LINEAR:
        raise Curved(f"{a.activation} is not piecewise linear")
    nothing = x.new_empty(0, dtype=accumulate_dtype(x.dtype))
    return _record_convolution(tape, x, weight, bias, a), nothing, nothing


def _linear(tape: Tape, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    _check_parameters(tape, weight=weight, bias=bias)
    given = autocast(input)
    w, b = (_read(t) for t in (weight, bias))
    assert w is not None
    if given.dim() < 2 or weight.dim() < 2:
        raise Curved("a linear layer is called without a dimension of samples, or of its results")
    place = tape.place(_cast(tape, input, given))
    assert place is not None
    node = Linear(place, w, b)
    return tape.append(node, F.linear(given, node.w, None if b is None else b.detach()))


def _check_in_place(tape: Tape, x: Any) -> None:
    """Raise Curved if somebody needs x as it is before it is changed."""
    place = tape.place(x)
    node = next((n for n in tape.nodes if n.output == place), None)
    # the mask of an activation is in its result
    masked = isinstance(node, Activation) or (isinstance(node, Convolution) and node.a.activation != "identity")
    if place is None or tape.used(place) or masked or x._is_view():
        raise Curved("it changes a value in place that others read")


def _activate(
    tape: Tape, x: Tensor, activation: str, negative_slope: float, inplace: bool, bias: Tensor | None = None
) -> Tensor:
    place = tape.place(x)
    assert place is not None
    if not 0 <= negative_slope < float("inf"):
        raise Curved(f"the negative slope is {negative_slope}")
    if inplace:
        _check_in_place(tape, x)
    y = ops.bias_act.bias_act(x, None if bias is None else bias.detach(), activation, negative_slope)
    if inplace:
        y = x.copy_(y)
    return tape.append(Activation(place, activation, negative_slope, bias), y)


def _leaky_relu(tape: Tape, input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return _activate(tape, input, "leaky_relu", negative_slope, inplace)


def _relu(tape: Tape, input: Tensor, inplace: bool = False) -> Tensor:
    return _activate(tape, input, "relu", 0.0, inplace)


def _bias_act(tape: Tape, x: Tensor, bias: Tensor | None, activation: str, negative_slope: float) -> Tensor:
    if activation not in PIECEWISE_LINEAR:
        raise Curved(f"{activation} is not piecewise linear")
    _check_parameters(tape, bias=bias)
    return _activate(tape, x, activation, negative_slope, False, bias)


def _add(tape: Tape, input: Any, other: Any, *, alpha: int = 1, sign: int = 1) -> Tensor:
    a, b = tape.place(input), tape.place(other)
    if a is None or b is None or alpha != 1 or input.shape != other.shape or input.dtype != other.dtype:
        raise Curved("it adds something else than two values of the same shape that come from its input")
    return tape.append(Add(a, b, sign), torch.add(input, other, alpha=sign))


def _sub(tape: Tape, input: Any, other: Any, *, alpha: int = 1) -> Tensor:
    return _add(tape, input, other, alpha=alpha, sign=-1)


def _iadd(tape: Tape, input: Any, other: Any, *, alpha: int = 1) -> Tensor:
    place, b = tape.place(input), tape.place(other)
    _check_in_place(tape, input)
    if place is None or b is None or alpha != 1 or input.shape != other.shape or input.dtype != other.dtype:
        raise Curved("it adds something else than two values of the same shape that come from its input")
    return tape.append(Add(place, b, 1), input.add_(other))


def _reshape(func: Any) -> Callable[..., Tensor]:
    def rule(tape: Tape, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y, place = func(x, *args, **kwargs), tape.place(x)
        assert place is not None
        if y.dtype != x.dtype:
            raise Curved("it reads bits as another type")
        return y if y is x else tape.append(Reshape(place), y)

    return rule


def _function(func: Any, why_not: Callable[..., str] = lambda *args, **kwargs: "") -> Callable[..., Tensor]:
    """Return the rule of a function that is linear in its first argument unless ``why_not`` gives a reason."""

    def rule(tape: Tape, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        place, reason = tape.place(x), why_not(x, *args, **kwargs)
        if reason or place is None:
            raise Curved(reason or f"{func.__name__} takes its input where fastgan does not expect it")
        y = func(x, *args, **kwargs)
        return y if y is x else tape.append(Function(place, lambda t: func(t, *args, **kwargs)), y)

    return rule


def _over_samples(x: Tensor, dim: Any = None, *_: Any, **kwargs: Any) -> str:
    dims = (dim,) if isinstance(dim, int) else dim
    if dims is None or any(d % x.dim() == 0 for d in dims) or kwargs.keys() - {"keepdim"}:
        return "it sums over the samples"
    return ""


def _not_by_number(x: Any, other: Any, **options: Any) -> str:
    number = isinstance(other, (int, float)) and not isinstance(other, (bool, Samples))
    if any(option is not None for option in options.values()):
        return "it rounds a quotient, or writes a product into another tensor"
    return "" if number else "it multiplies by something else than a number"


def _not_zeros(x: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> str:
    if len(pad) >= 2 * x.dim():
        return "it pads the dimension of the samples"
    return "" if value in (None, 0) else "it pads with something else than 0"


def _bends(x: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", *_: Any, **__: Any) -> str:
    return "" if mode in ("nearest", "nearest-exact", "bilinear", "area") else f"interpolation {mode} is not known"


def _to_dtype(x: Tensor, *args: Any, **kwargs: Any) -> str:
    to = [*args, *kwargs.values()]
    return "" if len(to) == 1 and isinstance(to[0], torch.dtype) and to[0].is_floating_point else "it moves its input"


_T = Tensor
_INSPECT = {
    *(getattr(_T, name).__get__ for name in ("shape", "dtype", "device", "layout", "is_cpu", "is_cuda", "ndim")),
    *(getattr(_T, name).__get__ for name in ("requires_grad", "is_sparse", "is_quantized", "is_mkldnn", "is_meta")),
    *(_T.size, _T.dim, _T.numel, _T.stride, _T.is_contiguous, _T.is_floating_point, _T.element_size, _T.__len__),
    torch.numel, torch.is_tensor, torch.is_floating_point, torch.is_autocast_enabled,
}  # fmt: skip
_MULTIPLY = (torch.mul, _T.mul, _T.__mul__, _T.__rmul__, torch.div, _T.div, _T.__truediv__)
RULES: dict[Any, Callable[..., Any]] = {
    torch.conv2d: _conv2d,
    F.conv2d: _conv2d,
    torch.conv_transpose2d: _conv_transpose2d,
    F.conv_transpose2d: _conv_transpose2d,
    F.linear: _linear,
    torch.ops.fastgan.conv_norm_act: _conv_norm_act,
    torch.ops.fastgan.bias_act: _bias_act,
    F.leaky_relu: _leaky_relu,
    F.leaky_relu_: lambda tape, input, negative_slope=0.01: _leaky_relu(tape, input, negative_slope, True),
    **dict.fromkeys((F.relu, torch.relu, _T.relu), _relu),
    **dict.fromkeys((F.relu_, torch.relu_, _T.relu_), lambda tape, input: _relu(tape, input, True)),
    **dict.fromkeys((torch.add, _T.add, _T.__add__, _T.__radd__, operator.add), _add),
    **dict.fromkeys((torch.sub, _T.sub, _T.__sub__), _sub),
    **dict.fromkeys((_T.add_, _T.__iadd__), _iadd),
    **{f: _reshape(f) for f in (_T.view, _T.reshape, _T.flatten, _T.squeeze, _T.unsqueeze, _T.unflatten)},
    **{f: _reshape(f) for f in (torch.reshape, torch.flatten, torch.squeeze, torch.unsqueeze, torch.unflatten)},
    **{f: _function(f) for f in (_T.contiguous, _T.clone, torch.clone, _T.float, _T.half, _T.bfloat16, _T.double)},
    **{f: _function(f) for f in (F.avg_pool2d, F.adaptive_avg_pool2d, F.pixel_shuffle, F.pixel_unshuffle)},
    **{f: _function(f, _over_samples) for f in (torch.mean, _T.mean, torch.sum, _T.sum)},
    **{f: _function(f, _not_by_number) for f in _MULTIPLY},
    F.pad: _function(F.pad, _not_zeros),
    F.interpolate: _function(F.interpolate, _bends),
    _T.to: _function(_T.to, _to_dtype),
}


def record_call(tape: Tape, func: Any, args: tuple, kwargs: dict) -> Any:
    """Run one call of a torch function, and record it where it takes what comes from the tape's input."""
    if not any(_comes_from(tape, value) for value in (*args, *kwargs.values())):
        return func(*args, **kwargs)
    if func in _INSPECT:
        return _inspect(tape, func, args, kwargs)
    rule, name = RULES.get(func), getattr(func, "__name__", str(func))
    if rule is None:
        raise Curved(f"{name} is not known to be linear, or piecewise linear, in each sample")
    # a Function of the user's own runs without gradients, too
    if not torch.is_grad_enabled():
        raise Curved("a part of it runs without gradients, or has a derivative of its own")
    if "input" in kwargs:
        args = (kwargs.pop("input"), *args)
    with torch.no_grad():
        return rule(tape, *args, **kwargs)


def _inspect(tape: Tape, func: Any, args: tuple, kwargs: dict) -> Any:
    """Return what a function says of a value; in a step, where samples are counted, in a type that shows if used."""
    found = func(*args, **kwargs)
    if tape.start == 0:
        return found
    if func in (_T.__len__, _T.numel, torch.numel):
        raise Curved("it counts its samples, and a step has three batches in one")
    if isinstance(found, torch.Size):
        return torch.Size((Samples(found[0]), *found[1:]))
    first = func is _T.size and (args[1:] or tuple(kwargs.values()))[0] in (0, -args[0].dim())
    return Samples(found) if first else found


def _comes_from(tape: Tape, value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(_comes_from(tape, part) for part in value)
    return tape.place(value) is not None
