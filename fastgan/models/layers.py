"""What the models share: initialisation, norms, activation of discriminators, residual blocks, checks of options."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.utils import parametrize

from fastgan.nn import utils

NORMS: dict[str, Callable[[int], nn.Module] | None] = {
    "batch": nn.BatchNorm2d,
    "none": None,
    "layer": lambda width: nn.GroupNorm(1, width),
}
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def weights_init(module: nn.Module) -> None:
    """Initialise one layer as DCGAN does; use as ``model.apply(weights_init)``.

    Convolution weights are drawn from N(0, 0.02), batch norm weights from N(1, 0.02), biases of both are zero. A weight
    under spectral norm stays as it is: its scale does not matter, and the norm's vectors belong to it.
    Draws from torch's global random numbers. Source: Radford et al. 2015, section 4.
    """
    if isinstance(module, _CONVOLUTIONS):
        initialise(module, lambda weight: nn.init.normal_(weight, 0.0, 0.02))
    elif isinstance(module, _BATCH_NORMS):
        initialise(module, lambda weight: nn.init.normal_(weight, 1.0, 0.02))


def initialise(layer: nn.Module, draw: Callable[[Tensor], Tensor]) -> None:
    """Draw a layer's weight in place, unless it is parametrized, and set the bias, where there is one, to zero."""
    if not parametrize.is_parametrized(layer, "weight"):
        draw(layer.weight)  # type: ignore[arg-type]
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def leaky() -> nn.Module:
    """LeakyReLU(0.2), in place."""
    return nn.LeakyReLU(0.2, inplace=True)


def add_spectral_norm(model: nn.Module) -> nn.Module:
    """Divide the weight of every convolution and linear layer in a model by its largest singular value; the same model.

    Source: Miyato et al. 2018, section 2.1.
    """
    for layer in list(model.modules()):
        if isinstance(layer, (*_CONVOLUTIONS, nn.Linear)):
            utils.spectral_norm(layer)
    return model


class Residual(nn.Module):
    """What ``layers`` add to their input, as in He et al. 2016: x + layers(x), the shape being kept.

    Args:
        layers: run one after the other; the first must not work in place.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return x + self.layers(x)


def check_weight(model: str, name: str, weight: float) -> float:
    """The weight of a loss, for a model's option of that name. Raises ValueError unless it is finite and >= 0."""
    if not 0 <= weight < float("inf"):
        raise ValueError(f"{name} must be at least 0 and finite for model {model}, got {weight}")
    return weight
