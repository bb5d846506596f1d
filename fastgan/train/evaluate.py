"""The scores of a run: its first and a later checkpoint, and real images against other real ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgan.models import Recipe
from fastgan.train.classifier import Classifier, fit_classifier
from fastgan.train.config import TrainConfig
from fastgan.train.data import ImageSet
from fastgan.train.errors import BadInput
from fastgan.train.evaluation import Candidate, Report, score_images
from fastgan.train.features import check_packages
from fastgan.train.feed import Feed
from fastgan.train.images import to_uint8
from fastgan.train.inception import check_inception
from fastgan.train.run_dir import RunDir
from fastgan.train.sampling import Trained, generate, load_generator
from fastgan.train.streams import SAMPLES, SHOWN, seeded_generator

_LEAST = 4


def evaluate_run(
    directory: str | Path,
    n: int,
    seed: int | None = None,
    step: int | None = None,
    inception_weights: str | os.PathLike[str] | None = None,
) -> Report:
    """Score a run's checkpoints of step 0 and ``step`` (default: the newest), and write scores.json into it.

    Args:
        directory: of the run.
        n: real and as many generated images, at least 4; fewer where half of the data is fewer.
        seed: of latents, order and subsets; default: the run's.
        inception_weights: torch-fidelity's file on disk; adds the standard FID and Inception score.
    Raises: BadInput naming what is missing.
    """
    check_packages()
    if inception_weights is not None:
        check_inception(inception_weights)
    if n < _LEAST:
        raise BadInput(f"--n must be at least {_LEAST}, got {n}")
    after, before = load_generator(directory, step), load_generator(directory, 0)
    config, recipe = after.config, after.recipe
    seed = config.seed if seed is None else seed
    feed = _load(config)
    halves = list(zip(*(images.halves(seed) for images in feed.sets), strict=True))
    real, other = (_frames(recipe, [part.images for part in half]) for half in halves)
    n = min(n, len(real), len(other))
    if n < _LEAST:
        raise BadInput(f"the data set {config.data} has too few images for a score")
    candidates = [Candidate("floor", None, _pick(other, n, seed))]
    for name, trained in (("before", before), ("after", after)):
        candidates.append(Candidate(name, trained.step, _pick(_draw(trained, n, seed, feed), n, seed)))
    classifier = _classifier(halves[0][0], halves[1][0], seed)
    settings: dict[str, Any] = {"data": config.data, "seed": seed, "classifier": classifier}
    report = score_images(_pick(real, n, seed), candidates, inception_weights=inception_weights, **settings)
    report.write(RunDir(directory).root / "scores.json")
    return report


def inputs_of(
    trained: Trained, n: int, seed: int, truncation: float = 0.0, feed: Feed | None = None
) -> tuple[Tensor, ...]:
    """The arguments of a run's generator for ``n`` pictures; from images of the data where it starts from them.

    Args:
        feed: the run's data, where they are loaded already.
    """
    recipe = trained.recipe
    shown: tuple[Tensor, Tensor | None] = (torch.empty(n, 0), None)
    if recipe.needs_data:
        feed = _load(trained.config) if feed is None else feed
        shown = feed.first(n, seeded_generator(seed, SHOWN))
    return recipe.samples(len(shown[0]), *shown, seeded_generator(seed, SAMPLES), truncation)


def _load(config: TrainConfig) -> Feed:
    return Feed(config, torch.device("cpu"))


def _draw(trained: Trained, n: int, seed: int, feed: Feed) -> Tensor:
    return to_uint8(trained.recipe.frames(generate(trained.generator, inputs_of(trained, n, seed, feed=feed))))


def _frames(recipe: Recipe, sets: list[Tensor]) -> Tensor:
    count = min(map(len, sets))
    return recipe.frames(torch.cat([images[:count] for images in sets], 1))


def _classifier(real: ImageSet, other: ImageSet, seed: int) -> Classifier | None:
    # of the half that is not scored itself, so that the floor's images are new to it
    if real.labels is None or other.labels is None or real.classes < 2 or real.frames:
        return None
    return fit_classifier(real.images, real.labels, other.images, other.labels, seed)


def _pick(images: Tensor, n: int, seed: int) -> Tensor:
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:n]]
