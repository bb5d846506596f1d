"""All scores of several sets of images against one real set: computed, as a table, and as scores.json."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastgan.train.classifier import Classifier
from fastgan.train.errors import BadInput
from fastgan.train.features import NETWORK, FeatureNetwork, check_images, check_packages
from fastgan.train.files import replacing
from fastgan.train.inception import InceptionScores, check_inception, inception_scores
from fastgan.train.scores import Kid, frechet_distance, kid, precision_recall

_NEIGHBOUR = 3


class Candidate(NamedTuple):
    """Images to be scored, uint8 (N, 1 or 3, H, W); the step that their generator had reached, None for real images."""

    name: str
    step: int | None
    images: Tensor


@dataclass(frozen=True)
class Row:
    """Scores of one set of images; None where they were not asked for. Units are those of the functions."""

    name: str
    step: int | None
    kid: Kid
    frechet: float
    precision: float
    recall: float
    classifier_score: float | None = None
    inception: InceptionScores | None = None

    def to_json(self) -> dict[str, Any]:
        """As in scores.json; ``fid`` and ``inception_score`` are there only if asked for."""
        row = {name: getattr(self, name) for name in ("name", "step", "kid", "frechet", "precision", "recall")}
        inception = self.inception._asdict() if self.inception else {}
        return {**row, "classifier_score": self.classifier_score, **inception}

    def cells(self) -> list[str]:
        """As in the table."""
        title = self.name if self.step is None else f"{self.name}, step {self.step}"
        cells = [title, str(self.kid), f"{self.frechet:.3f}", f"{self.precision:.3f}", f"{self.recall:.3f}"]
        if self.classifier_score is not None:
            cells.append(f"{self.classifier_score:.2f}")
        if self.inception is not None:
            mean, std = self.inception.inception_score
            cells += [f"{self.inception.fid:.2f}", f"{mean:.2f} +- {std:.2f}"]
        return cells


@dataclass(frozen=True)
class Report:
    """Rows of scores, all against the same real images; ``str`` of it is a table.

    Args:
        data: name of the data set.
        n: images in each set, the real one included.
        seed: of the KID's subsets.
        step: last step among the rows, None if all are real.
        rows: in the order given.
        classifier: what the classifier scores were taken with.
    """

    data: str
    n: int
    seed: int
    step: int | None
    rows: list[Row]
    classifier: Classifier | None = None

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write scores.json; replaces the file in one move."""
        accuracy = self.classifier.accuracy if self.classifier else None
        head = {"network": NETWORK, "n": self.n, "data": self.data, "seed": self.seed, "step": self.step}
        content = {**head, "classifier_accuracy": accuracy, "rows": [row.to_json() for row in self.rows]}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")

    def __str__(self) -> str:
        titles = ["", "KID", "Fréchet", "precision", "recall"]
        titles += ["classifier"] if self.classifier else []
        titles += ["FID", "Inception score"] if self.rows[0].inception else []
        table = [titles, *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [self._headline()]
        for first, *others in table:
            cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
            lines.append("  ".join([first.ljust(widths[0]), *cells]))
        return "\n".join(lines)

    def _headline(self) -> str:
        line = (
            f"scores in the features of {NETWORK} (not Inception: compare with nothing else), {self.data}, n = {self.n}"
        )
        if self.classifier:
            line += (
                f"\nclassifier score from 1 to {self.classifier.classes}, the classifier's accuracy on held-out images "
            )
            line += f"is {self.classifier.accuracy:.3f}"
        return line


def score_images(
    real: Tensor,
    candidates: Sequence[Candidate],
    *,
    data: str,
    seed: int = 0,
    device: torch.device | str = "cpu",
    classifier: Classifier | None = None,
    inception_weights: str | os.PathLike[str] | None = None,
) -> Report:
    """Score sets of images against real ones; put other real images among them, as the floor.

    Args:
        real: uint8 (N, 1 or 3, H, W), N >= 4.
        candidates: at least one set of N images each, as the distances depend on N.
        data: name of the data set, for the report.
        seed: of the KID's subsets.
        device: where features are computed.
        classifier: adds the classifier score of each set.
        inception_weights: torch-fidelity's file on disk; adds the standard FID and Inception score.
    Raises: BadInput when a package, the weights or the images cannot serve; before anything is computed.
    """
    check_packages()
    if inception_weights is not None:
        check_inception(inception_weights)
    if len(real) <= _NEIGHBOUR:
        raise BadInput(f"real must be at least {_NEIGHBOUR + 1} images, got {len(real)}")
    for name, _, images in candidates:
        check_images(images)
        if len(images) != len(real):
            raise BadInput(f"{name} must be as many images as the real ones, {len(real)}, got {len(images)}")
    network = FeatureNetwork(device)
    features = network(real)

    def score(candidate: Candidate) -> Row:
        name, step, images = candidate
        theirs = network(images)
        return Row(
            name,
            step,
            kid(features, theirs, seed),
            frechet_distance(features, theirs),
            *precision_recall(features, theirs, _NEIGHBOUR),
            classifier.score(images) if classifier else None,
            inception_scores(real, images, inception_weights, seed, device) if inception_weights else None,
        )

    steps = [step for _, step, _ in candidates if step is not None]
    return Report(data, len(real), seed, max(steps, default=None), [score(item) for item in candidates], classifier)
