"""Every Triton kernel that a GPU may run, compiled here for three of them: no spills, shared memory within limits."""

import importlib
import os
import pkgutil
import re
import subprocess
from pathlib import Path

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import fastgan.backends.triton as backend
from fastgan.backends.triton import manifest, tuning

pytestmark = pytest.mark.aot

SHARED_KIB = {80: 99, 90: 227, 100: 227}
ENTRIES = manifest.entries()


@pytest.fixture(scope="module", autouse=True)
def compiler_not_interpreter():
    interpreted = os.environ.get("TRITON_INTERPRET", "0") != "0"
    assert not interpreted, "TRITON_INTERPRET turns Triton's compiler off: run tests/aot in a process without it"


@pytest.fixture(scope="module")
def cuobjdump():
    [path] = Path(triton.__file__).parent.glob("backends/nvidia/bin/cuobjdump")
    return path


def _compile(entry, capability):
    arguments = list(entry.signature)
    aligned = {(arguments.index(name),): [["tt.divisibility", 16]] for name in entry.aligned}
    source = ASTSource(entry.kernel, entry.signature, dict(entry.constexprs), aligned)
    options = {"num_warps": entry.num_warps, "num_stages": entry.num_stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def _on_tensor_cores(entry):
    """Return whether the product fills Hopper's tensor cores: not fp32 as it is, nor tiles of less than 64 rows."""
    constants = entry.constexprs
    short = (
        constants.get("PRECISION") == "tf32"
        or "*bf16" in entry.signature.values()
        or "*fp16" in entry.signature.values()
    )
    return "PRECISION" in constants and short and constants["BLOCK_M"] >= 64 and entry.num_warps >= 4


@pytest.mark.parametrize("capability", SHARED_KIB, ids="sm_{}".format)
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_compiles_without_spills(entry, capability, cuobjdump, tmp_path):
    kernel = _compile(entry, capability)
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    command = [cuobjdump, "--dump-resource-usage", cubin]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: int(size) for name, size in re.findall(r"\b(REG|STACK|LOCAL|SHARED):(\d+)", usage)}
    assert found["REG"] > 0 and found["STACK"] == 0 and found["LOCAL"] == 0, usage
    assert kernel.metadata.shared <= SHARED_KIB[capability] * 1024
    if capability == 90 and _on_tensor_cores(entry):
        assert "wgmma.mma_async" in kernel.asm["ptx"]


@pytest.mark.parametrize("name", sorted({e.kernel.__name__ for e in ENTRIES}))
def test_compiles_for_numbers_that_are_one(name):
    """Triton makes an argument that is 1 a constant, on which ``.to`` and the like do not exist."""
    entry = next(entry for entry in ENTRIES if entry.kernel.__name__ == name)
    ones = [argument for argument, kind in entry.signature.items() if kind in ("i32", "i64")]
    assert ones
    signature = entry.signature | dict.fromkeys(ones, "constexpr")
    constexprs = entry.constexprs | dict.fromkeys(ones, 1)
    _compile(entry._replace(signature=signature, constexprs=constexprs, aligned=()), 90)


def test_every_row_of_the_tuning_table_is_compiled():
    blocks = ("BLOCK_M", "BLOCK_N", "BLOCK_K")
    compiled = {
        (entry.kernel.__name__, *(entry.constexprs[name] for name in blocks), entry.num_warps)
        for entry in ENTRIES
        if "PRECISION" in entry.constexprs
    }
    for key, config in tuning.configs().items():
        assert (f"_conv_norm_act_{key.which}_kernel", *config[:4]) in compiled, key


def test_names_are_unique():
    names = [entry.name for entry in ENTRIES]
    assert len(set(names)) == len(names)


def test_signatures_name_every_argument_in_order():
    for entry in ENTRIES:
        assert list(entry.signature) == entry.kernel.arg_names, entry.name
        constants = [name for name, kind in entry.signature.items() if kind == "constexpr"]
        assert sorted(entry.constexprs) == sorted(constants), entry.name


def test_every_kernel_is_in_the_manifest():
    kernels = set()
    for module in pkgutil.iter_modules(backend.__path__, f"{backend.__name__}."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, triton.JITFunction) and name.endswith("_kernel"):
                kernels.add(name)
    assert kernels and kernels == {entry.kernel.__name__ for entry in ENTRIES}


def test_only_kernels_are_launched():
    """A JITFunction that is launched from Python must be called ..._kernel, or the test above would not see it."""
    for path in Path(backend.__path__[0]).glob("*.py"):
        launched = re.findall(r"([\w.]+)\[[^\]]*\bgrid\b[^\]]*\]\(", path.read_text())
        assert all(name.endswith("kernel") for name in launched), (path.name, launched)
