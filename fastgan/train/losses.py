"""Losses of the two players, from logits; each returns a scalar, float32 also under autocast (float64 stays).

Logits are (N,) or of any other shape, of any float dtype; where real and generated logits are asked for, the two N may
differ unless said.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import relu, softplus


def non_saturating_d(real_logits: Tensor, fake_logits: Tensor, smoothing: float = 0.0) -> Tensor:
    """Discriminator's loss: binary cross entropy, real as 1 - smoothing plus fake as 0, each a mean by itself.

    mean softplus(-D(x)) + mean softplus(D(G(z))) + smoothing mean D(x). Source: Goodfellow et al. 2014, section 3;
    smoothing: Salimans et al. 2016, section 3.4.
    """
    loss = softplus(-_wide(real_logits)).mean() + softplus(_wide(fake_logits)).mean()
    return loss + smoothing * _wide(real_logits).mean() if smoothing else loss


def non_saturating_g(fake_logits: Tensor) -> Tensor:
    """Generator's loss: binary cross entropy of the generated batch taken as real, mean softplus(-D(G(z)))."""
    return softplus(-_wide(fake_logits)).mean()


def minimax_g(fake_logits: Tensor) -> Tensor:
    """Generator's loss, which saturates: minus the discriminator's loss of the generated batch.

    -mean softplus(D(G(z))). Source: Goodfellow et al. 2014, equation 1.
    """
    return -softplus(_wide(fake_logits)).mean()


def least_squares_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Discriminator's loss: squared distance to 1 for real and to 0 for generated images.

    mean (D(x) - 1)^2 / 2 + mean D(G(z))^2 / 2. Source: Mao et al. 2017, equation 9 (a = 0, b = c = 1).
    """
    return ((_wide(real_logits) - 1).square().mean() + _wide(fake_logits).square().mean()) / 2


def least_squares_g(fake_logits: Tensor) -> Tensor:
    """Generator's loss: squared distance to 1, mean (D(G(z)) - 1)^2 / 2. Source: Mao et al. 2017, equation 9."""
    return (_wide(fake_logits) - 1).square().mean() / 2


def hinge_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Discriminator's loss: mean max(0, 1 - D(x)) + mean max(0, 1 + D(G(z))). Source: Lim and Ye 2017."""
    return relu(1 - _wide(real_logits)).mean() + relu(1 + _wide(fake_logits)).mean()


def wasserstein_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Critic's loss: mean D(G(z)) - mean D(x), minus the distance. Source: Arjovsky et al. 2017, section 3."""
    return _wide(fake_logits).mean() - _wide(real_logits).mean()


def wasserstein_g(fake_logits: Tensor) -> Tensor:
    """Generator's loss: -mean D(G(z)); that of the hinge loss, too. Source: Arjovsky et al. 2017, section 3."""
    return -_wide(fake_logits).mean()


def relativistic_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Discriminator's loss on pairs: each real logit is to exceed the generated one beside it.

    mean softplus(-(D(x_i) - D(G(z_i)))), the relativistic pairing loss.

    Args:
        real_logits, fake_logits: (N,) both.
    Raises: ValueError when the two N differ.
    Source: Jolicoeur-Martineau 2018, RpGAN; Huang et al. 2024 (R3GAN), equation 2.
    """
    return softplus(-_difference(real_logits, fake_logits)).mean()


def relativistic_g(fake_logits: Tensor, real_logits: Tensor) -> Tensor:
    """Generator's loss on pairs, the mirror image: mean softplus(D(x_i) - D(G(z_i))). As ``relativistic_d``."""
    return softplus(_difference(real_logits, fake_logits)).mean()


class Loss(NamedTuple):
    """The losses of the two players.

    Args:
        discriminator: called with (real_logits, fake_logits), and with smoothing where that may be above 0.
        generator: called with (fake_logits), or (fake_logits, real_logits) where ``needs_real``.
        needs_real: whether the generator's loss depends on the logits of real images.
    """

    discriminator: Callable[..., Tensor]
    generator: Callable[..., Tensor]
    needs_real: bool = False


LOSSES = {
    "non-saturating": Loss(non_saturating_d, non_saturating_g),
    "minimax": Loss(non_saturating_d, minimax_g),
    "least-squares": Loss(least_squares_d, least_squares_g),
    "hinge": Loss(hinge_d, wasserstein_g),
    "wasserstein": Loss(wasserstein_d, wasserstein_g),
    "relativistic": Loss(relativistic_d, relativistic_g, needs_real=True),
}


def _difference(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    if real_logits.shape != fake_logits.shape:
        real, fake = tuple(real_logits.shape), tuple(fake_logits.shape)
        raise ValueError(f"relativistic loss: real_logits and fake_logits must be pairs, got shapes {real} and {fake}")
    return _wide(real_logits) - _wide(fake_logits)


def _wide(logits: Tensor) -> Tensor:
    return logits.float() if logits.itemsize < 4 else logits
