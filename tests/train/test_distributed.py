"""Two processes on one machine: the losses of one process, one state, one voice, and one end."""

import functools
import json

import pytest
import torch

from fastgan.__main__ import main
from fastgan.models import dcgan
from fastgan.train import Trainer
from fastgan.train.checkpoint import checkpoint_steps, load_checkpoint
from fastgan.train.distributed import World
from fastgan.train.penalties import Penalties
from fastgan.train.run_dir import RunDir
from fastgan.train.seeing import Seeing
from tests.nn.parallel import in_two_processes

from .in_two import GAMES, GOING_ON, SIGNALS, outcome, play, settings, work


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
