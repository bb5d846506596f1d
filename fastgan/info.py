"""What ``fastgan info`` reports: versions, devices, backends and why one cannot serve, build, caches."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch

from fastgan import __version__, backends, config
from fastgan.backends import native

PACKAGES = ("torch", "triton", "numpy", "ninja", "pillow", "tqdm", "torchmetrics", "matplotlib")


def version(package: str) -> str | None:
    """Return the version of an installed package, None where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    cpu = {"type": "cpu", "name": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    if not native.missing():
        import fastgan._C as _C

        cpu["instruction_set"] = _C.instruction_set()
    devices = [cpu]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = f"{properties.major}.{properties.minor}"
        memory = properties.total_memory // 2**20
        devices.append({"type": "cuda", "name": properties.name, "capability": capability, "memory_mib": memory})
    return devices


def _backends(device_types: list[str]) -> dict[str, dict[str, dict[str, str]]]:
    return {
        name: {
            device: {stem: backends.unavailable(name, stem, device, torch.float32) for stem in backends.STEMS}
            for device in device_types
        }
        for name in backends.NAMES
    }


def _caches() -> dict[str, str]:
    from triton import knobs

    return {"triton": str(Path(knobs.cache.dir))}


def collect() -> dict[str, Any]:
    """Return all that ``fastgan info`` prints, ready for JSON; an empty reason means available."""
    devices = _devices()
    return {
        "fastgan": __version__,
        "python": platform.python_version(),
        # torch itself also says for which CUDA it was built
        "packages": {package: version(package) for package in PACKAGES} | {"torch": torch.__version__},
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "onednn": torch.backends.mkldnn.is_available(),
        "devices": devices,
        "backends": _backends(sorted({device["type"] for device in devices})),
        "build": native.build_info(),
        "caches": _caches() if version("triton") else {},
        "environment": config.environment(),
    }


def _backend_lines(report: dict[str, dict[str, dict[str, str]]]) -> list[str]:
    lines = []
    for name, by_device in report.items():
        for device, reasons in by_device.items():
            for reason in dict.fromkeys(reasons.values()):
                stems = ", ".join(stem for stem, why in reasons.items() if why == reason)
                lines.append(f"  {name:<10} {device:<5} {'missing: ' + reason if reason else 'available'} ({stems})")
    return lines


def render(report: dict[str, Any]) -> str:
    """Return ``report``, from ``collect``, as text for a terminal."""
    versions = [f"{package} {found or 'not installed'}" for package, found in report["packages"].items()]
    devices = [f"  {device.pop('type'):<5} {', '.join(f'{k}: {v}' for k, v in device.items())}"
               for device in map(dict, report["devices"])]  # fmt: skip
    build = report["build"]
    return "\n".join([
        f"fastgan {report['fastgan']}, Python {report['python']}",
        "packages: " + ", ".join(versions),
        f"CUDA {report['cuda'] or 'none'}, cuDNN {report['cudnn'] or 'none'}, oneDNN {report['onednn']}",
        "devices:", *devices,
        "backends:", *_backend_lines(report["backends"]),
        f"build: {build['build']}" + (f", {build['reason']}" if build.get("reason") else ""),
        f"build flags: {' '.join(build.get('flags') or []) or 'none'}",
        "caches: " + (", ".join(f"{name} {path}" for name, path in report["caches"].items()) or "none"),
        "environment:",
        *(f"  {name}={value or ''}  ({config.VARIABLES[name]})" for name, value in report["environment"].items()),
    ])  # fmt: skip
