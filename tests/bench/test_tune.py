"""The choice of block sizes."""

import json
import time
from pathlib import Path

import pytest

from benchmarks import tune
from fastgan.__main__ import main
from fastgan.backends.triton import tuning

KEY, OTHER = tuning.Key("fwd", "half", "large"), tuning.Key("fwd", "half", "small")


@pytest.fixture
def tables(monkeypatch):
    configs, winners = dict(tuning.configs()), {}
    monkeypatch.setattr(tuning, "configs", lambda: configs)
    monkeypatch.setattr(tuning, "measured", lambda: winners)
    return configs, winners


def test_the_fastest_block_sizes_win_where_they_beat_the_vendor(tables, tmp_path):
    configs, winners = tables

    def measure(key, ours):
        config = configs[key]
        if ours and config.block_m == 128:
            raise RuntimeError("out of shared memory")
        return config.block_m / 10 + abs(config.block_n - 32) if ours else {KEY: 7.0, OTHER: 3.0}[key]

    lines = tune.choose([KEY, OTHER], measure, "GPU", time.monotonic() + 60)
    assert len(lines) == 2
    assert (configs[KEY].block_m, configs[OTHER].block_m, configs[OTHER].block_n) == (64, 32, 32)
    # 6.4 + 32 and 3.2 against 7 and 3
    assert winners == {("GPU", KEY): "vendor", ("GPU", OTHER): "vendor"}
    tune.choose([OTHER], lambda key, ours: 1.0 if ours else 2.0, "GPU", time.monotonic() + 60)
    assert winners[("GPU", OTHER)] == "implicit_gemm"

    path = tmp_path / "tuning.json"
    tune.write(path)
    written = json.loads(path.read_text())
    before = json.loads(Path(tuning.__file__).with_name("tuning.json").read_text())
    assert [row.keys() for row in written["configs"]] == [row.keys() for row in before["configs"]]
    assert [row["measured"] for row in written["configs"]].count(True) == 2
    assert {"device": "GPU", "pass": "fwd", "kind": "half", "bucket": "small", "winner": "implicit_gemm"} in written[
        "measured"
    ]


def test_keys_behind_the_deadline_stay_as_they_are(tables):
    configs, winners = tables
    before = dict(configs)
    assert tune.choose([KEY], lambda *_: 1.0, "GPU", time.monotonic() - 1) == []
    assert configs == before and not winners


def test_a_cpu_has_nothing_to_tune(capsys):
    assert main(["bench", "--tune", "--suite", "layers"]) == 2
    assert "--tune chooses block sizes for a GPU" in capsys.readouterr().err
