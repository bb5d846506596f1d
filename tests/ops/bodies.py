"""The bodies of the tests that compare no accuracy, written once for all stems."""

import re
from collections.abc import Callable

import pytest
import torch
from torch.library import opcheck

from fastgan.testing import assert_close_to_gold

from .common import LEAVES, Stem, all_orders, arguments, check, derivatives, make_tensors, same_bits
from .grid import Case

OUTPUT_FORMAT = {"channels_last": torch.channels_last, "sliced_channels_last": torch.channels_last}


def check_layouts(stem: Stem, case: Case, device: str) -> None:
    """The values are right whatever the strides of x and of the cotangents, and the output has x's memory format."""
    t = make_tensors(stem, case, device)
    strides = torch.empty(t["dy"].shape, memory_format=OUTPUT_FORMAT.get(case.layout, torch.contiguous_format)).stride()
    assert derivatives(stem.fused, case, t, 0)["y"].stride() == strides
    check(stem, case, device, 0, 1, 2, tensors=t)


def check_gradients(stem: Stem, case: Case, device: str, backend: str, verify: Callable[..., bool]) -> None:
    """The analytic derivatives are those of finite differences; verify is gradcheck or gradgradcheck."""
    t = make_tensors(stem, case._replace(dtype=torch.float64), device)
    names = [name for name in LEAVES if name in t]
    leaves = [t[name].requires_grad_() for name in names]

    def function(*values):
        return stem.fused(case, *arguments({**t, **dict(zip(names, values, strict=True))}))

    torch.manual_seed(0)
    # the slow mode perturbs each value alone; the interpreter has time for one direction only
    options = {"atol": 1e-8, "rtol": 1e-6, "fast_mode": backend == "triton" and device == "cpu"}
    assert verify(function, leaves, **options)


def check_compiled(stem: Stem, case: Case, device: str, dynamic: bool, compiler: str) -> None:
    """Compiled in one graph, and in the same one for another size where dynamic, the op is right."""

    def function(*given):
        return stem.fused(case, *given)

    n, c, *rest = case.shape
    shapes = [case.shape, (n + 2, c, *[size + 1 for size in rest])] if dynamic else [case.shape]
    for order in range(2):
        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend=compiler)
        with torch._dynamo.config.patch(error_on_recompile=True):
            for sized in [case._replace(shape=shape) for shape in shapes]:
                check(stem._replace(fused=lambda _, *given, run=compiled: run(*given)), sized, device, order)


def check_op(thorough: bool, op, given: tuple) -> None:
    """The schema and the shape function tell the truth; thorough: under AOT autograd, too."""
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
            of = "dy" if where == "y" else where if where in t else where[1:]
            assert value.shape == t[of].shape, name
            assert value.eq(0).all(), name


def check_rejected(call, error: type[Exception], message: str) -> None:
    """The call raises just this type with just this message."""
    with pytest.raises(error, match=f"^{re.escape(message)}$") as raised:
        call()
    assert raised.type is error


def check_repeatable(stem: Stem, case: Case, device: str, backend: str, set_threads: Callable[[int], None]) -> None:
    """Twice the same bits, and for any number of threads where the loops are ours."""
    t = make_tensors(stem, case, device)
    first = all_orders(stem, case, t)
    same_bits(first, all_orders(stem, case, t))
    ours = backend == "native" and device == "cpu" and not stem.product(case)
    for threads in (2, 3) if ours else ():
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
    gradient = torch.cat([real["dy"], fake["dy"]], dim)

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
