"""Signs that a game goes wrong: how alike samples are, who is right, and each complaint once."""

import json
import math

import pytest
import torch
from torch import nn

from fastgan.train import Trainer
from fastgan.train.losses import LOSSES
from fastgan.train.watch import Watch, accuracy, all_finite, diversity

REAL = torch.tensor([[0.0], [1.0], [3.0]])


def test_diversity_is_the_mean_distance_of_all_pairs():
    assert diversity(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]]).reshape(3, 1, 1, 2)) == pytest.approx(4.0)
    assert diversity(torch.ones(5, 1, 2, 2)) == 0
    assert diversity(torch.ones(1, 1, 2, 2)) == 0


LOGITS = (torch.tensor([-1.0, 0.25, 0.75, 2.0]), torch.tensor([-3.0, 0.1, 0.4, 0.7]))


@pytest.mark.parametrize(
    ("loss", "share"),
    [
        ("non-saturating", (3 + 1) / 8),
        ("minimax", (3 + 1) / 8),
        ("hinge", (3 + 1) / 8),
        ("least-squares", (2 + 3) / 8),
        ("relativistic", 4 / 4),
        ("wasserstein", None),
    ],
)
def test_accuracy(loss, share):
    assert accuracy(LOGITS, loss) == (share if share is None else pytest.approx(share))
    assert accuracy(None, loss) is None


def test_accuracy_knows_every_loss():
    assert {name for name in LOSSES if accuracy(LOGITS, name) is None} == {"wasserstein"}


def test_accuracy_of_pairs_counts_pairs():
    assert accuracy((torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])), "relativistic") == 0.5


def warnings_of(watch, rows):
    return [watch.warning({"d_accuracy": value}) for value in rows]


def test_discriminator_that_is_always_right_is_told_once():
    said = warnings_of(Watch(REAL), [1.0] * 24 + [0.9] + [1.0] * 60)
    assert [index for index, sentence in enumerate(said) if sentence] == [49]
    assert said[49].startswith("the discriminator has told all images apart in the last 25 rows")


def test_samples_that_look_alike_are_told_once():
    watch, said = Watch(REAL), []
    for spread in (0.0, 0.0, 0.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1):
        watch.sampled(spread * REAL)
        said.append(watch.warning({}))
    # three alike in a row may be those of an untrained generator
    assert [index for index, sentence in enumerate(said) if sentence] == [7]
    assert said[7].startswith("samples look alike, 0.10 times as far apart as real images (mode collapse)")


def test_both_complaints_come_and_survive_a_stop():
    watch = Watch(REAL)
    for _ in range(5):
        watch.sampled(0 * REAL)
    first = warnings_of(watch, [1.0] * 20)
    again = Watch(REAL)
    again.load_state_dict(watch.state_dict())
    second = warnings_of(again, [1.0] * 20)
    assert [index for index, sentence in enumerate(first) if sentence] == [0]
    assert [index for index, sentence in enumerate(second) if sentence] == [4]
    assert again.diversity == 0


def test_data_without_any_diversity_cannot_be_compared():
    watch = Watch(torch.ones(3, 1))
    watch.sampled(REAL)
    assert math.isnan(watch.diversity)


class Stubborn(nn.Module):
    """A generator that makes the same image of every latent."""

    def __init__(self):
        super().__init__()
        self.image = nn.Parameter(torch.zeros(1, 1, 32, 32))

    def forward(self, latent):
        return torch.tanh(self.image).expand(len(latent), -1, -1, -1)


def test_collapse_is_seen_and_logged_once(tiny, tmp_path, capsys):
    config = tiny(steps=8, sample_every=1, convert=False, out=str(tmp_path / "run"))
    result = Trainer(config, generator=Stubborn()).fit(progress=False)
    assert [row["diversity"] for row in result.metrics] == [0] * 8
    warned = {row["step"]: row["warning"] for row in result.metrics if "warning" in row}
    # the grid of step 0 and three more
    assert list(warned) == [4]
    assert "mode collapse" in warned[4]
    logged = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row for row in logged if "warning" in row] == [row for row in result.metrics if "warning" in row]
    assert "mode collapse" in capsys.readouterr().err


def test_normal_training_warns_of_nothing(tiny):
    assert not any("warning" in row for row in Trainer(tiny(steps=3)).fit(progress=False).metrics)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_found(value):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert all_finite(model)
    model[1].running_var[0] = value
    assert not all_finite(model)
