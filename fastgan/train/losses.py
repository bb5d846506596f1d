"""Losses of the two players, from logits; each returns a float32 scalar, also under autocast."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import softplus


def non_saturating_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Discriminator's loss: binary cross entropy, real as 1 plus fake as 0, each the mean over its own batch.

    Args:
        real_logits, fake_logits: (N,), any float dtype; the two N may differ.
    Returns: scalar, float32 or float64. Source: Goodfellow et al. 2014, section 3.
    """
    return softplus(-_wide(real_logits)).mean() + softplus(_wide(fake_logits)).mean()


def non_saturating_g(fake_logits: Tensor) -> Tensor:
    """Generator's loss: binary cross entropy of the generated batch, (N,), taken as real; scalar."""
    return softplus(-_wide(fake_logits)).mean()


class Loss(NamedTuple):
    """The losses of the two players: ``discriminator(real_logits, fake_logits)`` and ``generator(fake_logits)``."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


LOSSES = {"non-saturating": Loss(non_saturating_d, non_saturating_g)}


def _wide(logits: Tensor) -> Tensor:
    return logits.float() if logits.itemsize < 4 else logits
