"""The report of all scores: its rows, its table, scores.json; in the features of a network that takes no time."""

import json
import os

import pytest
import torch
from torch import nn

from fastgan.train import BadInput, evaluation
from fastgan.train.classifier import Classifier
from fastgan.train.evaluation import Candidate, score_images
from fastgan.train.inception import InceptionScores
from fastgan.train.scores import frechet_distance, kid, precision_recall


def pixels(images):
    return images.float().flatten(1)


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """Features are the pixels; keeps how many images were asked for."""
    seen = []

    class Pixels:
        def __init__(self, device):
            assert device == "cpu"

        def __call__(self, images):
            seen.append(len(images))
            return pixels(images)

    monkeypatch.setattr(evaluation, "FeatureNetwork", Pixels)
    monkeypatch.setattr(evaluation, "check_packages", lambda: None)
    return seen


def noise(seed, count=8, brightest=256):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, brightest, (count, 1, 2, 2), dtype=torch.uint8, generator=generator)


REAL, FLOOR, BEFORE, AFTER = noise(0), noise(1), noise(2, brightest=20), noise(3, brightest=200)
CANDIDATES = [Candidate("floor", None, FLOOR), Candidate("before", 0, BEFORE), Candidate("after", 70, AFTER)]


@pytest.fixture
def classifier():
    # two classes by brightness
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    nn.init.constant_(network[2].bias, 0)
    return Classifier(network, 2, 0.875)


def test_each_row_has_the_scores_of_its_images(network):
    report = score_images(REAL, CANDIDATES, data="digits", seed=5)
    assert (report.data, report.n, report.seed, report.step) == ("digits", 8, 5, 70)
    assert network == [8, 8, 8, 8]
    for row, (name, step, images) in zip(report.rows, CANDIDATES, strict=True):
        pair = pixels(REAL), pixels(images)
        assert (row.name, row.step, row.classifier_score, row.inception) == (name, step, None, None)
        assert row.kid == kid(*pair, 5) != kid(*pair, 6)
        assert row.frechet == frechet_distance(*pair)
        assert (row.precision, row.recall) == precision_recall(*pair)


def test_scores_json(tmp_path, classifier):
    report = score_images(REAL, CANDIDATES, data="digits", seed=5, classifier=classifier)
    path = tmp_path / "scores.json"
    path.write_text("of an earlier call")
    report.write(path)
    content = json.loads(path.read_text())
    rows = content.pop("rows")
    head = {"network": "EfficientNet-lite0", "n": 8, "data": "digits", "seed": 5, "step": 70}
    assert content == {**head, "classifier_accuracy": 0.875}
    assert [(row["name"], row["step"]) for row in rows] == [("floor", None), ("before", 0), ("after", 70)]
    names = ["name", "step", "kid", "frechet", "precision", "recall", "classifier_score"]
    assert all(list(row) == names for row in rows)
    assert rows[2]["kid"] == list(report.rows[2].kid)
    assert rows[2]["classifier_score"] == classifier.score(AFTER)
    assert os.listdir(tmp_path) == ["scores.json"]


def test_scores_json_is_whole_or_that_of_before(tmp_path, monkeypatch):
    report = score_images(REAL, CANDIDATES, data="digits")
    report.write(tmp_path / "scores.json")
    before = (tmp_path / "scores.json").read_text()

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        score_images(REAL, CANDIDATES[:1], data="digits").write(tmp_path / "scores.json")
    assert (tmp_path / "scores.json").read_text() == before


def test_table_without_a_classifier():
    report = score_images(REAL, CANDIDATES, data="digits")
    about, titles, *rows = str(report).splitlines()
    assert "EfficientNet-lite0 (not Inception" in about and "digits, n = 8" in about
    assert titles.split() == ["KID", "Fréchet", "precision", "recall"]
    assert len({len(line) for line in (titles, *rows)}) == 1
    after = report.rows[2]
    numbers = [*str(after.kid).split(), f"{after.frechet:.3f}", f"{after.precision:.3f}", f"{after.recall:.3f}"]
    assert rows[2].split() == ["after,", "step", "70", *numbers]
    assert "FID" not in str(report)


def test_table_with_everything(classifier, monkeypatch, tmp_path):
    calls = []

    def scores(real, images, weights, seed, device):
        calls.append((real, images, weights, seed, device))
        return InceptionScores(12.5, (2.25, 0.5))

    monkeypatch.setattr(evaluation, "inception_scores", scores)
    monkeypatch.setattr(evaluation, "check_inception", lambda weights: None)
    report = score_images(REAL, CANDIDATES, data="d", seed=3, classifier=classifier, inception_weights="w.pth")
    assert len(calls) == 3
    assert calls[1] == (REAL, BEFORE, "w.pth", 3, "cpu")
    table = str(report)
    assert "classifier score from 1 to 2, the classifier's accuracy on held-out images is 0.875" in table
    assert table.splitlines()[2].split()[-4:] == ["classifier", "FID", "Inception", "score"]
    assert table.splitlines()[-1].split()[-4:] == ["12.50", "2.25", "+-", "0.50"]
    report.write(tmp_path / "scores.json")
    row = json.loads((tmp_path / "scores.json").read_text())["rows"][0]
    assert (row["fid"], row["inception_score"]) == (12.5, [2.25, 0.5])


REFUSED = [
    ([Candidate("after", 1, noise(0, 7))], "after must be as many images as the real ones, 8, got 7"),
    (
        [CANDIDATES[0], Candidate("after", 1, AFTER.float())],
        r"images must be uint8 .*, got torch.float32 \(8, 1, 2, 2\)",
    ),
]


@pytest.mark.parametrize(("candidates", "message"), REFUSED, ids=["count", "dtype"])
def test_it_refuses_before_it_computes(network, candidates, message):
    with pytest.raises(BadInput, match=message):
        score_images(REAL, candidates, data="digits")
    assert network == []


def test_it_refuses_too_few_images_and_absent_weights(network, tmp_path):
    with pytest.raises(BadInput, match="real must be at least 4 images, got 3"):
        score_images(REAL[:3], [Candidate("floor", None, FLOOR[:3])], data="digits")
    with pytest.raises(BadInput, match="FID needs"):
        score_images(REAL, CANDIDATES, data="digits", inception_weights=tmp_path / "absent.pth")
    assert network == []
