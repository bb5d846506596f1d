"""The bodies of the eight tests, written once for all stems."""

import math
import random
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.backends.layout import empty, memory_format
from fastgan.testing import LAYOUTS, assert_close_to_gold, in_layout, random_values, tolerance

from .grid import DTYPES, Case

ACTIVATIONS = ("identity", "relu", "leaky_relu", "tanh", "sigmoid", "silu")
KINKED = ("relu", "leaky_relu")
SLOPE = 0.2
LEAVES = ("x", "weight", "bias", "norm_weight", "norm_bias")
EPS = 1e-5
SMALL = (4, 3, 5, 7)
SHAPES = ((2, 512, 4, 4), (6, 1, 3, 5), (16, 5), (3, 4, 9), (2, 3, 3, 4, 5), (7, 33, 1, 1), (3, 37, 17, 19))
# for the interpreter: several tiles of channels, several tiles of rows in each split, and every number of dimensions
INTERPRETED_DTYPES = (torch.float32, torch.float64, torch.float16)
FEW_SHAPES = ((2, 70, 3, 1), (3, 8, 21, 17), (4, 2, 13, 11), (6, 1, 3, 5), (16, 5), (3, 4, 9), (2, 3, 3, 4, 5))
PARAMETERS = ("wb", "", "w", "b")


# (layout of x, layout of the cotangents): the same, crossed, and what a global pooling and y.sum() give
LAYOUT_PAIRS = [(layout, layout) for layout in LAYOUTS] + [
    ("contiguous", "channels_last"),
    ("channels_last", "contiguous"),
    ("channels_last", "pooled"),
    ("contiguous", "pooled"),
    ("channels_last", "scalar"),
    ("contiguous", "scalar"),
    ("channels_last", "sliced"),
    ("contiguous", "sliced_channels_last"),
]
EXPANDED = {"pooled": (..., slice(1), slice(1)), "scalar": (slice(1),) * 4}


class Stem(NamedTuple):
    """An op under test and the torch composition a user would write; both (case, *arguments(tensors)) -> y.

    ``make`` and ``terms`` replace ``make_tensors`` and the number of values in a channel, ``dense`` names what has x's
    memory format, ``contiguous`` says that stock is right for contiguous tensors only, ``right`` where it is at all;
    ``product`` says that a matrix product of torch's is all there is.
    """

    name: str
    fused: Callable[..., Tensor]
    stock: Callable[..., Tensor]
    has_weight: bool
    make: Callable[..., dict[str, Tensor]] | None = None
    terms: Callable[..., int] | None = None
    dense: tuple[str, ...] = ("y", "dx", "second order, by x")
    contiguous: bool = False
    right: Callable[[Case], AbstractContextManager[object]] = nullcontext
    product: Callable[[Case], bool] = lambda _: False


def activate(x: Tensor, activation: str) -> Tensor:
    if activation == "identity":
        return x
    if activation == "leaky_relu":
        return F.leaky_relu(x, SLOPE)
    return {"relu": F.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "silu": F.silu}[activation](x)


def stock_norm_act(case, x: Tensor, weight: Tensor | None, bias: Tensor | None, stats: tuple, *_) -> Tensor:
    """Return what a user would write for batch_norm_act."""
    u = activate(x, case.activation) if case.act_first else x
    if weight is None:
        # F.batch_norm cannot be differentiated twice without a weight in evaluation
        weight = torch.ones(
            x.shape[1], dtype=next(v.dtype for v in (bias, stats[0], x) if v is not None), device=x.device
        )
    z = F.batch_norm(u, *stats, weight, bias, case.training, 0.1, EPS)
    return z if case.act_first else activate(z, case.activation)


def choose_cases(variants: list[dict], parameters: tuple[str, ...] = PARAMETERS) -> tuple[list[Case], list[Case]]:
    """Return the cases, and the few of them for Triton's interpreter.

    Every variant in every dtype and both memory formats on one small shape; the variants in turn on the other shapes.
    """
    formats = ("contiguous", "channels_last")
    cases = [Case(SMALL, dtype, layout, **v) for dtype, layout, v in product(DTYPES, formats, variants)]
    few = [Case(SMALL, INTERPRETED_DTYPES[i % 3], formats[i % 2], **v)
           for i, v in enumerate(variants)]  # fmt: skip
    pick = random.Random(0)

    def draw(shape, dtype, given):
        half = dtype in (torch.float16, torch.bfloat16)
        layout = pick.choice(formats) if len(shape) in (4, 5) else "contiguous"
        mixed = torch.float32 if half and pick.random() < 0.7 else None
        return Case(shape, dtype, layout, **pick.choice(variants), parameters=given, parameter_dtype=mixed)

    cases += [draw(*row) for row in product(SHAPES, DTYPES, parameters)]
    few += [draw(shape, pick.choice(INTERPRETED_DTYPES), pick.choice(parameters)) for shape in FEW_SHAPES]
    few += [
        Case((2, 70, 3, 1), layout="channels_last"),
        Case((3, 8, 21, 17)),
        Case((4, 2, 13, 11), layout="channels_last"),
    ]
    cases.append(Case(SMALL, torch.float64, parameter_dtype=torch.float32))
    return list(dict.fromkeys(cases)), list(dict.fromkeys(few))


def choose_layouts(variants: list[dict]) -> tuple[list[Case], list[Case]]:
    """Return cases in every layout of x and of its cotangents, and the few of them for the interpreter."""
    shapes = ((3, 5, 6, 4), (2, 19, 5, 3))
    cases = [
        Case(shape, layout=x, cotangents=dy, **v)
        for (x, dy), shape, v in product(LAYOUT_PAIRS, shapes, variants)
        # the gradient of a plain sum through a normalisation that nothing follows is 0
        if dy != "scalar" or not v.get("act_first")
    ]
    few = [case for case in cases if case.shape == shapes[0]]
    return cases, few[:: len(variants) + 1] if len(variants) > 2 else few


def make_tensors(stem: Stem, case: Case, device: str) -> dict[str, Tensor]:
    """Return x, the parameters, running statistics and cotangents of every order, rounded to the case's types."""
    if stem.make is not None:
        return stem.make(case, device)
    channels, seed = case.shape[1], zlib.crc32(str(case).encode())
    parameter_dtype = case.parameter_dtype or case.dtype

    def draw(name, shape, dtype, shift=0.0):
        return (random_values(shape, zlib.crc32(name.encode(), seed), device) + shift).to(dtype)

    t = {"x": draw("x", case.shape, case.dtype, 0.3)}
    if stem.has_weight and "w" in case.parameters:
        weight = draw("weight", (channels,), parameter_dtype)
        t["weight"] = weight + weight.sign() / 2
    if "b" in case.parameters:
        t["bias"] = draw("bias", (channels,), parameter_dtype)
    if stem.has_weight and not case.training:
        t["mean"] = draw("mean", (channels,), parameter_dtype)
        t["var"] = draw("var", (channels,), parameter_dtype).abs() + 0.5
    if case.activation in KINKED:
        away_from_kink(stem, case, t)
    t["x"] = in_layout(t["x"], case.layout)
    for name in ("dy", "ddx"):
        t[name] = draw(name, case.shape, case.dtype)
        # a constant ddx beside a constant dy would leave little but rounding
        layout = "pooled" if case.cotangents == "scalar" and name == "ddx" else case.cotangents
        if layout in EXPANDED:
            t[name] = t[name][EXPANDED[layout]].expand(case.shape)
        else:
            t[name] = in_layout(t[name], layout)
    for name in ("weight", "bias"):
        if name in t:
            t[f"dd{name}"] = draw(f"dd{name}", (channels,), parameter_dtype)
    return t


def away_from_kink(stem: Stem, case: Case, t: dict[str, Tensor]) -> None:
    """Move x, in place, until what enters the activation is nowhere near 0, where its derivative jumps."""
    # stock batch norm rounds x times the scale to bfloat16 before it adds the shift
    margin = 0.02 if case.dtype in (torch.bfloat16, torch.float16) else 2e-3
    inner = case._replace(activation="identity", act_first=False)
    for _ in range(100):
        z = t["x"].double() if case.act_first else stem.stock(inner, *arguments({k: v.double() for k, v in t.items()}))
        near = z.abs() < margin
        if not near.any():
            return
        t["x"][near] += 0.05
    raise AssertionError("no input away from the kink was found")


def arguments(t: dict[str, Tensor]) -> tuple:
    norm = [t.get(name) for name in LEAVES[3:]]
    return t["x"], t.get("weight"), t.get("bias"), (t.get("mean"), t.get("var")), *norm


def derivatives(function: Callable[..., Tensor], case: Case, t: dict[str, Tensor], *orders: int) -> dict[str, Tensor]:
    """Return y for order 0, the gradients of first and second order by name; a gradient that is None is zeros."""
    most, names = max(orders), [name for name in LEAVES if name in t]
    t = {**t, **{name: t[name].detach().requires_grad_(most > 0) for name in names}}
    y = function(case, *arguments(t))
    found = {"y": y.detach()} if 0 in orders else {}
    if most == 0:
        return found
    dy = t["dy"].detach().requires_grad_(most == 2)
    leaves = [t[name] for name in names]
    first = torch.autograd.grad(y, leaves, dy, create_graph=most == 2)
    if 1 in orders:
        found |= {f"d{name}": g.detach() for name, g in zip(names, first, strict=True)}
    if most == 1:
        return found
    leaves, cotangents = [dy, *leaves], [t[f"dd{name}"] for name in names]
    second = torch.autograd.grad(first, leaves, cotangents, allow_unused=True)
    named = zip(("dy", *names), leaves, second, strict=True)
    return found | {f"second order, by {name}": empty(v).zero_() if g is None else g for name, v, g in named}


def check(stem: Stem, case: Case, device: str, *orders: int, tensors: dict[str, Tensor] | None = None) -> None:
    """Compare the fused op's derivatives, each order by itself, with the composition's, in value, type and memory
    format."""
    t = make_tensors(stem, case, device) if tensors is None else tensors
    given = {name: v.contiguous() for name, v in t.items()} if stem.contiguous else t
    gold = derivatives(stem.stock, case, {name: v.double() for name, v in given.items()}, *orders)
    with stem.right(case):
        low = gold if case.dtype == torch.float64 else derivatives(stem.stock, case, given, *orders)
    dtypes = (
        {"y": case.dtype} | {name: v.dtype for name, v in t.items()} | {f"d{name}": v.dtype for name, v in t.items()}
    )
    count = stem.terms(case, t) if stem.terms else math.prod(case.shape) // case.shape[1]
    found = [(order, derivatives(stem.fused, case, t, order)) for order in orders]
    assert set().union(*(got for _, got in found)) == gold.keys()
    for order, name, value in ((order, name, value) for order, got in found for name, value in got.items()):
        label = f"{name} of {stem.name} {case}"
        # a vector is a sum over all dimensions but the channel's; in training the gradient of x holds such sums, too
        vector = value.dim() == 1
        summed = vector or stem.terms or (stem.has_weight and case.training and order > 0)
        rule = {
            "factor": 3.0 if order else 2.0,
            "terms": count if summed else 1,
            "term_dtype": case.dtype if vector else torch.float32,
        }
        if value.numel() == 0:
            assert value.shape == gold[name].shape and value.dtype == dtypes[name.removeprefix("second order, by ")], (
                label
            )
            continue
        bound = tolerance(gold[name], low[name], value.dtype, **rule)
        loose = 0.1 * gold[name].abs().max().item()
        assert vector or bound <= loose, f"{label}: the yardstick {bound} lets everything pass"
        assert_close_to_gold(value, gold[name], low[name], **rule, name=label)
        assert value.dtype == dtypes[name.removeprefix("second order, by ")], f"{label}: {value.dtype}"
        # of a gradient that is not laid out as its parameter, autograd makes a copy
        like = t["x"] if name in stem.dense else t["weight"] if name == "dweight" else None
        if like is not None:
            assert value.is_contiguous(memory_format=memory_format(like)), f"{label}: strides {value.stride()}"


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Assert that all tensors are finite and equal bit by bit."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.isfinite().all(), f"{name} is not finite"
        assert torch.equal(value, second[name]), f"{name} differs by {(value - second[name]).abs().max().item():.3g}"


def all_orders(stem: Stem, case: Case, t: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: v for order in range(3) for name, v in derivatives(stem.fused, case, t, order).items()}
