"""The bodies of the tests that compare no accuracy, written once for all stems."""

import re

import pytest
import torch
from torch.library import opcheck

from fastgan.testing import LAYOUTS, assert_close_to_gold, in_layout

from .common import Stem, all_orders, arguments, check, derivatives, make_tensors, same_bits
from .grid import Case

# (layout of x, layout of the cotangents): the same, crossed, and what global pooling gives
LAYOUT_PAIRS = [(layout, layout) for layout in LAYOUTS] + [
    ("contiguous", "channels_last"),
    ("channels_last", "contiguous"),
    ("channels_last", "pooled"),
    ("contiguous", "pooled"),
    ("channels_last", "sliced"),
    ("contiguous", "sliced_channels_last"),
]
# what y.sum() gives; its gradient through a normalisation alone is 0
SUMMED = [("contiguous", "scalar"), ("channels_last", "scalar")]
EXPANDED = {"pooled": (..., slice(1), slice(1)), "scalar": (slice(1),) * 4}
OUTPUT_FORMAT = {"channels_last": torch.channels_last, "sliced_channels_last": torch.channels_last}


class Layouts(tuple):
    """A pair of layouts, with a name."""

    def __str__(self) -> str:
        return "-".join(dict.fromkeys(self))


def check_layouts(stem: Stem, pair: tuple[str, str], device: str, shape: tuple[int, ...], **variant) -> None:
    """The values are right whatever the strides of x and of the cotangents, and the output has x's memory format."""
    case = Case(shape, layout=pair[0], **variant)
    t = make_tensors(stem, case, device)
    for name in ("dy", "ddx"):
        if pair[1] in EXPANDED:
            t[name] = t[name][EXPANDED[pair[1]]].expand(shape)
        else:
            t[name] = in_layout(t[name], pair[1])
    strides = torch.empty(shape, memory_format=OUTPUT_FORMAT.get(pair[0], torch.contiguous_format)).stride()
    assert derivatives(stem.fused, case, t, 0)["y"].stride() == strides
    for order in range(3):
        check(stem, case, device, order, t)


def check_gradients(stem: Stem, case: Case, device: str, backend: str, second: bool) -> None:
    """The analytic derivatives are those of finite differences."""
    t = make_tensors(stem, case._replace(dtype=torch.float64), device)
    leaves = [t[name].requires_grad_() for name in ("x", "weight", "bias") if name in t]

    def function(x, *parameters):
        given = dict(zip([name for name in ("weight", "bias") if name in t], parameters, strict=True))
        return stem.fused(case, *arguments({**t, "x": x, **given}))

    torch.manual_seed(0)
    # the slow mode perturbs each value alone; the interpreter has time for one direction only
    options = {"atol": 1e-8, "rtol": 1e-6, "fast_mode": backend == "triton" and device == "cpu"}
    verify = torch.autograd.gradgradcheck if second else torch.autograd.gradcheck
    assert verify(function, leaves, **options)


def check_compiled(stem: Stem, case: Case, device: str, dynamic: bool, compiler: str) -> None:
    """Compiled in one graph, and in the same one for another size where dynamic, the op is right."""

    def function(x, weight, bias, stats):
        return stem.fused(case, x, weight, bias, stats)

    n, c, *rest = case.shape
    shapes = [case.shape, (n + 2, c, *[size + 1 for size in rest])] if dynamic else [case.shape]
    for order in range(2):
        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend=compiler)
        with torch._dynamo.config.patch(error_on_recompile=True):
            for sized in [case._replace(shape=shape) for shape in shapes]:
                check(stem._replace(fused=lambda _, *given, run=compiled: run(*given)), sized, device, order)


def check_op(thorough: bool, op, given: tuple) -> None:
    """The schema tells the truth, and the shape function predicts sizes and strides; thorough: under AOT autograd, too."""
    utils = ["test_schema", "test_faketensor"]
    if thorough:
        utils += ["test_autograd_registration", "test_aot_dispatch_dynamic"]
    opcheck(op.default, given, test_utils=utils)


def check_empty(stem: Stem, case: Case, device: str) -> None:
    """No samples: results without values, gradients of the parameters that are 0 and not NaN."""
    for order in range(3):
        t = make_tensors(stem, case._replace(activation="identity"), device)
        for name, value in derivatives(stem.fused, case, t, order).items():
            where = name.removeprefix("second order, by ")
            assert value.shape == (t["bias"].shape if where.endswith(("weight", "bias")) else case.shape), name
            assert value.eq(0).all(), name


def check_rejected(call, error: type[Exception], message: str) -> None:
    """The call raises just this type with just this message."""
    with pytest.raises(error, match=f"^{re.escape(message)}$") as raised:
        call()
    assert raised.type is error


def check_repeatable(stem: Stem, case: Case, device: str, set_threads) -> None:
    """Twice the same bits, for any number of threads."""
    t = make_tensors(stem, case, device)
    first = all_orders(stem, case, t)
    same_bits(first, all_orders(stem, case, t))
    for threads in (1, 3):
        set_threads(threads)
        same_bits(first, all_orders(stem, case, t))


def check_every_value_written(stem: Stem, case: Case, device: str) -> None:
    """With new memory full of NaN the results are the same, and finite."""
    t = make_tensors(stem, case, device)
    filled = all_orders(stem, case, t)
    torch.use_deterministic_algorithms(False)
    same_bits(filled, all_orders(stem, case, t))


def check_gradient_after_cat(stem: Stem, case: Case, device: str, dim: int) -> None:
    """torch.cat([real, fake]) hands slices of one gradient to both calls, and each may have its own layout."""
    real, fake = make_tensors(stem, case, device), make_tensors(stem, case._replace(layout="channels_last"), device)
    gradient = torch.cat([real["dy"], fake["ddx"]], dim)

    def run(function, dtype):
        leaves = [t["x"].to(dtype).requires_grad_() for t in (real, fake)]
        given = [
            {**{name: v.to(dtype) for name, v in t.items()}, "x": x} for t, x in zip((real, fake), leaves, strict=True)
        ]
        y = torch.cat([function(case, *arguments(t)) for t in given], dim)
        return torch.autograd.grad(y, leaves, gradient.to(dtype))

    results = (run(stem.fused, case.dtype), run(stem.stock, torch.float64), run(stem.stock, case.dtype))
    for got, gold, low in zip(*results, strict=True):
        assert_close_to_gold(got, gold, low, factor=3.0, name="dx")
