"""What a tape knows of torch's functions: which are (piecewise) linear in each sample, and their derivatives."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan import ops
from fastgan.backends.geometry import Attributes
from fastgan.backends.layout import accumulate_dtype, is_channels_last, reduced_dims
from fastgan.backends.reference.activation import PIECEWISE_LINEAR
from fastgan.nn._checks import pair
from fastgan.nn._conv import Convolution, autocast
from fastgan.nn._tape import Curved, Node, Samples, Tape

_NO_NORM = (None, None, None, None)


def _sum_per_channel(dy: Tensor, bias: Tensor) -> Tensor:
    return dy.sum(reduced_dims(dy), dtype=accumulate_dtype(dy.dtype)).to(bias.dtype)


class _Convolution(Node):
    """y = act(conv(x, weight) + bias)."""

    def __init__(self, x: int, weight: Tensor, bias: Tensor | None, a: Attributes) -> None:
        self.inputs, self.weight, self.bias, self.a = (x,), weight, bias, a
        self.w = weight.detach()

    def _mask(self, tape: Tape, part: slice) -> Tensor | None:
        return None if self.a.activation == "identity" else tape.values[self.output][part]

    def input_gradients(self, tape: Tape, dy: Tensor, part: slice) -> list[Tensor]:
        x, y = tape.values[self.inputs[0]][part], self._mask(tape, part)
        return [ops.conv_norm_act.conv_norm_act_dx(dy, y, self.w, x, *_NO_NORM, *self.a)[0]]

    def tangent(self, tape: Tape, tangents: list[Tensor]) -> Tensor:
        a = self.a._replace(activation="identity")
        t, _, _ = ops.conv_norm_act.conv_norm_act(tangents[0], self.w, None, *_NO_NORM, *a)
        return _masked(t, self._mask(tape, tape.direction), self.a.activation, self.a.negative_slope)

    def weight_gradient(self, tape: Tape, x: Tensor, dy: Tensor) -> Tensor:
        y = self._mask(tape, slice(None))
        return ops.conv_norm_act.conv_norm_act_dw(x, *_NO_NORM, dy, y, list(self.w.shape[2:]), *self.a)

    def bias_gradient(self, tape: Tape, dy: Tensor, part: slice) -> Tensor:
        assert self.bias is not None
        masked = _masked(dy, self._mask(tape, part), self.a.activation, self.a.negative_slope)
        return _sum_per_channel(masked, self.bias)


class _Linear(Node):
    """y = x weight^T + bias, over the last dimension."""

    def __init__(self, x: int, weight: Tensor, bias: Tensor | None) -> None:
        self.inputs, self.weight, self.bias = (x,), weight, bias
        self.w = weight.detach()

    def input_gradients(self, tape: Tape, dy: Tensor, part: slice) -> list[Tensor]:
        return [dy @ self.w]

    def tangent(self, tape: Tape, tangents: list[Tensor]) -> Tensor:
        return tangents[0] @ self.w.mT

    def weight_gradient(self, tape: Tape, x: Tensor, dy: Tensor) -> Tensor:
        return dy.flatten(0, -2).mT @ x.flatten(0, -2)

    def bias_gradient(self, tape: Tape, dy: Tensor, part: slice) -> Tensor:
        assert self.bias is not None
        return dy.flatten(0, -2).sum(0, dtype=accumulate_dtype(dy.dtype)).to(self.bias.dtype)


class _Activation(Node):
    """y = relu(x) or leaky_relu(x), whose derivative shows in y."""

    def __init__(self, x: int, activation: str, negative_slope: float) -> None:
        self.inputs, self.activation, self.negative_slope = (x,), activation, negative_slope

    def input_gradients(self, tape: Tape, dy: Tensor, part: slice) -> list[Tensor]:
        return [_masked(dy, tape.values[self.output][part], self.activation, self.negative_slope)]

    def tangent(self, tape: Tape, tangents: list[Tensor]) -> Tensor:
        y = tape.values[self.output][tape.direction]
        return _masked(tangents[0], y, self.activation, self.negative_slope)


class _Reshape(Node):
    """The same values in another shape; the first dimension stays."""

    def __init__(self, x: int) -> None:
        self.inputs = (x,)

    def input_gradients(self, tape: Tape, dy: Tensor, part: slice) -> list[Tensor]:
        return [dy.reshape(dy.shape[0], *tape.values[self.inputs[0]].shape[1:])]

    def tangent(self, tape: Tape, tangents: list[Tensor]) -> Tensor:
        return tangents[0].reshape(tangents[0].shape[0], *tape.values[self.output].shape[1:])


class _Add(Node):
    """y = a + b, or a - b with ``sign`` -1; both of y's shape."""

    def __init__(self, a: int, b: int, sign: int) -> None:
        self.inputs, self.sign = (a, b), sign

    def input_gradients(self, tape: Tape, dy: Tensor, part: slice) -> list[Tensor]:
        return [dy, dy if self.sign > 0 else -dy]

    def tangent(self, tape: Tape, tangents: list[Tensor]) -> Tensor:
        return torch.add(tangents[0], tangents[1], alpha=self.sign)


class _Function(Node):
    """A torch function that is linear in its first argument; autograd has its derivative."""

    def __init__(self, x: int, run: Callable[[Tensor], Tensor]) -> None:
        self.inputs, self.run = (x,), run

    def input_gradients(self, tape: Tape, dy: Tensor, part: slice) -> list[Tensor]:
        with torch.enable_grad():
            x = tape.values[self.inputs[0]][part].detach().requires_grad_()
            return list(torch.autograd.grad(self.run(x), x, dy))

    def tangent(self, tape: Tape, tangents: list[Tensor]) -> Tensor:
        return self.run(tangents[0])


def _masked(dy: Tensor, y: Tensor | None, activation: str, negative_slope: float) -> Tensor:
    """Return dy times the activation's derivative where its result is y."""
    return dy if y is None else ops.bias_act.bias_act_bwd(dy, y, None, activation, negative_slope)


def _check_parameters(tape: Tape, **parameters: Any) -> None:
    for name, parameter in parameters.items():
        if parameter is not None and type(parameter) not in (Tensor, torch.nn.Parameter):
            raise Curved(f"the {name} of a layer is a {type(parameter).__name__}, not a plain Tensor")
        if tape.place(parameter) is not None:
            raise Curved(f"the {name} of a layer comes from the critic's input")


def _read(tensor: Tensor | None, device_type: str) -> Tensor | None:
    with torch.enable_grad():
        return None if tensor is None else autocast(tensor, device_type)


def _convolve(tape: Tape, x: Tensor, weight: Tensor, bias: Tensor | None, *sizes: Any) -> Tensor:
    """Record torch's convolution; ``sizes`` as the first six of Attributes."""
    _check_parameters(tape, weight=weight, bias=bias)
    if x.dim() != 4 or weight.dim() != 4:
        raise Curved("a convolution of one image, without a dimension of samples, is called")
    if any(isinstance(size, str) for size in sizes):
        raise Curved("the padding of a convolution is given in words")
    stride, padding, dilation, output_padding, transposed, groups = sizes
    stride, padding, dilation, output_padding = (pair(size) for size in (stride, padding, dilation, output_padding))
    convolution = Convolution(weight, bias, stride, padding, dilation, output_padding, transposed, groups)
    if reason := convolution.why_not(x):
        raise Curved(reason)
    given = autocast(x, x.device.type)
    w = _read(weight, x.device.type)
    a = convolution.attributes(channels_last=is_channels_last(given) or is_channels_last(weight))
    return _record_convolution(tape, _cast(tape, x, given), w, bias, a)  # type: ignore[arg-type]


def _cast(tape: Tape, x: Tensor, given: Tensor) -> Tensor:
    """Record that x is used in another dtype."""
    if given is x:
        return x
    place, dtype = tape.place(x), given.dtype
    assert place is not None
    return tape.append(_Function(place, lambda t: t.to(dtype)), given)


def _record_convolution(tape: Tape, x: Tensor, weight: Tensor, bias: Tensor | None, a: Attributes) -> Tensor:
    place = tape.place(x)
    assert place is not None
    node = _Convolution(place, weight, bias, a)
    b = None if bias is None else bias.detach()
    return tape.append(node, ops.conv_norm_act.conv_norm_act(x.detach(), node.w, b, *_NO_NORM, *a)[0])


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
    norm, a = rest[:4], Attributes(*rest[4:])
    if norm != _NO_NORM or a.stats or a.activation not in PIECEWISE_LINEAR:
        raise Curved("it normalises" if norm != _NO_NORM or a.stats else f"{a.activation} is not piecewise linear")
    nothing = x.new_empty(0, dtype=accumulate_dtype(x.dtype))
    return _record_convolution(tape, x, weight, bias, a), nothing, nothing


def _linear(tape: Tape, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    _check_parameters(tape, weight=weight, bias=bias)
    given = autocast(input, input.device.type)
    w, b = (_read(t, input.device.type) for t in (weight, bias))
    assert w is not None
    if given.dim() < 2 or weight.dim() < 2:
        raise Curved("a linear layer is called without a dimension of samples, or of its results")
    place = tape.place(_cast(tape, input, given))
    assert place is not None
    node = _Linear(place, w, b)
    return tape.append(node, F.linear(given, node.w, None if b is None else b.detach()))


def _activate(tape: Tape, x: Tensor, activation: str, negative_slope: float, inplace: bool) -> Tensor:
    place = tape.place(x)
    assert place is not None
    if not 0 <= negative_slope < float("inf"):
        raise Curved(f"the negative slope is {negative_slope}")
    if inplace and (tape.used(place) or x._is_view()):
        raise Curved("an activation changes a value in place that others read")
    y = ops.bias_act.bias_act(x, None, activation, negative_slope)
    if inplace:
        y = x.copy_(y)
    return tape.append(_Activation(place, activation, negative_slope), y)


def _leaky_relu(tape: Tape, input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return _activate(tape, input, "leaky_relu", negative_slope, inplace)


def _relu(tape: Tape, input: Tensor, inplace: bool = False) -> Tensor:
    return _activate(tape, input, "relu", 0.0, inplace)


def _bias_act(tape: Tape, x: Tensor, bias: Tensor | None, activation: str, negative_slope: float) -> Tensor:
    if bias is not None or activation not in PIECEWISE_LINEAR:
        raise Curved(f"{activation} is not piecewise linear" if bias is None else "a bias stands alone")
    return _activate(tape, x, activation, negative_slope, False)


def _add(tape: Tape, input: Any, other: Any, *, alpha: int = 1, sign: int = 1) -> Tensor:
    a, b = tape.place(input), tape.place(other)
    if a is None or b is None or alpha != 1 or input.shape != other.shape or input.dtype != other.dtype:
        raise Curved("it adds something else than two values of the same shape that come from its input")
    return tape.append(_Add(a, b, sign), torch.add(input, other, alpha=sign))


def _sub(tape: Tape, input: Any, other: Any, *, alpha: int = 1) -> Tensor:
    return _add(tape, input, other, alpha=alpha, sign=-1)


def _iadd(tape: Tape, input: Any, other: Any, *, alpha: int = 1) -> Tensor:
    place = tape.place(input)
    node = next((n for n in tape.nodes if n.output == place), None)
    # the mask of an activation is in its result
    masked = isinstance(node, _Activation) or (isinstance(node, _Convolution) and node.a.activation != "identity")
    if place is None or tape.used(place) or masked or input._is_view():
        raise Curved("an addition changes a value in place that others read")
    b = tape.place(other)
    if b is None or alpha != 1 or input.shape != other.shape or input.dtype != other.dtype:
        raise Curved("it adds something else than two values of the same shape that come from its input")
    return tape.append(_Add(place, b, 1), input.add_(other))


def _reshape(func: Any) -> Callable[..., Tensor]:
    def rule(tape: Tape, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y, place = func(x, *args, **kwargs), tape.place(x)
        assert place is not None
        if y.dtype != x.dtype:
            raise Curved("it reads bits as another type")
        return y if y is x else tape.append(_Reshape(place), y)

    return rule


def _function(func: Any, why_not: Callable[..., str] = lambda *args, **kwargs: "") -> Callable[..., Tensor]:
    """Return the rule of a function that is linear in its first argument unless ``why_not`` gives a reason."""

    def rule(tape: Tape, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        place, reason = tape.place(x), why_not(x, *args, **kwargs)
        if reason or place is None:
            raise Curved(reason or f"{func.__name__} takes its input where fastgan does not expect it")
        y = func(x, *args, **kwargs)
        return y if y is x else tape.append(_Function(place, lambda t: func(t, *args, **kwargs)), y)

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
