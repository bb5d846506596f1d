"""Finds the package ``benchmarks`` beside the tests, and makes cases small."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import cases, peers, run

GAME = cases.Game(32, "non-saturating")
LAYER = cases.Layer("L", False, 3, 8, 8, 4, 2, 1, True, "leaky_relu")


@pytest.fixture
def tiny(monkeypatch):
    """One small case a suite, two of layers; the networks of steps have a width of 4."""
    generator, discriminator = cases.generator, cases.discriminator
    monkeypatch.setattr(cases, "generator", lambda size, width=4: generator(size, 4))
    monkeypatch.setattr(cases, "discriminator", lambda size, width=4, norm=True: discriminator(size, 4, norm))
    found = {
        "layers": [
            cases.Case("layers", "one", cases.BACKWARD, 2, LAYER),
            cases.Case("layers", "two", cases.FORWARD, 2, LAYER),
        ],
        "step": [cases.Case("step", "game", cases.STEP, 2, GAME)],
        "gradient_penalty": [cases.Case("gradient_penalty", "critic", cases.STEP, 2, ("DCGAN", 32, ("wgan-gp",)))],
        "spectral_norm": [cases.Case("spectral_norm", "weights", cases.BACKWARD, 0, [(3, 4, 3), (4, 8, 3)])],
        "memory": [
            cases.Case("memory", "game", cases.KEPT, 2, GAME),
            cases.Case("memory", "layer", cases.KEPT, 2, LAYER),
        ],
    }
    monkeypatch.setattr(cases, "of", lambda suite, quick: found[suite])
    ceilings = {"copy_gb_s": 10.0, "matmul_float32_gflop_s": 100.0}
    monkeypatch.setattr(run.machine, "ceilings", lambda *_: ceilings)
    return found


@pytest.fixture
def settings(tmp_path):
    """Settings of a quick run of some suites and providers into a temporary directory."""

    def make(suites, providers, **more):
        chosen = peers.load(providers) if all(isinstance(p, str) for p in providers) else providers
        return run.Settings(suites, peers=chosen, quick=True, out=tmp_path, **more)

    return make
