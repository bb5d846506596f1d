"""Builds the optional extension ``fastgan._C`` from csrc/ (metadata is in pyproject.toml).

FASTGAN_BUILD=cpu|cuda|none chooses what is built; by default cuda where torch has CUDA and nvcc is there, else cpu.
A build that fails leaves a working package without the extension; ``fastgan info`` gives the reason.
"""

import glob
import json
import os
import platform
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
MODES = ("cpu", "cuda", "none")

try:
    import torch
    from torch.utils import cpp_extension
except ImportError:
    torch = None


def build_mode():
    """Return (mode, reason); the reason is empty unless nothing is to be built."""
    asked = os.environ.get("FASTGAN_BUILD", "")
    if asked and asked not in MODES:
        sys.exit(f"FASTGAN_BUILD must be one of {', '.join(MODES)}, got {asked!r}")
    if asked == "none":
        return "none", "fastgan was installed with FASTGAN_BUILD=none"
    if torch is None:
        return "none", "torch could not be imported during installation; install with --no-build-isolation"
    if asked:
        return asked, ""
    return ("cuda" if torch.version.cuda and shutil.which("nvcc") else "cpu"), ""


def extension(mode):
    sources = ["csrc/bindings.cpp", *sorted(glob.glob("csrc/cpu/*.cpp"))]
    cxx = ["-O3", "-std=c++20", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wno-unknown-pragmas"]
    if platform.system() == "Linux":
        cxx.append("-fopenmp")
    options = {"name": "fastgan._C", "include_dirs": [str(ROOT / "csrc")], "optional": True}
    if mode == "cpu":
        return cpp_extension.CppExtension(sources=sources, extra_compile_args={"cxx": cxx}, **options)
    if not torch.cuda.is_available():
        # no GPU here to ask for its architecture
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0;9.0;10.0+PTX")
    sources += ["csrc/cuda/glue.cpp", *sorted(glob.glob("csrc/cuda/*.cu"))]
    return cpp_extension.CUDAExtension(
        sources=sources,
        define_macros=[("FASTGAN_CUDA", None)],
        extra_compile_args={"cxx": cxx, "nvcc": ["-O3", "-std=c++17"]},
        **options,
    )


MODE, REASON = build_mode()
BASE = build_ext if MODE == "none" else cpp_extension.BuildExtension


class BuildOptional(BASE):
    """Builds the extension if it can, and records beside the package what was built and why not."""

    def run(self):
        info = {"build": MODE, "reason": REASON, "torch": getattr(torch, "__version__", None)}
        if MODE != "none":
            try:
                # BuildExtension adds its own to the lists
                flags = [flag for flags in self.extensions[0].extra_compile_args.values() for flag in flags]
                super().run()
                info["flags"] = flags
            except Exception as error:
                info.update(build="none", reason=f"the {MODE} build failed: {str(error).splitlines()[0]}")
                print(f"fastgan: {info['reason']}; continuing without fastgan._C", file=sys.stderr)
        target = ROOT / "fastgan" if self.inplace or self.editable_mode else Path(self.build_lib) / "fastgan"
        target.mkdir(parents=True, exist_ok=True)
        (target / "_build.json").write_text(json.dumps(info, indent=1))

    def get_outputs(self):
        return [path for path in super().get_outputs() if os.path.exists(path)]


if MODE == "none":
    from setuptools import Extension

    # declared so that build_ext runs and records the reason; nothing is compiled
    modules = [Extension("fastgan._C", [], optional=True)]
else:
    modules = [extension(MODE)]

setup(ext_modules=modules, cmdclass={"build_ext": BuildOptional})
