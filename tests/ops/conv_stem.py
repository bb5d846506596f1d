"""``conv_norm_act`` under test, beside the composition a user would write, and the tensors of a configuration.

Two forms: the functions of ``fastgan.nn.functional``, which normalise the result of the convolution, and ``lazy``, the
op itself, y = after(conv(activation(norm(x))) + bias), which normalises what it loads.
"""

import zlib
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan import ops
from fastgan.backends import processor
from fastgan.backends.geometry import Attributes
from fastgan.backends.layout import accumulate_dtype, is_channels_last
from fastgan.nn.functional import conv_norm_act, conv_transpose_norm_act
from fastgan.testing import in_layout, random_values

from .common import EPS, EXPANDED, KINKED, LEAVES, SLOPE, Stem, activate, arguments, stock_norm_act

Pair = tuple[int, int]
HALVES = (torch.float16, torch.bfloat16)
# the sizes that run as implicit matrix products: kernel, stride, padding
FUSED = ((4, 2, 1), (4, 1, 0), (3, 1, 1), (5, 2, 2), (1, 1, 0))


class ConvCase(NamedTuple):
    """One configuration: ``shape`` is that of x, ``norm`` names the parameters given (w, b), None without one."""

    shape: tuple[int, int, int, int]
    c_out: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    output_padding: Pair = (0, 0)
    groups: int = 1
    transposed: bool = False
    lazy: bool = False
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    activation: str = "leaky_relu"
    training: bool = True
    act_first: bool = False
    norm: str | None = "wb"
    bias: bool = True
    after: str = "identity"
    parameter_dtype: torch.dtype | None = None
    weight_layout: str = "contiguous"
    cotangents: str = "contiguous"

    def __str__(self) -> str:
        def size(letter, pair, default):
            return [f"{letter}{pair[0]}" if pair[0] == pair[1] else f"{letter}{pair[0]}x{pair[1]}"] * (pair != default)

        words = ["lazy"] * self.lazy + ["x".join(map(str, self.shape)), f"{self.c_out}ch", str(self.dtype)[6:]]
        words += ["T"] * self.transposed + size("k", self.kernel, 0) + size("s", self.stride, 0)
        words += size("p", self.padding, (0, 0)) + size("d", self.dilation, (1, 1))
        words += size("o", self.output_padding, (0, 0)) + [f"g{self.groups}"] * (self.groups > 1)
        words += ["nonorm" if self.norm is None else f"norm_{self.norm}"] * (self.norm != "wb")
        words += [self.activation] + ["eval"] * (not self.training) + ["act_first"] * self.act_first
        words += [f"then_{self.after}"] * (self.after != "identity") + ["nobias"] * (not self.bias)
        words += [self.layout] * (self.layout != "contiguous") + ["mixed"] * (self.parameter_dtype is not None)
        words += ["weight_last"] * (self.weight_layout != "contiguous")
        words += [f"dy_{self.cotangents}"] * (self.cotangents != "contiguous")
        return "-".join(words)


def _stock_convolution(case: ConvCase, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if case.transposed:
        sizes = (case.stride, case.padding, case.output_padding, case.groups, case.dilation)
        return F.conv_transpose2d(x, weight, bias, *sizes)
    return F.conv2d(x, weight, bias, case.stride, case.padding, case.dilation, case.groups)


def stock(case: ConvCase, x, weight, bias, stats, norm_weight, norm_bias) -> Tensor:
    """Return what a user would write."""
    if case.lazy:
        u = x if case.norm is None else stock_norm_act(case, x, norm_weight, norm_bias, stats)
        return activate(_stock_convolution(case, u, weight, bias), case.after)
    u = _stock_convolution(case, x, weight, bias)
    return activate(u, case.activation) if case.norm is None else stock_norm_act(case, u, norm_weight, norm_bias, stats)


def right(case: ConvCase) -> AbstractContextManager[object]:
    """Return a context in which torch's convolutions of the case are right."""
    widths = case.shape[3], result_shape(case)[3]
    small, big = widths if case.transposed else widths[::-1]
    return processor.right(case.dtype, small, big, case.stride[1])


def is_product(case: ConvCase) -> bool:
    """Return whether the small side is a single pixel and nothing is around it."""
    small = case.shape if case.transposed else result_shape(case)
    return tuple(small[2:]) == (1, 1) and case.padding == (0, 0)


def attributes(case: ConvCase, channels_last: bool, stats: bool = False) -> Attributes:
    sizes = (list(case.stride), list(case.padding), list(case.dilation), list(case.output_padding))
    loaded = (case.training, EPS, case.activation, SLOPE) if case.norm is not None else (False, 0.0, "identity", 0.0)
    return Attributes(*sizes, case.transposed, case.groups, *loaded, case.after, SLOPE, stats, channels_last)


@torch.no_grad()
def statistics(case: ConvCase, x: Tensor, stats: tuple) -> tuple:
    """Return mean and biased variance of x where the lazy form normalises by them, else what is given."""
    if case.norm is None or not case.training:
        return stats
    u = x.to(accumulate_dtype(x.dtype))
    if x.numel() == 0:
        return u.new_zeros(x.shape[1]), u.new_zeros(x.shape[1])
    return u.mean((0, 2, 3)), u.var((0, 2, 3), correction=0)


def lazy_arguments(
    case: ConvCase, x, weight, bias, stats, norm_weight, norm_bias, *, with_stats: bool = False
) -> tuple:
    """Return the arguments of ``fastgan::conv_norm_act``."""
    a = attributes(case, is_channels_last(x) or is_channels_last(weight), with_stats)
    return x, weight, bias, norm_weight, norm_bias, *statistics(case, x, stats), *a


def fused(case: ConvCase, x, weight, bias, stats, norm_weight, norm_bias) -> Tensor:
    """Return the same from the op under test."""
    if case.lazy:
        given = lazy_arguments(case, x, weight, bias, stats, norm_weight, norm_bias)
        return ops.conv_norm_act.conv_norm_act(*given)[0]
    norm = dict(
        zip(("norm_weight", "norm_bias", "running_mean", "running_var"), (norm_weight, norm_bias, *stats), strict=True)
    )
    options = {"norm": case.norm is not None, "training": case.training, "eps": EPS, "activation": case.activation,
               "negative_slope": SLOPE, "act_first": case.act_first, **norm}  # fmt: skip
    if case.transposed:
        sizes = (case.stride, case.padding, case.output_padding, case.groups, case.dilation)
        return conv_transpose_norm_act(x, weight, bias, *sizes, **options)
    return conv_norm_act(x, weight, bias, case.stride, case.padding, case.dilation, case.groups, **options)


def weight_shape(case: ConvCase) -> tuple[int, ...]:
    c, k, g = case.shape[1], case.c_out, case.groups
    return (c, k // g, *case.kernel) if case.transposed else (k, c // g, *case.kernel)


def result_shape(case: ConvCase) -> torch.Size:
    """Return the shape of the result by torch, which raises RuntimeError where there is none."""
    x, weight = (torch.empty(shape, device="meta") for shape in (case.shape, weight_shape(case)))
    return _stock_convolution(case, x, weight, None).shape


def terms(case: ConvCase, t: dict[str, Tensor]) -> int:
    """Return how many products the longest of a case's sums has."""
    of_weight = case.kernel[0] * case.kernel[1] * max(case.shape[1], case.c_out) // case.groups
    return max(of_weight, *(v.numel() // v.shape[1] for v in (t["x"], t["dy"])))


def _shift(z: Tensor, least: float) -> Tensor:
    """Return what to add to each channel of z so that 0 lies in the widest gap between its values, a few on each side.

    Where no gap is wide enough, 0 lies below all values.
    """
    rows = z.transpose(0, 1).flatten(1).sort(1).values
    count = rows.shape[1]
    if count == 0:
        return rows.new_zeros(len(rows))
    middle = rows[:, count // 8 : count - count // 8]
    above = 0.5 - rows[:, 0]
    if middle.shape[1] < 2:
        return above
    gap, at = middle.diff().max(1)
    return torch.where(gap < least, above, -middle.gather(1, at[:, None])[:, 0] - gap / 2)


def before_activations(case: ConvCase) -> list[tuple[str, str, ConvCase]]:
    """Return for each activation the vector added before it, its name, and the case that ends there."""
    plain = case._replace(activation="identity", after="identity")
    if not case.lazy:
        first = case.norm is None or case.act_first
        return [
            ("bias", case.activation, plain._replace(norm=None)) if first else ("norm_bias", case.activation, plain)
        ]
    loaded = [] if case.norm is None else [("norm_bias", case.activation, plain)]
    return [*loaded, ("bias", case.after, case._replace(after="identity"))]


def _away_from_kinks(case: ConvCase, t: dict[str, Tensor]) -> None:
    """Choose the shift before each relu so that no value is near 0, where the derivative jumps."""
    margin = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 0.02}[case.dtype]
    for name, activation, before in before_activations(case):
        if activation not in KINKED:
            continue

        def enters(name=name, before=before):
            x, weight, bias, stats, *norm = arguments({key: v.double().contiguous() for key, v in t.items()})
            loaded = case.lazy and name == "norm_bias"
            return stock_norm_act(before, x, *norm, stats) if loaded else stock(before, x, weight, bias, stats, *norm)

        if name in t:
            t[name] = torch.zeros_like(t[name])
            t[name] = _shift(enters(), 4 * margin).to(t[name].dtype)
        assert enters().abs().gt(margin).all(), f"{case}: a value at the kink of {activation}"


def make(case: ConvCase, device: str) -> dict[str, Tensor]:
    """Return x, the parameters, running statistics and cotangents of every order, rounded to the case's types."""
    seed, out = zlib.crc32(str(case).encode()), result_shape(case)
    channels = case.shape[1] if case.lazy else case.c_out
    parameter_dtype = case.parameter_dtype or case.dtype
    taps = case.kernel[0] * case.kernel[1] / (case.stride[0] * case.stride[1] if case.transposed else 1)

    def draw(name, shape, dtype=case.dtype, scale=1.0, shift=0.0):
        return (random_values(shape, zlib.crc32(name.encode(), seed), device) * scale + shift).to(dtype)

    weight = draw("weight", weight_shape(case), scale=max(taps * case.shape[1] / case.groups, 1.0) ** -0.5)
    t = {"x": in_layout(draw("x", case.shape, shift=0.3), case.layout), "weight": in_layout(weight, case.weight_layout)}
    if case.bias:
        t["bias"] = draw("bias", (case.c_out,), scale=0.5)
    if "w" in (case.norm or ""):
        weight = draw("norm_weight", (channels,), parameter_dtype)
        t["norm_weight"] = weight + weight.sign() / 2
    if "b" in (case.norm or ""):
        t["norm_bias"] = draw("norm_bias", (channels,), parameter_dtype)
    if case.norm is not None and not case.training:
        t["mean"] = draw("mean", (channels,), parameter_dtype)
        t["var"] = draw("var", (channels,), parameter_dtype).abs() + 0.5
    _away_from_kinks(case, t)
    for name, shape in (("dy", out), ("ddx", case.shape)):
        layout = "pooled" if case.cotangents == "scalar" and name == "ddx" else case.cotangents
        values = draw(name, tuple(shape))
        t[name] = values[EXPANDED[layout]].expand(shape) if layout in EXPANDED else in_layout(values, layout)
    cotangents = {f"dd{name}": draw(f"dd{name}", v.shape, v.dtype) for name, v in t.items() if name in LEAVES[1:]}
    return {**t, **cotangents}


STEM = Stem("conv_norm_act", fused, stock, True, make, terms, ("dx",), contiguous=True, right=right, product=is_product)
