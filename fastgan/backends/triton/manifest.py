"""Every Triton kernel in the variants that are compiled ahead of time for GPUs that are not here (tests/aot)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import triton
import triton.language as tl

from fastgan.backends.reference.activation import ACTIVATIONS
from fastgan.backends.triton import (
    bias_act,
    conv_norm_act,
    conv_norm_act_kernels,
    gradient_penalty,
    norm_act,
    norm_act_kernels,
    tuning,
)

_INTEGERS = {"size": "i64", "M": "i64", "C": "i32", "S": "i32", "rows": "i64", "splits": "i32", "tiles": "i32"}
# channels that are kept in the accumulation type
_STATISTICS = (
    "mean_ptr", "var_ptr", "squares_ptr", "sums_ptr", "t_ptr", "k_ptr", "out_mean_ptr", "out_var_ptr",
    "table_ptr", "partial_ptr",
)  # fmt: skip
# constants of one kernel
_OWN = {
    "_norm_act_merge_kernel": {"BLOCK_C": norm_act.MERGE_CHANNELS},
    "_conv_norm_act_table_kernel": {"BLOCK": conv_norm_act.TABLE_BLOCK},
    "_conv_norm_act_merge_kernel": {"BLOCK_TILES": conv_norm_act.MERGE_TILES, "BLOCK_C": conv_norm_act.MERGE_CHANNELS},
}
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
    num_stages: int = 3
    # arguments that are multiples of 16, as pointers to new memory and most numbers of channels are
    aligned: tuple[str, ...] = ()


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
    constants = _constants(*variant) | _OWN.get(name, {})
    accumulate = "*fp64" if dtype == "fp64" else "*fp32"
    signature, constexprs = {}, {}
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument], constexprs[argument] = "constexpr", constants[argument]
        elif argument in _INTEGERS:
            signature[argument] = _INTEGERS[argument]
        elif argument == "count_ptr":
            signature[argument] = "*i32"
        else:
            signature[argument] = accumulate if argument in _STATISTICS else f"*{dtype}"
    layout = "inner" if inner else "outer"
    label = f"{name.strip('_')}-{dtype}-{activation}-{layout}" + ("-act_first" if act_first else "")
    return Entry(label, kernel, signature, constexprs, num_warps)


class _Product(NamedTuple):
    """A matrix product of conv_norm_act: a row of tuning.json, and what it does on load and on store."""

    which: str
    # tf32 is fp32 multiplied by tensor cores
    number: str
    bucket: str
    load: int
    # of fwd what it stores beside its result, of dw the load of its other operand
    other: int
    transposed: bool


# every row of tuning.json, and for large ones the loads and stores that take most registers
_PRODUCTS = (
    _Product("fwd", "bf16", "large", 1, 1, False),
    _Product("fwd", "fp16", "large", 2, 2, True),
    _Product("fwd", "bf16", "small", 2, 2, True),
    _Product("fwd", "bf16", "thin_in", 2, 1, False),
    _Product("fwd", "fp16", "thin_out", 1, 0, True),
    _Product("fwd", "tf32", "large", 1, 1, False),
    _Product("fwd", "tf32", "small", 2, 2, True),
    _Product("fwd", "tf32", "thin_in", 0, 1, False),
    _Product("fwd", "tf32", "thin_out", 1, 0, True),
    _Product("fwd", "fp32", "any", 2, 2, True),
    _Product("fwd", "fp64", "any", 1, 1, True),
    _Product("dw", "bf16", "large", 2, 1, False),
    _Product("dw", "fp16", "small", 0, 1, False),
    _Product("dw", "bf16", "thin_in", 2, 0, False),
    _Product("dw", "bf16", "thin_out", 0, 1, False),
    _Product("dw", "tf32", "large", 2, 1, False),
    _Product("dw", "tf32", "small", 0, 1, False),
    _Product("dw", "tf32", "thin_in", 2, 0, False),
    _Product("dw", "tf32", "thin_out", 0, 1, False),
    _Product("dw", "fp32", "any", 2, 1, False),
    _Product("dw", "fp64", "any", 2, 1, False),
)
_THIN_SIDES = {"thin_in": ("C", "C_BIG"), "thin_out": ("K", "C_SMALL")}


def _product_constants(p: _Product, config: tuning.Config) -> dict[str, object]:
    constants = {
        "KERNEL": (4, 4),
        "STRIDE": (2, 2),
        "PADDING": (1, 1),
        "DILATION": (1, 1),
        "TRANSPOSED": p.transposed,
        "FLAT": p.bucket == "thin_in",
        "HAS_SCALE": True,
        "HAS_BIAS": True,
        "ACT": ACTIVATIONS.index("tanh" if p.bucket == "thin_out" else "leaky_relu"),
        "SLOPE": 0.2,
        "STORE": p.other,
        "PRECISION": "tf32" if p.number == "tf32" else "ieee",
        "ACC": tl.float64 if p.number == "fp64" else tl.float32,
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "BLOCK_K": config.block_k,
    }
    for prefix, load in (("X", p.load), ("SMALL", p.load), ("BIG", p.other)):
        constants |= {f"{prefix}_LOAD": load, f"{prefix}_ACT": ACTIVATIONS.index("leaky_relu"), f"{prefix}_SLOPE": 0.2}
    return constants


def _product_entry(p: _Product) -> Entry:
    kernel = getattr(conv_norm_act_kernels, f"_conv_norm_act_{p.which}_kernel")
    config = tuning.configs()[tuning.Key(p.which, "half" if p.number.endswith("16") else p.number, p.bucket)]
    constants = _product_constants(p, config)
    accumulate = "*fp64" if p.number == "fp64" else "*fp32"
    pointer = "*fp32" if p.number == "tf32" else f"*{p.number}"
    signature, aligned = {}, []
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument == "count_ptr":
            signature[argument] = "*i32"
        elif argument.endswith("_ptr"):
            signature[argument] = (
                accumulate if any(word in argument for word in ("table", "partial", "scale")) else pointer
            )
        else:
            signature[argument] = "i32"
        channels = argument in ("C", "K", "C_SMALL", "C_BIG") and argument not in _THIN_SIDES.get(p.bucket, ())
        if signature[argument].startswith("*") or channels:
            aligned.append(argument)
    constexprs = {name: constants[name] for name, kind in signature.items() if kind == "constexpr"}
    stages = config.stages(p.load, p.other if p.which == "dw" else 0)
    other = "store" if p.which == "fwd" else "load"
    words = (p.number, p.bucket, "scatter" if p.transposed else "gather", f"load_{p.load}", f"{other}_{p.other}")
    label = "-".join((f"conv_norm_act_{p.which}_kernel", *words))
    return Entry(label, kernel, signature, constexprs, config.num_warps, stages, tuple(aligned))


def _penalty_entry(name: str, kernel: triton.JITFunction, dtype: str, narrow: bool) -> Entry:
    tile = gradient_penalty.NARROW if narrow else gradient_penalty.WIDE
    accumulate = "fp64" if dtype == "fp64" else "fp32"
    constants = {
        "STACK": True,
        "ONE_SIDED": True,
        "ACC": tl.float64 if dtype == "fp64" else tl.float32,
        "BLOCK": gradient_penalty.BLOCK,
        "SAMPLES": tile.samples,
        "VALUES": tile.values,
        "ROUNDS": tile.rounds,
        "MERGE_SAMPLES": gradient_penalty.MERGE_SAMPLES,
        "MERGE_PARTS": gradient_penalty.MERGE_PARTS,
    }
    pointers = {"t_ptr": f"*{accumulate}", "penalty_ptr": f"*{accumulate}", "squares_ptr": "*fp64"}
    signature = {}
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument.endswith("_ptr"):
            signature[argument] = pointers.get(argument, f"*{dtype}")
        else:
            signature[argument] = "i32" if argument in ("B", "parts") else "i64"
    constexprs = {argument: constants[argument] for argument, kind in signature.items() if kind == "constexpr"}
    label = "-".join((name.strip("_"), dtype, "narrow" if narrow else "wide"))
    return Entry(label, kernel, signature, constexprs, num_warps=4)


def _entries() -> Iterator[Entry]:
    for variant in _VARIANTS:
        for name, kernel in _kernels(bias_act):
            yield _entry(name, kernel, variant, num_warps=4)
        for name, kernel in _kernels(norm_act_kernels):
            yield _entry(name, kernel, variant, num_warps=4 if "merge" in name else norm_act.NUM_WARPS)
    for variant in (_VARIANTS[2], _VARIANTS[4]):
        for name in ("_conv_norm_act_table_kernel", "_conv_norm_act_merge_kernel"):
            yield _entry(name, getattr(conv_norm_act_kernels, name), variant, num_warps=4)
    for name, kernel in _kernels(gradient_penalty):
        for dtype in ("bf16", "fp16", "fp32", "fp64"):
            yield _penalty_entry(name, kernel, dtype, narrow=False)
        yield _penalty_entry(name, kernel, "fp32", narrow=True)
    for product in _PRODUCTS:
        yield _product_entry(product)


def entries() -> list[Entry]:
    """Return all entries; the tests compile each for every supported architecture."""
    return list(_entries())
