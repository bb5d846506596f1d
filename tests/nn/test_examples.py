"""The examples run."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["convert_existing_gan", "write_your_own", "wgan_gp"])
def test_example(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", [name, "--steps", "3"])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "step 2: " in out and "nan" not in out
