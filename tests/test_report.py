"""The figures of the README and of the docs are those of the committed result files."""

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


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("README.md", "| DCGAN-64 step, batch 16, kept for backward |"),
        ("docs/performance.md", "| (64, 128, 32, 32) | bfloat16 | channels_last |"),
        ("docs/training.md", "| `sngan` | 1.231 |"),
    ],
)
def test_pages_hold_the_committed_results(report, name, row):
    text = (ROOT / name).read_text()
    assert report.page(ROOT / name) == text
    assert text.count(row) == 1


def test_a_block_without_a_place_comes_after_the_others(report, monkeypatch, tmp_path):
    path, block = tmp_path / "page.md", "<!-- {}: made by python -m benchmarks.report -->\n{}\n<!-- end -->".format
    path.write_text(f"Head\n\n{block('old', '1')}\n\nTail\n")
    monkeypatch.setitem(report.PAGES, path, lambda: {"old": "2", "new": "3"})
    assert report.page(path) == f"Head\n\n{block('old', '2')}\n\n{block('new', '3')}\n\nTail\n"


def test_rows_that_lose_are_listed_and_level_ones_counted(report, monkeypatch):
    row = {"direction": "forward", "batch": 64, "status": "ok"}
    times = {"a layer": 2.0, "a level one": 1.02, "a better one": 0.5}
    rows = [row | {"case": name, "provider": "eager", "ours": False, "p50_ms": 1.0} for name in times]
    rows += [row | {"case": name, "provider": "fastgan", "ours": True, "p50_ms": ms} for name, ms in times.items()]
    result = {"suite": "layers", "dtype": "float32", "device": "a CPU", "rows": rows}
    monkeypatch.setattr(report, "committed", lambda: [(None, result)])
    monkeypatch.setattr(report.norm_act, "ratios", lambda: [("norm_act, a CPU", "a shape", "stock", "fastgan", 2.0)])
    lines = report.lost().splitlines()
    assert lines[2:4] == ["| norm_act, a CPU | 1 | 0 | 0 | 2.00 |", "| layers, float32, a CPU | 3 | 1 | 1 | 0.50 |"]
    assert lines[5] == "Below 0.97, layers, float32, a CPU:"
    assert lines[9:] == ["| a layer, forward, batch 64 | eager | fastgan | 0.50 |"]
