"""Suites, from the command to the file."""

import dataclasses
import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import torch

import fastgan
from benchmarks import cases, peers, results, run, timing, work
from benchmarks.peers import jax_jit
from benchmarks.suites.gradient_penalty import PenaltyWork
from benchmarks.suites.layers import LayerWork
from fastgan.__main__ import main


def rows(settings):
    return {row["provider"]: row for path in run.run(settings) for row in results.read(path)["rows"]}


@pytest.mark.parametrize("suite", cases.SUITES)
def test_a_suite_writes_a_valid_file_in_which_all_is_right(suite, tiny, settings):
    (path,) = run.run(
        settings([suite], ["eager", "channels_last", "fastgan", "fastgan_nchw", "torch_hook", "cuda_graph"])
    )
    result = json.loads(path.read_text())
    jsonschema.validate(result, results.schema())
    assert result["complete"] and path.name == f"{suite}.float32.json"
    status = {row["provider"]: row["status"] for row in result["rows"]}
    assert status.pop("cuda_graph") == "refused"
    assert set(status.values()) == {"ok"} and {"eager", "fastgan"} <= status.keys()
    assert not list(path.parent.glob("*.tmp"))


def test_the_example_and_autocast_take_part_in_steps(tiny, settings):
    assert rows(settings(["step"], ["eager", "dcgan_example"]))["dcgan_example"]["status"] == "ok"
    found = rows(settings(["step"], ["eager", "fastgan", "dcgan_example"], dtype=torch.bfloat16))
    assert [found[name]["status"] for name in ("eager", "fastgan")] == ["ok", "ok"]
    assert found["dcgan_example"]["status"] == "refused"


def test_jax_computes_the_same_steps(tiny, settings):
    pytest.importorskip("jax")
    for suite in ("step", "gradient_penalty"):
        row = rows(settings([suite], ["jax_jit"]))["jax_jit"]
        assert row["status"] == "ok" and row["error"] < 1e-3


def test_a_peer_that_is_not_installed_is_a_row_that_says_how_to(tiny, settings, monkeypatch):
    monkeypatch.setattr(jax_jit.importlib.util, "find_spec", lambda name: None)
    row = rows(settings(["step"], ["jax_jit"]))["jax_jit"]
    assert row["status"] == "refused" and 'pip install "fastgan[peers]"' in row["reason"]
    assert importlib.util.find_spec("jax") is None


def slightly_wrong(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.05
    return model


@pytest.mark.parametrize("suite", cases.SUITES)
def test_a_wrong_provider_is_never_timed(suite, tiny, settings):
    # a weight's spectral norm does not see its scale, its gradient does
    wrong = dataclasses.replace(peers.load(["channels_last"])[0], name="wrong", model=slightly_wrong)
    chosen = [*peers.load(["eager"]), wrong]
    if suite == "spectral_norm":
        wrong = dataclasses.replace(wrong, model=lambda model: lambda: [1.05 * w for w in model()])
        chosen = [*peers.load(["eager"]), wrong]
    found = rows(settings([suite], chosen))
    assert found["eager"]["status"] == "ok"
    assert found["wrong"]["status"] == "wrong" and "off by" in found["wrong"]["reason"]
    assert not {"p50_ms", "kept_bytes"} & found["wrong"].keys()


def test_where_eager_is_far_off_gradients_of_others_may_be_a_little_more(tiny, settings, monkeypatch):
    errors = {"eager": 0.25, "channels_last": 0.37, "fastgan": 0.38}
    found = itertools.cycle({"input gradient": error} for error in errors.values())
    monkeypatch.setattr(LayerWork, "errors", lambda *_: next(found))
    statuses = [row["status"] for row in rows(settings(["layers"], list(errors))).values()]
    assert statuses == ["ok", "ok", "wrong"]


@pytest.mark.parametrize("eager", [0.31, float("inf")])
def test_where_eager_is_lost_or_in_values_nobody_may_be_off_by_more(eager):
    layer = LayerWork(cases.layers(quick=True)[0]._replace(batch=1), torch.bfloat16, "cpu")
    assert "2.0e-01 is allowed" in layer.wrong({"input gradient": 0.25}, {"input gradient": eager})
    assert "5.0e-02 is allowed" in layer.wrong({"result": 0.06}, {"result": 0.05})


def test_a_loss_that_is_a_small_difference_is_compared_by_the_size_of_what_is_subtracted():
    critic = PenaltyWork(cases.gradient_penalty(quick=True)[1], torch.bfloat16, "cpu")
    scores = critic.critic(critic.real).mean().abs()
    exact, found = {"loss": scores * 1e-3}, {"loss": scores * 2e-3}
    assert critic.errors(found, exact)["loss"] == pytest.approx(1e-3, rel=1e-3)
    assert critic.errors(found, {"loss": scores * 4})["loss"] == pytest.approx(1, rel=1e-2)


def test_not_a_number_is_wrong(tiny, settings):
    def poisoned(model):
        return lambda x: model(x) * float("nan")

    peer = dataclasses.replace(peers.load(["channels_last"])[0], name="nan", model=poisoned)
    assert rows(settings(["layers"], [peer]))["nan"]["status"] == "wrong"


def test_a_provider_that_fails_says_why_and_the_others_go_on(tiny, settings):
    def fails(model):
        raise RuntimeError("no such luck\nand more")

    peer = dataclasses.replace(peers.load(["channels_last"])[0], name="fails", model=fails)
    found = rows(settings(["layers"], [peer, *peers.load(["eager"])]))
    assert found["fails"]["status"] == "failed" and found["fails"]["reason"] == "RuntimeError: no such luck"
    assert found["eager"]["status"] == "ok"


def test_when_the_budget_is_spent_what_is_known_is_valid(tiny, settings, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    checked = run.CaseRun.rows

    def slow(self):
        now[0] += 60
        return checked(self)

    monkeypatch.setattr(run.CaseRun, "rows", slow)
    (path,) = run.run(settings(["layers"], ["eager"], budget=30.0))
    result = results.read(path)
    jsonschema.validate(result, results.schema())
    assert not result["complete"] and [row["status"] for row in result["rows"]] == ["skipped"]


def test_resume_measures_what_is_not_there_yet(tiny, settings, monkeypatch):
    first = settings(["layers"], ["eager"], limit=1)
    (path,) = run.run(first)
    before = results.read(path)
    assert [row["case"] for row in before["rows"]] == ["one"]
    rest = dataclasses.replace(first, limit=None, resume=True)
    run.run(rest)
    result = results.read(path)
    jsonschema.validate(result, results.schema())
    assert result["complete"] and result["rows"][:1] == before["rows"]
    assert [row["case"] for row in result["rows"]] == ["one", "two"]
    assert result["command"].count("fastgan") == 2 * before["command"].count("fastgan")
    # a provider that was left out for time is not there
    result["rows"][0] = result["rows"][0] | {"status": "skipped", "reason": "the time budget was spent"}
    results.write(path, result)
    run.run(rest)
    assert {row["case"]: row["status"] for row in results.read(path)["rows"]} == {"one": "ok", "two": "ok"}
    # and one of which nothing was asked before is not there either
    run.run(dataclasses.replace(rest, peers=peers.load(["eager", "channels_last"])))
    assert len(results.read(path)["rows"]) == 4
    monkeypatch.setattr(run.CaseRun, "rows", lambda self: pytest.fail(f"{self.case.name} was measured again"))
    run.run(rest)
    assert len(results.read(path)["rows"]) == 4


@pytest.mark.parametrize("name", results.SAME)
def test_what_was_made_otherwise_is_not_resumed(name, tiny, settings):
    (path,) = run.run(settings(["layers"], ["eager"]))
    results.write(path, results.read(path) | {name: "another"})
    before = path.read_text()
    with pytest.raises(ValueError, match=f"--resume: .*{name} another, here it is"):
        run.run(settings(["memory", "layers"], ["eager"], resume=True))
    # nothing was done
    assert path.read_text() == before and not list(path.parent.glob("memory*"))


def test_quick_and_thorough_rows_do_not_mix(tiny, settings):
    (path,) = run.run(settings(["layers"], ["eager"]))
    results.write(path, results.read(path) | {"command": "fastgan bench --quick"})
    with pytest.raises(ValueError, match="was made with --quick"):
        run.run(settings(["layers"], ["eager"], resume=True))


def test_providers_are_timed_in_turn(monkeypatch):
    order = []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(len(order)))
    found = timing.interleaved({"a": lambda: order.append("a"), "b": lambda: order.extend("bb")}, 10, 1)
    rounds = ["".join(order[i : i + 3]) for i in range(0, len(order), 3)]
    # each once in every round, and not always after the same other
    assert len(rounds) == 11 and set(rounds) == {"abb", "bba"}
    assert found["a"] == {"p20_ms": 1000.0, "p50_ms": 1000.0, "p80_ms": 1000.0, "n": 10}
    assert found["b"]["p50_ms"] == 2000.0


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 7), (20.0, 20), (1e9, 201)])
def test_what_is_quick_is_timed_more_often(monkeypatch, seconds, rounds):
    now = [0.0]

    def step():
        now[0] += 1.0

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    assert timing.interleaved({"a": step}, 7, 0, seconds=seconds)["a"]["n"] == rounds


def test_the_most_important_cases_come_first():
    for quick in (True, False):
        assert cases.of("step", quick)[0].name == "DCGAN-64 step"
        assert [case.what for case in cases.of("layers", quick)[:10]] == cases.dcgan(64)
    shapes = [(case.direction, case.batch, *case.what[1:]) for case in cases.of("layers", False)]
    assert len(shapes) == len(set(shapes))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--providers", "eager,nobody"], "got nobody"),
        (["--budget", "0"], "--budget must be above 0"),
        (["--dtype", "float16"], "--dtype float16 needs --device cuda"),
        (["--compare", "none.json", "none.json"], "there is no file none.json"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments, said, capsys):
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_an_installed_package_says_that_it_needs_the_repository(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("fastgan.bench.ROOT", tmp_path)
    assert main(["bench"]) == 2
    assert "needs a clone" in capsys.readouterr().err


def test_the_command_prints_ratios_and_names_the_files(tiny, tmp_path, capsys):
    assert main(["bench", "--suite", "layers", "--quick", "--providers", "eager,fastgan", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "geometric mean" in out and "worst" in out and f"written: {tmp_path}" in out


def test_pytest_finds_every_suite_that_is_timed():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pytest", "benchmarks", "--collect-only", "-q", "-p", "no:cacheprovider"]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    names = [
        f"benchmarks/bench_{suite}.py::test_{suite}[" for suite in (*cases.SUITES, "norm_act") if suite != "memory"
    ]
    assert all(name in found for name in names)


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("activation", ["leaky_relu", "tanh"])
@pytest.mark.parametrize("direction", [cases.FORWARD, cases.BACKWARD, cases.DOUBLE])
def test_each_direction_of_a_layer_is_right_in_every_provider(direction, activation, bias):
    layer = cases.Layer("D", False, 3, 8, 8, 4, 2, 1, False, activation, bias)
    of_layer = LayerWork(cases.Case("layers", "D", direction, 2, layer), torch.float32, "cpu")
    right = work.exact(of_layer)
    with fastgan.use_backend("reference"):
        for peer in peers.load(["eager", "channels_last", "fastgan", "fastgan_nchw"]):
            errors = of_layer.errors(of_layer.build(peer).checked(), right)
            assert not of_layer.wrong(errors, {}) and max(errors.values()) < 1e-4
