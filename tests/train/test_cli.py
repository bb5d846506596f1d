"""The command line: train says what is there, Ctrl-C saves and the printed command goes on, sample and evaluate."""

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from fastgan.train import Trainer, sources

from .commands import environment, run, tree


def test_train_leaves_out_an_unreadable_image(here, capsys, tiny):
    (here / "pictures").mkdir()
    (here / "pictures/bad.png").write_bytes(b"broken")
    Image.new("RGB", (8, 8), (9, 9, 9)).save(here / "pictures/good.png")
    assert run("train", "--data", "folder:pictures", "--steps", 1, "--batch-size", 2, "--out", "run") == 0
    assert "1 images cannot be read and are left out: pictures/bad.png" in capsys.readouterr().err


@pytest.fixture
def finished(here, tiny):
    Trainer(tiny(out="run")).fit(progress=False)
    return here


def test_train_says_where_the_pictures_are(here, idx_dir, capsys):
    args = ["--data", f"idx:{idx_dir}", "--steps", 2, "--batch-size", 2, "--seed", 5, "--device", "cpu", "--out", "a/b"]
    assert run("train", *args) == 0
    out = capsys.readouterr().out
    assert "pictures are in a/b/samples, the last one is a/b/samples/step_000002.png" in out
    row = json.loads((here / "a/b/metrics.jsonl").read_text().splitlines()[-1])
    assert {"step", "d_loss", "g_loss", "images_per_second"} <= row.keys()


@pytest.mark.parametrize("preset", ["dcgan", "wgan", "wgan-gp", "sngan", "r3gan-loss"])
def test_train_takes_every_preset(here, idx_dir, preset):
    args = ["--data", f"idx:{idx_dir}", "--steps", 1, "--batch-size", 2, "--device", "cpu"]
    assert run("train", "--preset", preset, *args) == 0
    assert (here / f"runs/{preset}/samples/step_000001.png").exists()


@pytest.mark.parametrize(("n", "size"), [(1, (36, 36)), (10, (4 * 34 + 2, 3 * 34 + 2))])
def test_sample(finished, capsys, n, size):
    assert run("sample", "run", "--n", n, "--out", "grid.png") == 0
    assert f"{n} images of step 4 in grid.png" in capsys.readouterr().out
    assert Image.open("grid.png").size == size


def test_sample_follows_its_seed(finished):
    pictures = []
    for seed in (1, 1, 2):
        run("sample", "run", "--seed", seed, "--out", "grid.png")
        pictures.append((finished / "grid.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite_pytorch") is None, reason="efficientnet_lite_pytorch is not installed"
)
def test_evaluate(finished, capsys):
    assert run("evaluate", "run", "--n", 8) == 0
    out = capsys.readouterr().out
    assert out.startswith("scores in the features of EfficientNet-lite0")
    assert "n = 8" in out
    floor, before, after = (float(number) for number in re.findall(r"(-?\d+\.\d+) \+-", out))
    # random pixels against random pixels; grey before training
    assert abs(floor) < 0.1 * before
    assert after != before


def test_ctrl_c_outside_of_the_loop_is_one_sentence(here, capsys, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "read_mnist5k", interrupted)
    assert run("train", "--data", "mnist5k") == 128 + signal.SIGINT
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert tree(here) == []


def test_info_and_import_need_core_dependencies_only():
    block = "import sys; sys.modules.update(dict.fromkeys(['PIL', 'tqdm', 'tomli_w', 'torchmetrics']))"
    script = f"{block}; import fastgan.train.cli; from fastgan.__main__ import main; main(['info', '--json'])"
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)


def wait_for(path, process):
    for _ in range(600):
        if path.exists():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    pytest.fail(f"no {path} in a minute")


def test_ctrl_c_saves_and_the_printed_command_goes_on(here, idx_dir):
    command = [
        sys.executable,
        "-m",
        "fastgan",
        "train",
        "--data",
        f"idx:{idx_dir}",
        "--out",
        "my run",
        "--device",
        "cpu",
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": here, "env": environment()}
    process = subprocess.Popen([*command, "--steps", "1000000", "--batch-size", "2"], **pipes)
    wait_for(here / "my run/checkpoints/step_000000.pt", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, err
    assert "Traceback" not in err
    step = int(re.search(r"stopped by SIGINT after step (\d+) and saved", out)[1])
    assert (here / f"my run/checkpoints/step_{step:06d}.pt").exists()
    again = shlex.split(re.search(r"go on with: (.*)", out)[1])
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    settings = {"env": {**environment(), "PATH": path}, "capture_output": True, "text": True, "cwd": here}
    done = subprocess.run([*again, "--steps", str(step + 2)], **settings)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (here / "my run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == step + 2
