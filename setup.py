"""Builds the optional extension ``fastgan._C`` from csrc/ (metadata is in pyproject.toml).

FASTGAN_BUILD=cpu|cuda|none chooses what is built; by default cuda where torch has CUDA and nvcc is there, else cpu.
Where the default fails with CUDA, it is built for the CPU. A build that fails leaves a working package without the
extension; ``fastgan info`` gives the reason.
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
# what tells the extension of one mode from that of another
BY_MODE = ("sources", "include_dirs", "define_macros", "library_dirs", "libraries", "extra_compile_args")


def cuda_home():
    """Return the folder with bin/nvcc and include/cuda_runtime.h, None where torch has to look for itself.

    torch takes the folder above that of the nvcc in PATH, which may be a script that calls the true one.
    """
    nvcc = shutil.which("nvcc")
    for folder in [*([Path(nvcc).resolve().parents[1]] if nvcc else []), Path("/usr/local/cuda")]:
        if (folder / "include" / "cuda_runtime.h").exists() and (folder / "bin" / "nvcc").exists():
            return str(folder)
    return None


# torch reads it when it is imported
if not os.environ.get("CUDA_HOME") and not os.environ.get("CUDA_PATH") and (home := cuda_home()):
    os.environ["CUDA_HOME"] = home
ASKED = os.environ.get("FASTGAN_BUILD", "")
try:
    import torch
    from torch.utils import cpp_extension
except ImportError:
    torch = None


def build_mode():
    """Return (mode, reason); the reason says why it is not all that torch could use, if so and not asked for."""
    if ASKED and ASKED not in MODES:
        sys.exit(f"FASTGAN_BUILD must be one of {', '.join(MODES)}, got {ASKED!r}")
    if ASKED == "none":
        return "none", "fastgan was installed with FASTGAN_BUILD=none"
    if torch is None:
        return "none", "torch could not be imported during installation; install with --no-build-isolation"
    if ASKED:
        return ASKED, ""
    if not torch.version.cuda:
        return "cpu", ""
    return ("cuda", "") if cpp_extension.CUDA_HOME else ("cpu", "torch has CUDA, but nvcc was not found")


def extension(mode):
    sources = ["csrc/bindings.cpp", *sorted(glob.glob("csrc/cpu/*.cpp"))]
    # Python's own flags ask for debugging information
    cxx = ["-g0", "-O3", "-std=c++20", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wno-unknown-pragmas"]
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
            self._build(info)
            if info["build"] == "none" and MODE == "cuda" and not ASKED:
                vars(self.extensions[0]).update({name: getattr(extension("cpu"), name) for name in BY_MODE})
                info["build"] = "cpu"
                self._build(info)
        target = ROOT / "fastgan" if self.inplace or self.editable_mode else Path(self.build_lib) / "fastgan"
        target.mkdir(parents=True, exist_ok=True)
        (target / "_build.json").write_text(json.dumps(info, indent=1))

    def build_extension(self, ext):
        try:
            super().build_extension(ext)
        except Exception as error:
            # setuptools makes a warning of some errors and goes on without an optional extension
            raise RuntimeError(str(error) or type(error).__name__) from error

    def _build(self, info):
        before = {name: getattr(self, name) for name in ("compiler", "inplace")}
        try:
            # BuildExtension adds its own to the lists
            flags = [flag for flags in self.extensions[0].extra_compile_args.values() for flag in flags]
            super().run()
            info["flags"] = flags
        except Exception as error:
            # as they were asked for: a build that fails leaves its own
            vars(self).update(before)
            reason = f"the {info['build']} build failed: {(str(error) or type(error).__name__).splitlines()[0]}"
            info.update(build="none", reason=f"{info['reason']}; {reason}" if info["reason"] else reason)
            print(f"fastgan: {reason}", file=sys.stderr)

    def get_outputs(self):
        return [path for path in super().get_outputs() if os.path.exists(path)]


if MODE == "none":
    from setuptools import Extension

    # declared so that build_ext runs and records the reason; nothing is compiled
    modules = [Extension("fastgan._C", [], optional=True)]
else:
    modules = [extension(MODE)]

setup(ext_modules=modules, cmdclass={"build_ext": BuildOptional})
