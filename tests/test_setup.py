"""What setup.py builds where a build fails, and what it records of it; nothing is compiled here."""

import json
import runpy
from pathlib import Path

import pytest
import setuptools
import torch
from setuptools.command.build_ext import build_ext
from torch.utils import cpp_extension

SETUP = Path(__file__).parents[1] / "setup.py"


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Return a function that runs setup.py's build, of which the given modes fail, and returns (what was built in
    turn, what was recorded)."""

    def run(fails, *, asked="", cuda="13.0"):
        for name, value in {"FASTGAN_BUILD": asked, "CUDA_HOME": "/cuda", "TORCH_CUDA_ARCH_LIST": "9.0"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(cpp_extension, "CUDA_HOME", "/cuda")
        given, built = {}, []
        monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
        monkeypatch.chdir(SETUP.parent)
        runpy.run_path(str(SETUP))

        def compile_extension(self, extension):
            built.append("cuda" if ("FASTGAN_CUDA", None) in extension.define_macros else "cpu")
            if built[-1] in fails:
                raise setuptools.errors.LinkError(f"{built[-1]} does not link\nand more")

        monkeypatch.setattr(build_ext, "build_extension", compile_extension)
        # torch's looks for a compiler first
        monkeypatch.setattr(cpp_extension.BuildExtension, "build_extensions", build_ext.build_extensions)
        command = given["cmdclass"]["build_ext"](setuptools.Distribution({"ext_modules": given["ext_modules"]}))
        command.ensure_finalized()
        command.build_lib, command.build_temp = str(tmp_path / "lib"), str(tmp_path / "temp")
        command.run()
        return built, json.loads((tmp_path / "lib" / "fastgan" / "_build.json").read_text())

    return run


def test_cuda_is_built_where_torch_has_it(build):
    built, info = build(())
    assert built == ["cuda"] and (info["build"], info["reason"]) == ("cuda", "")
    assert "-std=c++17" in info["flags"]


def test_the_cpu_is_built_where_cuda_fails(build):
    built, info = build(("cuda",))
    assert built == ["cuda", "cpu"]
    assert (info["build"], info["reason"]) == ("cpu", "the cuda build failed: cuda does not link")
    assert "-std=c++17" not in info["flags"]


def test_both_fail(build):
    built, info = build(("cuda", "cpu"))
    reason = "the cuda build failed: cuda does not link; the cpu build failed: cpu does not link"
    assert built == ["cuda", "cpu"] and (info["build"], info["reason"]) == ("none", reason)


@pytest.mark.parametrize("asked", ["cuda", "cpu"])
def test_what_was_asked_for_is_not_replaced(build, asked):
    built, info = build((asked,), asked=asked)
    assert built == [asked]
    assert (info["build"], info["reason"]) == ("none", f"the {asked} build failed: {asked} does not link")


def test_nothing_is_built_where_it_was_asked_for(build):
    built, info = build((), asked="none")
    assert not built and info["build"] == "none" and "FASTGAN_BUILD=none" in info["reason"]


def test_torch_without_cuda(build):
    built, info = build((), cuda=None)
    assert built == ["cpu"] and (info["build"], info["reason"]) == ("cpu", "")


def test_a_word_that_is_none(build):
    with pytest.raises(SystemExit, match="FASTGAN_BUILD must be one of cpu, cuda, none, got 'gpu'"):
        build((), asked="gpu")


def test_cuda_is_where_nvcc_and_the_headers_are(monkeypatch, tmp_path):
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.setenv("FASTGAN_BUILD", "none")
    monkeypatch.setenv("CUDA_HOME", "/cuda")
    monkeypatch.chdir(SETUP.parent)
    cuda_home = runpy.run_path(str(SETUP))["cuda_home"]
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", str(nvcc.parent))
    assert cuda_home() != str(tmp_path)
    header = tmp_path / "include" / "cuda_runtime.h"
    header.parent.mkdir()
    header.touch()
    assert cuda_home() == str(tmp_path)
