"""Every .cu file through nvcc for three GPUs: no warning, no stack, no spills, no torch header."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.aot

CSRC = Path(__file__).parents[2] / "csrc"
FILES = sorted((CSRC / "cuda").glob("*.cu"))
FORBIDDEN = re.compile(r'^\s*#\s*include\s*[<"](torch|ATen|c10|pybind11)[/.]', re.MULTILINE)
USAGE = re.compile(r"properties for (\S+)\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def _ids(path):
    return path.stem


def test_there_are_cuda_files():
    assert FILES, f"no .cu in {CSRC / 'cuda'}"


@pytest.mark.parametrize("path", FILES, ids=_ids)
def test_includes_no_torch_header(path):
    own = [CSRC / name for name in re.findall(r'#\s*include\s*"([^"]+)"', path.read_text())]
    own += [path.parent / header.name for header in own]
    for source in (path, *[header for header in own if header.exists()]):
        assert not FORBIDDEN.search(source.read_text()), source.name


@pytest.mark.parametrize("capability", [80, 90, 100], ids="sm_{}".format)
@pytest.mark.parametrize("path", FILES, ids=_ids)
def test_compiles_without_spills(path, capability, tmp_path):
    if not shutil.which("nvcc"):
        pytest.skip("nvcc is not on PATH: no .cu file was compiled here")
    options = ["-std=c++17", "-O3", "-Xptxas", "-v", "-Werror", "all-warnings", f"-I{CSRC}"]
    target = ["-gencode", f"arch=compute_{capability},code=sm_{capability}"]
    command = ["nvcc", *options, *target, "-c", str(path), "-o", str(tmp_path / "kernel.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    usage = USAGE.findall(done.stderr)
    assert usage, done.stderr
    # (kernel, stack frame, spill stores, spill loads)
    assert [row for row in usage if set(row[1:]) != {"0"}] == []
