"""kill -9 at any moment, SIGTERM and a full disk: the run goes on from a whole checkpoint to the same weights."""

import json
import signal
import subprocess
import sys

import pytest

from fastgan.train import checkpoint
from fastgan.train.run_dir import RunDir

from .commands import environment
from .lives import ASKED, KILLS, STEPS
from .runs import same

pytestmark = pytest.mark.slow
SEED = 0


@pytest.fixture(scope="module")
def lives(tmp_path_factory, idx_dir):
    directory = tmp_path_factory.mktemp("lives")
    command = [sys.executable, "-m", "tests.train.lives", str(directory), str(idx_dir), str(SEED)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return directory, json.loads((directory / "results.json").read_text())


def test_every_life_was_killed_and_left_whole_checkpoints(lives):
    killed = lives[1]["killed"][:KILLS]
    assert [life["code"] for life in killed] == [-signal.SIGKILL] * KILLS, [life["said"] for life in killed]
    newest = [max(life["steps"], default=0) for life in killed]
    assert newest == sorted(newest)
    # most lives came further than the one before them
    assert len(set(newest)) >= KILLS / 2
    assert newest[-1] < ASKED


def test_sigterm_saves_the_step(lives):
    asked = lives[1]["killed"][KILLS]
    assert asked["code"] == 128 + signal.SIGTERM, asked["said"]
    assert max(asked["steps"]) == ASKED + 1


def test_run_that_was_killed_ends_as_one_that_was_not(lives):
    directory, found = lives
    assert found["killed"][-1]["code"] == found["uninterrupted"] == 0
    runs = [RunDir(directory / name) for name in ("killed", "uninterrupted")]
    states = [checkpoint.load_checkpoint(run.checkpoints) for run in runs]
    assert states[0]["step"] == STEPS
    assert same(*states)
    rows = [run.rows(run.metrics) for run in runs]
    for row in rows[0] + rows[1]:
        del row["images_per_second"]
    assert rows[0] == rows[1]
    assert len(rows[0]) == STEPS
    pictures = [{path.name: path.read_bytes() for path in run.samples.glob("*.png")} for run in runs]
    assert pictures[0] == pictures[1]
    assert not list(runs[0].root.rglob("*.tmp"))


def test_full_disk_is_one_sentence_and_loses_nothing(lives):
    no_file, no_checkpoint, room = lives[1]["full"]
    assert (no_file["code"], no_checkpoint["code"], room["code"]) == (2, 2, 0)
    for life, sentence in (
        (no_file, "cannot be written (File too large)"),
        (no_checkpoint, "checkpoint of step 6 cannot be written (File too large); those of steps 0, 2, 4 are there"),
    ):
        said = [line for line in life["said"].splitlines() if line and "step/s" not in line and "s/step" not in line]
        assert len(said) == 1, life["said"]
        assert sentence in said[0]
        assert life["steps"] == [0, 2, 4]
        assert life["left"] == []
    assert max(room["steps"]) == 8
