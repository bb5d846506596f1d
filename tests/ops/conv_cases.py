"""Configurations of ``conv_norm_act``: drawn ones, and the layers of a model."""

import random
from itertools import product

import torch

from .common import ACTIVATIONS, KINKED
from .conv_stem import FUSED, HALVES, ConvCase, before_activations, result_shape
from .grid import DTYPES

DRAWN = 200
CHANNELS = (1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 33, 48, 64, 95, 96)
FORMATS = ("contiguous", "channels_last")


def of_sizes(sizes, dtype: torch.dtype = torch.float32) -> list[ConvCase]:
    """Return each size, a case's first fields, as convolution and transposed, by itself and lazy, in all layouts."""
    return [
        ConvCase(*size, transposed=transposed, dtype=dtype, lazy=lazy, layout=FORMATS[i // 2 % 2],
                 cotangents=FORMATS[(i // 2 + lazy) % 2], weight_layout=FORMATS[i % 3 // 2], activation="silu",
                 after="tanh" if lazy else "identity", bias=lazy)
        for i, (size, transposed, lazy) in enumerate(product(sizes, (False, True), (False, True)))
    ]  # fmt: skip


def _sizes(pick: random.Random, half: bool) -> dict:
    """Draw what torch's convolution takes."""

    def pair(*options):
        first = pick.choice(options)
        return (first, first) if pick.random() < 0.7 else (first, pick.choice(options))

    transposed = pick.random() < 0.5
    kernel, stride, dilation = pair(1, 2, 3, 4, 5), pair(1, 1, 2, 2, 3), pair(1, 1, 1, 2)
    if pick.random() < 0.35:
        k, s, p = pick.choice(FUSED)
        kernel, stride, padding, dilation = (k, k), (s, s), (p, p), (1, 1)
    else:
        padding = tuple(pick.randint(0, k // 2 + 1) for k in kernel)
    larger = transposed and pick.random() < 0.5
    most = [max(s, d) - 1 if larger else 0 for s, d in zip(stride, dilation, strict=True)]
    groups, channels = pick.choice((1, 1, 1, 1, 2, 3, 0)), CHANNELS[:9] if half else CHANNELS
    c_in, c_out = pick.choice(channels), pick.choice(channels)
    if groups == 0:
        groups, c_out = c_in, c_in * pick.choice((1, 1, 2))
    elif groups > 1:
        c_in, c_out = (groups * max(1, c // groups) for c in (c_in, c_out))
    size = pick.randint(1, 8), pick.randint(1, 8)
    return {
        "shape": (pick.choice((0, 1, 1, 2, 2, 3, 3, 4, 5)), c_in, *size), "c_out": c_out,
        "kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation,
        "output_padding": tuple(pick.randint(0, m) for m in most),
        "groups": groups, "transposed": transposed,
    }  # fmt: skip


def _draw(pick: random.Random) -> ConvCase:
    """Draw a case, which may be none that torch runs or of which any derivative is worth a comparison."""
    dtype = pick.choice((*DTYPES, torch.float32, torch.float32, torch.float64))
    half, lazy = dtype in HALVES, pick.random() < 0.5
    case = ConvCase(
        **_sizes(pick, half), lazy=lazy, dtype=dtype, layout=pick.choice(FORMATS), activation=pick.choice(ACTIVATIONS),
        training=pick.random() < 0.7, act_first=not lazy and pick.random() < 0.3,
        norm=pick.choice(("wb", "wb", "wb", "", "w", "b", None)),
        bias=pick.random() < 0.6, after=pick.choice(ACTIVATIONS[:-1]) if lazy else "identity",
        parameter_dtype=torch.float32 if half and pick.random() < 0.5 else None,
        weight_layout=pick.choice(FORMATS), cotangents=pick.choice(FORMATS),
    )  # fmt: skip
    if case.norm is not None and case.training and not lazy and not case.act_first:
        # the gradient of a bias that the normalisation takes away again is 0
        case = case._replace(bias=False)
    if case.norm is not None and case.training and case.act_first and case.activation not in KINKED:
        # nearly so
        case = case._replace(bias=case.bias and dtype == torch.float64)
    if case.norm is None:
        case = case._replace(training=True, act_first=False, parameter_dtype=None)
    return case


def _worth(case: ConvCase) -> bool:
    """Whether torch runs it soon, sums are of several values, and a vector keeps relu from its kink."""
    try:
        out = result_shape(case)
    except RuntimeError:
        return False
    n, c = case.shape[:2]
    work = out.numel() * case.kernel[0] * case.kernel[1] * c // case.groups
    half = case.dtype in HALVES
    if out[2] * out[3] == 0 or work > (1e5 if half else 1e6):
        return False
    count = n * (case.shape[2] * case.shape[3] if case.lazy else out[2] * out[3])
    if case.norm is not None and case.training and count < 16:
        return False
    if not case.lazy and case.norm is not None and work == out.numel():
        # the normalisation takes the only weight of a channel away
        return False
    shifts = {"bias"} if case.bias else set()
    shifts |= {"norm_bias"} if "b" in (case.norm or "") else set()
    kinks = {name for name, activation, _ in before_activations(case) if activation in KINKED}
    return kinks <= shifts or case.dtype == torch.float64


def draw_cases(count: int) -> list[ConvCase]:
    """Return different cases, the same ones each time."""
    pick, cases = random.Random(0), {}
    while len(cases) < count:
        case = _draw(pick)
        if _worth(case):
            cases[case] = None
    return list(cases)


def _model_cases() -> list[ConvCase]:
    """Return the layers of a small DCGAN as a model runs them, in every type."""
    ends = {"lazy": True, "after": "tanh", "norm": "wb", "activation": "relu"}
    whole, half = {"kernel": (4, 4)}, {"kernel": (4, 4), "stride": (2, 2), "padding": (1, 1)}
    layers = (
        ((16, 10, 1, 1), 16, True, {**whole, "lazy": True, "norm": None}),
        ((4, 17, 4, 4), 8, True, {**half, "activation": "relu", "bias": False}),
        ((2, 9, 6, 6), 3, True, {**half, **ends}),
        ((3, 3, 10, 10), 8, False, {**half, "norm": None}),
        ((3, 8, 8, 8), 17, False, {**half, "bias": False}),
        ((17, 16, 4, 4), 1, False, {**whole, "lazy": True}),
    )
    rows = product(DTYPES, enumerate(layers))
    return [
        ConvCase(shape, c_out, transposed=t, dtype=dtype, layout=FORMATS[i % 2], cotangents=FORMATS[i % 2], **given)
        for dtype, (i, (shape, c_out, t, given)) in rows
    ]


CASES = [*draw_cases(DRAWN), *_model_cases()]


def _fits_interpreter(case: ConvCase) -> bool:
    work = result_shape(case).numel() * case.shape[1] // case.groups * case.kernel[0] * case.kernel[1]
    return case.dtype != torch.bfloat16 and 0 < work < 2e4


FEW_CASES = [case for case in CASES if case.groups == 1 and _fits_interpreter(case)][:14]
FEW_CASES += [case for case in CASES if case.groups > 1 and _fits_interpreter(case)][:2]
