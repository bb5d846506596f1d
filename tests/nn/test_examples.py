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


def test_own_networks_in_the_trainer(monkeypatch, capsys, tmp_path):
    source = (EXAMPLES / "train_your_own.py").read_text()
    assert sum(bool(line.strip()) for line in source.splitlines()) < 30
    monkeypatch.setattr(sys, "argv", ["train_your_own", str(tmp_path / "run")])
    exec(compile(source.replace("steps=500", "steps=3"), "train_your_own.py", "exec"), {})
    assert "'step': 3" in capsys.readouterr().out
    assert (tmp_path / "run/samples/step_000003.png").exists()
