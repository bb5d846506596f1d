"""The ops under test, each beside the torch composition a user would write."""

from itertools import product

import torch

from fastgan.nn.functional import batch_norm_act, bias_act

from .common import ACTIVATIONS, EPS, SLOPE, Stem, activate, choose_cases, choose_layouts, stock_norm_act
from .conv_stem import FUSED, ConvCase
from .conv_stem import STEM as CONV_NORM_ACT
from .grid import Case


def _bias_act(case, x, weight, bias, stats, *_):
    return bias_act(x, bias, activation=case.activation, negative_slope=SLOPE)


def _stock_bias_act(case, x, weight, bias, stats, *_):
    if bias is not None:
        x = x + bias.to(x.dtype).reshape(-1, *[1] * (x.dim() - 2))
    return activate(x, case.activation)


def _norm_act(case, x, weight, bias, stats, *_):
    options = {"activation": case.activation, "negative_slope": SLOPE, "act_first": case.act_first}
    return batch_norm_act(x, weight, bias, *stats, training=case.training, eps=EPS, **options)


BIAS_ACT = Stem("bias_act", _bias_act, _stock_bias_act, has_weight=False)
BIAS_ACT_VARIANTS = [{"activation": a} for a in ACTIVATIONS]
BIAS_ACT_CASES = choose_cases(BIAS_ACT_VARIANTS, ("wb", ""))

BIAS_ACT_LAYOUTS = choose_layouts([{"activation": "leaky_relu"}, {"activation": "silu"}])

NORM_ACT = Stem("norm_act", _norm_act, stock_norm_act, has_weight=True)
NORM_ACT_VARIANTS = [
    {"activation": a, "training": training, "act_first": act_first}
    for a, training, act_first in product(ACTIVATIONS, (True, False), (False, True))
]
NORM_ACT_CASES = choose_cases(NORM_ACT_VARIANTS)
NORM_ACT_LAYOUTS = choose_layouts([v for v in NORM_ACT_VARIANTS if v["activation"] == "silu"])


def tiny(variants):
    """Return float64 cases for finite differences, and the few of them for the interpreter."""
    cases = [Case((3, 2, 2, 2), torch.float64, **v) for v in variants]
    return cases, [case for case in cases if case.activation in ("leaky_relu", "tanh", "silu")]


def fused_size(k, s, p):
    """Return as attributes of a ConvCase one of the sizes that run as implicit matrix products."""
    return {"kernel": (k, k), "stride": (s, s), "padding": (p, p)}


# one of each kind of arithmetic, for the tests that need not see all
FEW = {
    "bias_act": [Case((4, 3, 5, 7), activation=a) for a in ("leaky_relu", "silu", "tanh")],
    "norm_act": [
        Case((4, 3, 5, 7), activation="leaky_relu"),
        Case((4, 3, 5, 7), activation="silu", act_first=True),
        Case((4, 3, 5, 7), activation="tanh", training=False),
    ],
    "conv_norm_act": [
        ConvCase((3, 5, 4, 6), 3, **fused_size(*FUSED[0]), lazy=True, after="tanh"),
        ConvCase((3, 5, 4, 3), 3, **fused_size(*FUSED[0]), transposed=True, bias=False),
        ConvCase((3, 5, 4, 3), 3, **fused_size(*FUSED[2]), transposed=True, lazy=True, activation="silu"),
    ],
}
STEMS = {"bias_act": BIAS_ACT, "norm_act": NORM_ACT, "conv_norm_act": CONV_NORM_ACT}
