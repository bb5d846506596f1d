"""``fastgan info``: what is here, which backend serves, and why another does not."""

import json
import subprocess
import sys

import pytest
import torch

from fastgan import __version__, backends, config, info
from fastgan.backends import native

REASON = "the moon is full"


@pytest.fixture
def native_missing(monkeypatch):
    monkeypatch.setattr(native, "missing", lambda: REASON)
    backends.unavailable.cache_clear()
    yield
    backends.unavailable.cache_clear()


def _info(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "fastgan", "info", *arguments], capture_output=True, text=True, timeout=120, check=True
    ).stdout


def test_json_is_one_object_with_versions_devices_and_backends():
    report = json.loads(_info("--json"))
    assert report["fastgan"] == __version__ and report["packages"]["torch"] == torch.__version__
    assert report["devices"][0]["type"] == "cpu" and report["devices"][0]["threads"] >= 1
    assert set(report["backends"]) == set(backends.NAMES)
    assert set(report["environment"]) == set(config.VARIABLES)


def test_text_names_every_backend_and_variable():
    text = _info()
    assert all(word in text for word in (*backends.NAMES, *config.VARIABLES, __version__, torch.__version__))


def test_the_report_of_each_backend_is_what_dispatch_uses():
    for name, devices in info.collect()["backends"].items():
        for device, reasons in devices.items():
            for stem, reason in reasons.items():
                assert reason == backends.unavailable(name, stem, device, torch.float32)


def test_a_missing_backend_is_reported_with_its_reason(native_missing):
    report = info.collect()
    assert set(report["backends"]["native"]["cpu"].values()) == {REASON}
    [line] = [line for line in info.render(report).splitlines() if line.strip().startswith("native") and "cpu" in line]
    assert "missing" in line and REASON in line


def test_rendering_leaves_the_report_alone():
    report = info.collect()
    before = json.dumps(report)
    info.render(report)
    assert json.dumps(report) == before


def test_build_flags_are_those_of_the_compiler():
    flags = ["-O3", "-std=c++20"]
    report = info.collect() | {"build": {"build": "cpu", "reason": "", "flags": flags}}
    assert "-O3" in info.render(report)


def test_a_build_that_was_not_made_gives_its_reason():
    report = info.collect() | {"build": {"build": "none", "reason": REASON}}
    assert f"none, {REASON}" in info.render(report)
