"""The figures of the README and of docs/ are those of the committed result files."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    sys.modules.pop("benchmarks", None)
    from benchmarks import report

    return report


def test_the_readme_holds_the_committed_results(report):
    text = (ROOT / "README.md").read_text()
    assert report.readme(text) == text
    assert text.count("| (64, 128, 32, 32) | bfloat16 | channels_last |") == 1


def test_the_page_on_training_holds_the_committed_scores(report):
    text = (ROOT / "docs/training.md").read_text()
    assert report.training(text) == text
    assert "| `sngan` |" in report.scores.block()
