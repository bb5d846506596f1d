"""Committed results, comparison of two, tables and plots."""

import copy
import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest

from benchmarks import norm_act, peers, plots, report, results, run, table, timing
from fastgan.__main__ import main

ROOT = Path(__file__).parents[2]


def test_every_committed_file_fits_the_schema():
    schema = results.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert norm_act.PATH.is_file()
    found = report.committed()
    assert found
    for path, result in found:
        jsonschema.validate(result, schema)
        assert path.stat().st_size <= results.MAX_BYTES


@pytest.fixture
def result(tiny, settings):
    return results.read(run.run(settings(["layers"], ["eager", "fastgan"]))[0])


def test_the_schema_refuses_a_time_for_a_wrong_row(result):
    row = result["rows"][0]
    for change in ({"status": "wrong", "reason": "it is"}, {"status": "ok", "p50_ms": None}, {"unknown": 1}):
        bad = {**result, "rows": [row | change]}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, results.schema())


def test_a_slower_provider_shows_in_compare(tiny, settings, tmp_path, monkeypatch, capsys):
    clock, cost = [0.0], [1.00]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def spends(step):
        def slow():
            clock[0] += cost[0]
            return step()

        return slow

    peer = dataclasses.replace(peers.load(["eager"])[0], step=spends)
    files = []
    for name, seconds in (("before", 1.00), ("same", 1.04), ("slower", 1.06)):
        cost[0] = seconds
        (path,) = run.run(settings(["layers"], [peer]))
        files.append(path.rename(tmp_path / f"{name}.json"))
    before, same, slower = map(str, files)
    assert main(["bench", "--compare", before, same]) == 0
    assert "WORSE" not in capsys.readouterr().out
    assert main(["bench", "--compare", before, slower]) == 1
    out = capsys.readouterr().out
    assert out.count("WORSE") == 2 and "1.06x" in out and "eager" in out
    assert main(["bench", "--compare", slower, before]) == 0
    assert "better" in capsys.readouterr().out


def test_a_row_that_is_no_longer_right_shows_in_compare(result):
    after = copy.deepcopy(result)
    row = after["rows"][0]
    del row["p50_ms"]
    row |= {"status": "wrong", "reason": "off"}
    lines, worse = results.compare(result, after)
    assert worse and "wrong: off" in lines[-1]
    row["status"] = "skipped"
    assert not results.compare(result, after)[1]


def test_more_bytes_kept_show_in_compare(tiny, settings):
    before = results.read(run.run(settings(["memory"], ["eager"]))[0])
    after = copy.deepcopy(before)
    after["rows"][0]["kept_bytes"] = int(after["rows"][0]["kept_bytes"] * 1.1)
    assert results.compare(before, after)[1] and not results.compare(after, before)[1]


def test_what_is_no_result_file_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"rows": [{}]}))
    with pytest.raises(ValueError, match="is not a result file"):
        results.read(path)


def test_a_file_above_16_mib_is_refused(tmp_path):
    with pytest.raises(ValueError, match="more than 16 MiB"):
        results.write(tmp_path / "x.json", {"rows": ["x" * results.MAX_BYTES]})
    assert not list(tmp_path.iterdir())


def row(provider, ours, ms, case="c"):
    known = {"case": case, "direction": "forward", "batch": 1, "provider": provider, "ours": ours}
    return known | ({"status": "ok", "p50_ms": ms} if ms else {"status": "wrong", "reason": "no"})


def test_ratios_are_of_the_best_stock_provider_and_the_best_of_ours():
    rows = [row("a", False, 4.0), row("b", False, 3.0), row("x", True, 2.5), row("y", True, 1.5), row("z", True, None)]
    rows += [row("a", False, 1.0, "d"), row("x", True, 2.0, "d"), row("a", False, 1.0, "e"), row("x", True, None, "e")]
    found = table.best(rows)
    assert [(each.case, each.ratio) for each in found] == [("c", 2.0), ("d", 0.5)]
    about = {"suite": "layers", "dtype": "float32", "device": "cpu", "threads": 1, "complete": True}
    text = table.text(about | {"rows": rows})
    assert "geometric mean 1.00x, worst 0.50x: d" in text and "wrong: e, x: no" in text


def test_plots_are_those_of_the_committed_results():
    made = plots.drawn(report.committed())
    assert made
    for name, svg in made.items():
        assert (ROOT / "docs" / name).read_text() == svg, f"{name}: run python -m benchmarks.report"
    assert {path.name for path in (ROOT / "docs").glob("bench-*.svg")} == made.keys()


def test_speed_and_roofline_are_drawn_of_timed_results(result):
    made = plots.drawn([(Path("machine/layers.float32.json"), result)])
    kinds = ("roofline", "forward-backward", "forward")
    assert list(made) == [f"bench-machine-layers-float32-{kind}.svg" for kind in kinds]
    shapes = made["bench-machine-layers-float32-forward-backward.svg"]
    assert "one" in shapes and "batch 2" in shapes and "forward+backward, times as fast" in shapes
    assert "measured ceilings" in made["bench-machine-layers-float32-roofline.svg"]
