"""Two processes on one machine: the losses of one process, one state, one voice, and one end."""

import contextlib
import functools
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from fastgan.__main__ import main
from fastgan.models import dcgan
from fastgan.train import TrainConfig, Trainer, saving
from fastgan.train.callbacks import Callback
from fastgan.train.checkpoint import checkpoint_steps, load_checkpoint
from fastgan.train.distributed import World
from fastgan.train.penalties import Penalties
from fastgan.train.run_dir import RunDir
from fastgan.train.seeing import Seeing
from tests.nn.parallel import in_two_processes

# with learning rates at which the losses move, but rounding is not yet multiplied by a thousand within five steps
GAMES = {
    "dcgan": {},
    "wgan-gp": {"g_lr": 0.001, "d_lr": 0.001},
    "sngan": {"g_lr": 0.004, "d_lr": 0.004},
    "r3gan-loss": {"g_lr": 0.004, "d_lr": 0.004},
    "wgan": {"g_lr": 0.0004, "d_lr": 0.0004, "clip": 0.02},
    "dcgan clipped and averaged": {"clip_grad": 0.1, "ema": 0.5},
    "wgan-gp in turn": {"penalty_every": 3, "d_steps": 1, "g_lr": 0.001, "d_lr": 0.001},
}
GOING_ON = {
    "plain": {},
    "dropout": {"model": "mlp", "norm": "none", "augment": "color,cutout", "instance_noise": 0.1},
}


SIGNALS = {"to the second": (signal.SIGTERM, [1]), "to both": (signal.SIGINT, [0, 1])}


def settings(data, preset="dcgan", **more):
    small = {"image_size": 32, "features": 4, "latent_dim": 8, "batch_size": 8, "steps": 5, "device": "cpu"}
    seldom = {"log_every": 1, "sample_every": 2, "checkpoint_every": 2, "sample_count": 4}
    return TrainConfig.preset(preset, **{"data": data, **small, **seldom, **more})


def outcome(trainer):
    """Rows without the time they took, and the weights that samples are drawn with."""
    rows = [{k: v for k, v in row.items() if k != "images_per_second"} for row in trainer.fit(progress=False).metrics]
    return rows, [value.clone() for value in trainer.players.sampler.state_dict().values()]


def play(data, name):
    return outcome(Trainer(settings(data, name.split()[0], **GAMES[name])))


def go_on(data, out, name):
    """A run of 3 steps, gone on with to 5, and the same without a stop: all in these processes."""
    config = settings(data, **GOING_ON[name])
    Trainer(config.replace(steps=3, out=str(out))).fit(progress=False)
    return outcome(Trainer.resume(out, steps=5)), outcome(Trainer(config))


class Full(Callback):
    def logged(self, trainer, row):
        if trainer.step == 2:
            raise OSError(28, "No space left on device", "metrics.jsonl")


class Wrong(Callback):
    def logged(self, trainer, row):
        raise KeyError("no such thing")


def refusals(data, root, rank):
    """What each process says to what cannot be done; some of it is seen by the first alone."""
    fine = settings(data)

    def full_disk():
        before = saving.save_checkpoint
        try:
            saving.save_checkpoint = functools.partial(fail_at, 4, before)
            Trainer(fine.replace(out=str(root / "full"))).fit(progress=False)
        finally:
            saving.save_checkpoint = before

    def taken():
        trainer = Trainer(fine.replace(out=str(root / "taken")))
        if rank == 0:
            (root / "taken").mkdir()
            (root / "taken/file").touch()
        trainer.fit(progress=False)

    cases = {
        "share": lambda: Trainer(fine.replace(batch_size=7)),
        "data": lambda: Trainer(fine.replace(data=f"folder:{root}/nothing")),
        "unconverted": lambda: Trainer(fine.replace(convert=False)),
        "occupied": lambda: Trainer(fine.replace(out=str(root / "occupied"))),
        "taken": taken,
        "locked": lambda: Trainer.resume(root / "locked"),
        "nothing": lambda: Trainer.resume(root / "nothing"),
        "one has no data": lambda: Trainer(fine.replace(data=data if rank == 0 else f"folder:{root}/nothing")),
        "full disk": full_disk,
        "full disk for rows": lambda: Trainer(fine, callbacks=[Full()]).fit(progress=False),
        "wrong callback": lambda: Trainer(fine, callbacks=[Wrong()]).fit(progress=False),
        "diverged": lambda: Trainer(fine.replace(g_lr=1e30, d_lr=1e30)).fit(progress=False),
    }
    return {name: said(case) for name, case in cases.items()}


def fail_at(step, save, directory, at, *more):
    if at == step:
        raise OSError(28, "No space left on device")
    return save(directory, at, *more)


def said(case):
    try:
        case()
    except Exception as error:
        return type(error).__name__, str(error)
    return "nothing", ""


def stopped(data, out, rank, signum, to):
    """Where a run stops whose third step some processes are asked to stop in."""
    trainer = Trainer(settings(data, out=str(out)))
    step = trainer.train_step

    def interrupted():
        if trainer.step == 2 and rank in to:
            os.kill(os.getpid(), signum)
        return step()

    trainer.train_step = interrupted
    result = trainer.fit(progress=False)
    return result.step, result.signum


def commanded(*arguments):
    """Exit code of a command, and what it says on stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as err:
        return main(["train", *map(str, arguments)]), err.getvalue()


def own_networks(data, rank):
    torch.manual_seed(rank)
    sizes = {"image_size": 32, "channels": 1, "features": 4}
    trainer = Trainer(settings(data, ema=0.5), dcgan.Generator(latent_dim=8, **sizes), dcgan.Discriminator(**sizes))
    return [list(model.parameters()) for model in (trainer.generator, trainer.discriminator, trainer.players.ema)]


class SlowScore:
    def __init__(self, config, device):
        pass

    def score(self, trainer):
        time.sleep(1)
        return {"step": trainer.step, "kid": -trainer.step, "kid_std": 0.0, "n": 4}


def scored(data, out):
    before, saving.Best = saving.Best, SlowScore
    try:
        return outcome(Trainer(settings(data, out=str(out), score_every=2, score_count=4)))[0]
    finally:
        saving.Best = before


def work(data, root, rank):
    return {
        "games": {name: play(data, name) for name in GAMES},
        "going on": {name: go_on(data, root / name, name) for name in GOING_ON},
        "two, then one": outcome(Trainer(settings(data, steps=3, out=str(root / "two")))),
        "one, then two": outcome(Trainer.resume(root / "one", steps=5)),
        "refusals": refusals(data, root, rank),
        "signals": {name: stopped(data, root / name, rank, *SIGNALS[name]) for name in SIGNALS},
        "commands": {
            "directory": commanded("--data", data, "--device", "cpu", "--out", root / "occupied"),
            "setting": commanded("--data", data, "--set=d_steps=0"),
        },
        "own networks": own_networks(data, rank),
        "scored": scored(data, root / "scored"),
    }


@pytest.fixture(scope="module")
def data(idx_dir):
    return f"idx:{idx_dir}"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def whole(data):
    return outcome(Trainer(settings(data)))


@pytest.fixture(scope="module")
def two(data, root, whole):
    """What each of two processes has seen, and the directories that they left."""
    Trainer(settings(data, out=str(root / "one"), steps=3)).fit(progress=False)
    (root / "occupied").mkdir()
    (root / "occupied/file").touch()
    locked = RunDir(root / "locked")
    locked.create(settings(data))
    try:
        return in_two_processes(functools.partial(work, data, root), root)
    finally:
        locked.unlock()


def check_close(outcomes, expected):
    (rows, weights), (expected_rows, expected_weights) = outcomes, expected
    assert [row.keys() for row in rows] == [row.keys() for row in expected_rows]
    for row, other in zip(rows, expected_rows, strict=True):
        for name in row:
            assert row[name] == pytest.approx(other[name], rel=1e-6, abs=1e-7), (row["step"], name)
    torch.testing.assert_close(weights, expected_weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", GAMES)
def test_two_processes_give_the_losses_of_one(two, data, name):
    expected = play(data, name)
    rows = expected[0]
    assert all(max(abs(row[key] - rows[0][key]) for row in rows) > 1e-4 for key in ("d_loss", "g_loss"))
    check_close(two[0]["games"][name], expected)


@pytest.mark.parametrize("name", GAMES)
def test_two_processes_end_with_the_same_weights_and_rows(two, name):
    (rows, weights), (other_rows, other_weights) = (seen["games"][name] for seen in two)
    assert rows == other_rows
    assert all(map(torch.equal, weights, other_weights))


def test_a_run_of_two_goes_on_as_one(two, root, whole):
    rows, weights = outcome(Trainer.resume(root / "two", steps=5))
    check_close((two[0]["two, then one"][0] + rows, weights), whole)


def test_a_run_of_one_goes_on_as_two(two, whole):
    rows, weights = two[0]["one, then two"]
    check_close((whole[0][:3] + rows, weights), whole)


@pytest.mark.parametrize("name", GOING_ON)
def test_a_run_of_two_goes_on_as_if_it_had_not_stopped(two, name):
    for seen in two:
        (rows, weights), (expected_rows, expected_weights) = seen["going on"][name]
        assert rows == expected_rows[3:]
        assert all(map(torch.equal, weights, expected_weights))


def shape_of(state):
    """A nested state with what tells a tensor's kind in its place, and a number's type."""
    if isinstance(state, torch.Tensor):
        return state.dtype, state.shape
    if isinstance(state, dict):
        return {key: shape_of(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [shape_of(value) for value in state]
    return type(state)


def test_one_and_two_leave_the_same_behind(two, root):
    one, other = (load_checkpoint(root / name / "checkpoints", 5) for name in ("one", "plain"))
    assert shape_of(one) == shape_of(other)
    names = [sorted(path.relative_to(root / name) for path in (root / name).rglob("*")) for name in ("one", "plain")]
    assert names[0] == names[1]
    processes = [json.loads((root / name / "run.json").read_text())["processes"] for name in ("one", "plain")]
    assert processes == [1, 2]


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_to_any_stops_all_after_the_same_step(two, root, name):
    signum, _ = SIGNALS[name]
    assert [seen["signals"][name] for seen in two] == [(3, signum)] * 2
    assert checkpoint_steps(root / name / "checkpoints")[-1] == 3


@pytest.mark.parametrize("what", ["directory", "setting"])
def test_a_refusal_is_said_once(two, what):
    assert [seen["commands"][what][0] for seen in two] == [2, 2]
    first, second = (seen["commands"][what][1] for seen in two)
    assert first.startswith("fastgan: ")
    assert ("d_steps must be" if what == "setting" else "is not empty") in first
    assert first.count("\n") == 1
    assert second == ""


def test_a_process_that_has_not_met_the_others_leaves_the_talking_to_the_first(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, words in (("0", "d_steps must be"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        assert main(["train", "--set=d_steps=0"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert words in err
        assert bool(err) == bool(words)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("share", "BadInput", "batch_size must be a multiple of the 2 processes, got 7"),
        ("data", "BadInput", "nothing"),
        ("unconverted", "BadInput", "convert must be true"),
        ("occupied", "BadInput", "is not empty"),
        ("taken", "BadInput", "is not empty"),
        ("locked", "BadInput", "is in use by another run"),
        ("nothing", "BadInput", "holds no run"),
        ("one has no data", "BadInput", "nothing"),
        ("full disk", "BadInput", "the checkpoint of step 4 cannot be written (No space left on device)"),
        ("full disk for rows", "OSError", "No space left on device"),
        ("diverged", "TrainingFailed", "training diverged"),
    ],
)
def test_what_one_refuses_all_refuse(two, name, kind, words):
    said_by_first, said_by_second = (seen["refusals"][name] for seen in two)
    assert said_by_first[0] == kind
    assert words in said_by_first[1]
    assert said_by_second == said_by_first


def test_a_mistake_in_one_ends_the_others(two):
    assert two[0]["refusals"]["wrong callback"] == ("KeyError", "'no such thing'")
    assert two[1]["refusals"]["wrong callback"] == (
        "TrainingFailed",
        "process 0 has failed: KeyError: 'no such thing'",
    )


def test_networks_that_were_given_begin_with_those_of_the_first(two):
    torch.manual_seed(0)
    mine = list(dcgan.Generator(latent_dim=8, image_size=32, channels=1, features=4).parameters())
    for seen in two:
        generator, discriminator, average = seen["own networks"]
        assert all(map(torch.equal, generator, mine))
        assert all(map(torch.equal, average, mine))
        assert all(map(torch.equal, discriminator, two[0]["own networks"][1]))


def test_the_first_scores_while_the_others_wait(two, root):
    assert two[0]["scored"] == two[1]["scored"]
    rows = RunDir(root / "scored").rows(root / "scored/scores.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 5]


def test_each_process_sees_through_its_own_random_numbers():
    config = settings("mnist5k", augment="color", instance_noise=0.1)
    images = torch.zeros(4, 1, 32, 32)

    def seen(rank, step, size=2):
        seeing = Seeing(config, torch.device("cpu"), World(rank, size))
        seeing.begin(step)
        return seeing(images)

    assert not torch.equal(seen(0, 3), seen(1, 3))
    assert not torch.equal(seen(0, 3), seen(0, 4))
    assert torch.equal(seen(1, 3), seen(1, 3))


@pytest.mark.parametrize("kind", ["wgan-gp", "dragan"])
def test_processes_share_out_the_random_numbers_of_a_penalty(kind):
    config = settings("mnist5k", norm="none", penalty=kind, penalty_every=2)
    real = torch.zeros(2, 1, 4, 4)
    world = [Penalties(config, torch.device("cpu"), World(rank, 3)) for rank in range(3)]
    drawn = []
    for penalties in world:
        with penalties.shared(real) as generator:
            drawn.append(torch.rand(2, generator=generator))
            if kind == "dragan":
                torch.rand(real.shape, generator=generator)
    states = [penalties.generator.get_state() for penalties in world]
    assert all(torch.equal(state, states[0]) for state in states)
    assert torch.cat(drawn).unique().numel() == 6
    if kind == "wgan-gp":
        alone = Penalties(config, torch.device("cpu"), World())
        assert torch.equal(torch.cat(drawn), torch.rand(6, generator=alone.generator))


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


def start_two(arguments):
    """Two processes with what torchrun would tell them."""
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    shared["MASTER_PORT"] = free_port()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen(arguments, env={**shared, "RANK": str(rank)}, **pipes) for rank in range(2)]


def end(processes):
    """Exit codes, and what both said on stdout and stderr."""
    try:
        said = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], *("".join(words) for words in zip(*said, strict=True))


def wait_for(path, processes):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert all(process.poll() is None for process in processes), end(processes)
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_torchrun(data, whole, tmp_path):
    python, m, *arguments = command(data, tmp_path / "run")
    launcher = [python, m, "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    done = subprocess.run(
        [*launcher, f"--master-port={free_port()}", m, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = RunDir(tmp_path / "run").rows(tmp_path / "run/metrics.jsonl")
    assert [row["d_loss"] for row in rows] == pytest.approx([row["d_loss"] for row in whole[0][:3]], rel=1e-6)
    assert done.stdout.count("done, 3 steps") == done.stdout.count("images of") == 1
    assert "Warning" not in done.stderr
    assert "destroy_process_group" not in done.stderr
    assert done.stderr.count("0/3 [") == 1


def test_a_signal_to_one_of_two_commands_ends_both(data, tmp_path):
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


def test_a_killed_process_ends_the_others(data, tmp_path):
    processes = start_two(command(data, tmp_path / "run", steps=1000000))
    wait_for(tmp_path / "run/metrics.jsonl", processes)
    processes[1].kill()
    codes, _, err = end(processes)
    assert codes == [1, -signal.SIGKILL], err
    assert "Traceback" not in err
    assert err.count("fastgan: another process of this run has ended or does not answer") == 1
