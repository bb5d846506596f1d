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


def test_rows_that_lose_are_listed(report, monkeypatch):
    row = {"case": "a layer", "direction": "forward", "batch": 64, "status": "ok"}
    times = {"eager": 1.0, "fastgan": 2.0}
    rows = [row | {"provider": name, "ours": name == "fastgan", "p50_ms": ms} for name, ms in times.items()]
    better = [r | {"case": "another", "p50_ms": 1 / r["p50_ms"]} for r in rows]
    result = {"suite": "layers", "dtype": "float32", "device": "a CPU", "rows": rows + better}
    monkeypatch.setattr(report, "committed", lambda: [(None, result)])
    monkeypatch.setattr(report.norm_act, "ratios", lambda: [])
    assert report.lost().splitlines()[2:] == [
        "| layers, float32, a CPU | a layer, forward, batch 64 | eager | fastgan | 0.50 |"
    ]
