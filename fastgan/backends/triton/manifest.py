"""Every Triton kernel in the variants that are compiled ahead of time for GPUs that are not here (tests/aot)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import triton
import triton.language as tl

from fastgan.backends.reference.activation import ACTIVATIONS
from fastgan.backends.triton import bias_act, norm_act, norm_act_kernels

_INTEGERS = {"size": "i64", "M": "i64", "C": "i32", "S": "i32", "rows": "i64", "splits": "i32"}
# channels that are kept in the accumulation type
_STATISTICS = ("mean_ptr", "var_ptr", "squares_ptr", "sums_ptr", "t_ptr", "k_ptr", "out_mean_ptr", "out_var_ptr")
# dtype, activation, channels innermost, activation first
_VARIANTS = (
    ("bf16", "leaky_relu", True, False),
    ("fp16", "relu", True, False),
    ("fp32", "leaky_relu", False, True),
    ("fp32", "silu", True, True),
    ("fp64", "tanh", False, False),
)


class Entry(NamedTuple):
    """One kernel in one variant: argument types in order, ``constexpr`` for those in ``constexprs``."""

    name: str
    kernel: triton.JITFunction
    signature: dict[str, str]
    constexprs: dict[str, object]
    num_warps: int


def _kernels(module: object) -> list[tuple[str, triton.JITFunction]]:
    return [(name, f) for name, f in vars(module).items() if name.endswith("_kernel") and name.startswith("_")]


def _constants(dtype: str, activation: str, inner: bool, act_first: bool) -> dict[str, object]:
    tile = norm_act.INNER_TILE if inner else norm_act.OUTER_TILE
    return {
        "SLOPE": 0.2,
        "EPS": 1e-5,
        "ACT": ACTIVATIONS.index(activation),
        "ACT_FIRST": act_first,
        "AFFINE": 3,
        "HAS_BIAS": True,
        "TRAINING": True,
        "INNER": inner,
        "ACC": tl.float64 if dtype == "fp64" else tl.float32,
        "BLOCK": bias_act.BLOCK,
        "BLOCK_M": tile.m,
        "BLOCK_C": tile.c,
        "BLOCK_SPLITS": norm_act.MAX_SPLITS,
    }


def _entry(name: str, kernel: triton.JITFunction, variant: tuple[str, str, bool, bool], num_warps: int) -> Entry:
    dtype, activation, inner, act_first = variant
    constants = _constants(*variant)
    if name == "_norm_act_merge_kernel":
        constants["BLOCK_C"] = norm_act.MERGE_CHANNELS
    accumulate = "*fp64" if dtype == "fp64" else "*fp32"
    signature, constexprs = {}, {}
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument], constexprs[argument] = "constexpr", constants[argument]
        elif argument in _INTEGERS:
            signature[argument] = _INTEGERS[argument]
        else:
            signature[argument] = accumulate if argument in _STATISTICS else f"*{dtype}"
    layout = "inner" if inner else "outer"
    label = f"{name.strip('_')}-{dtype}-{activation}-{layout}" + ("-act_first" if act_first else "")
    return Entry(label, kernel, signature, constexprs, num_warps)


def _entries() -> Iterator[Entry]:
    for variant in _VARIANTS:
        for name, kernel in _kernels(bias_act):
            yield _entry(name, kernel, variant, num_warps=4)
        for name, kernel in _kernels(norm_act_kernels):
            yield _entry(name, kernel, variant, num_warps=4 if "merge" in name else norm_act.NUM_WARPS)


def entries() -> list[Entry]:
    """Return all entries; the tests compile each for every supported architecture."""
    return list(_entries())
