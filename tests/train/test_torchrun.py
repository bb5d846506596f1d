"""Two commands that torchrun starts, or that are told what it would tell them."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from fastgan.train import Trainer
from fastgan.train.checkpoint import checkpoint_steps
from fastgan.train.run_dir import RunDir

from .in_two import settings

# seconds; each takes a few where nothing else runs
_PATIENCE = 150


@pytest.fixture
def data(idx_dir):
    return f"idx:{idx_dir}"


def command(data, out, steps=3, **more):
    options = {"features": 4, "latent_dim": 8, "log_every": 1, "sample_count": 4, "checkpoint_every": 1000, **more}
    sizes = ["--image-size", "32", "--batch-size", "8", "--device", "cpu", "--steps", str(steps)]
    return [
        *(sys.executable, "-m"),
        *("fastgan", "train", "--data", data, "--out", str(out), *sizes),
        *(f"--set={name}={value}" for name, value in options.items()),
    ]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.fixture
def start_two():
    """Starts two processes with what torchrun would tell them; none of them outlives the test."""
    started = []
    yield lambda arguments: started.extend(two_processes(arguments)) or started
    for process in started:
        process.kill()


def two_processes(arguments):
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    shared["MASTER_PORT"] = free_port()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen(arguments, env={**shared, "RANK": str(rank)}, **pipes) for rank in range(2)]


def end(processes):
    """Exit codes, and what both said on stdout and stderr."""
    said = [process.communicate(timeout=_PATIENCE) for process in processes]
    return [process.returncode for process in processes], *("".join(words) for words in zip(*said, strict=True))


def wait_for(path, processes):
    deadline = time.monotonic() + _PATIENCE
    while not path.exists():
        assert all(process.poll() is None for process in processes), end(processes)
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.1)


def test_torchrun_gives_the_losses_of_one(data, tmp_path):
    python, m, *arguments = command(data, tmp_path / "run")
    launcher = [python, m, "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    done = subprocess.run(
        [*launcher, f"--master-port={free_port()}", m, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    rows = RunDir(tmp_path / "run").rows(tmp_path / "run/metrics.jsonl")
    expected = Trainer(settings(data, steps=3)).fit(progress=False).metrics
    assert [row["d_loss"] for row in rows] == pytest.approx([row["d_loss"] for row in expected], rel=1e-6)
    assert done.stdout.count("done, 3 steps") == done.stdout.count("images of") == 1
    assert "Warning" not in done.stderr
    assert "destroy_process_group" not in done.stderr
    assert done.stderr.count("0/3 [") == 1


def test_a_signal_to_one_of_two_commands_ends_both(data, tmp_path, start_two):
    run = tmp_path / "run"
    processes = start_two(command(data, run, steps=1000000))
    wait_for(run / "metrics.jsonl", processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, out, err = end(processes)
    assert codes == [128 + signal.SIGTERM] * 2, err
    assert "Traceback" not in err
    steps = re.findall(r"stopped by SIGTERM after step (\d+) and saved", out)
    assert len(steps) == 1
    assert checkpoint_steps(run / "checkpoints")[-1] == int(steps[0])
    assert RunDir(run).rows(run / "metrics.jsonl")[-1]["step"] == int(steps[0])


def test_a_killed_process_ends_the_others(data, tmp_path, start_two):
    processes = start_two(command(data, tmp_path / "run", steps=1000000))
    wait_for(tmp_path / "run/metrics.jsonl", processes)
    processes[1].kill()
    codes, _, err = end(processes)
    assert codes == [1, -signal.SIGKILL], err
    assert "Traceback" not in err
    assert err.count("fastgan: another process of this run has ended or does not answer") == 1
