"""The README's figures are those of the committed result files."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_readme_holds_the_committed_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    sys.modules.pop("benchmarks", None)
    from benchmarks import report

    text = (ROOT / "README.md").read_text()
    assert report.readme(text) == text
    assert text.count("| (64, 128, 32, 32) | bfloat16 | channels_last |") == 1
