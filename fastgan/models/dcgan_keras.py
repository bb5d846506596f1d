"""The DCGAN of TensorFlow's tutorial, at 28 pixels or more, from stock ``torch.nn`` modules."""

from torch import Tensor, nn

from fastgan.models.layers import NORMS, add_spectral_norm, initialise
from fastgan.models.recipe import Recipe, Setup

ORDERS = ("conv-norm-act", "conv-act-norm")
_DROPOUT = 0.3


def _block(layer: nn.Module, norm: nn.Module | None, order: str) -> list[nn.Module]:
    """Return a layer with its norm before or after the activation, which is Keras' LeakyReLU, of slope 0.3."""
    _check_order(order)
    norms, act = [norm] if norm else [], nn.LeakyReLU(0.3, inplace=True)
    return [layer, *norms, act] if order == "conv-norm-act" else [layer, act, *norms]


class Generator(nn.Module):
    """Latent vector to image: a dense layer, then 5x5 transposed convolutions of stride 1, 2 and 2; Tanh last.

    At 28 pixels with 64 features the layers are those of the tutorial: 7x7x256, 7x7x128, 14x14x64, 28x28xC. Batch norm
    has Keras' epsilon and momentum. The transposed convolutions have padding 2, and output padding 1 where they double
    the side: Keras' "same", but for a shift of the kernel by one pixel.

    Args:
        image_size: side of the image in pixels; a multiple of 4.
        channels: colour channels of the image, >= 1.
        latent_dim: length of the latent vector.
        features: width of the last hidden layer; each earlier one is twice as wide.
        order: of a layer, its norm and its activation; "conv-norm-act" as in the tutorial, or "conv-act-norm".
    Raises: ValueError when order is neither.
    Source: TensorFlow tutorial "Deep Convolutional Generative Adversarial Network".
    """

    def __init__(
        self,
        image_size: int = 28,
        channels: int = 1,
        latent_dim: int = 100,
        features: int = 64,
        order: str = ORDERS[0],
    ) -> None:
        super().__init__()
        side, widest = image_size // 4, 4 * features
        dense = nn.Linear(latent_dim, widest * side * side, bias=False)
        norm = nn.BatchNorm1d(widest * side * side, eps=1e-3, momentum=0.01)
        layers = [nn.Flatten(), *_block(dense, norm, order), nn.Unflatten(1, (widest, side, side))]
        for width, stride in ((2 * features, 1), (features, 2)):
            up = nn.ConvTranspose2d(2 * width, width, 5, stride, 2, output_padding=stride - 1, bias=False)
            layers += _block(up, nn.BatchNorm2d(width, eps=1e-3, momentum=0.01), order)
        layers += [nn.ConvTranspose2d(features, channels, 5, 2, 2, output_padding=1, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def forward(self, latent: Tensor) -> Tensor:
        """Map latents (N, latent_dim, 1, 1) to images (N, channels, image_size, image_size) in [-1, 1]."""
        return self.main(latent)


class Discriminator(nn.Module):
    """Image to logit: two 5x5 convolutions of stride 2, each with LeakyReLU(0.3) and Dropout(0.3), and a dense layer.

    Args:
        image_size: side of the image in pixels; a multiple of 4.
        channels: colour channels of the image, >= 1.
        features: width of the first hidden layer; the second is twice as wide.
        norm: of the second convolution; "none" as in the tutorial, "batch", or "layer" over (C, H, W) of each sample.
        order: as of the generator, and refused likewise.
    Source: as of the generator.
    """

    def __init__(
        self, image_size: int = 28, channels: int = 1, features: int = 64, norm: str = "none", order: str = ORDERS[0]
    ) -> None:
        super().__init__()
        make_norm, width = NORMS[norm], 2 * features
        self.main = nn.Sequential(
            *_block(nn.Conv2d(channels, features, 5, 2, 2), None, order),
            nn.Dropout(_DROPOUT),
            *_block(nn.Conv2d(features, width, 5, 2, 2), make_norm(width) if make_norm else None, order),
            nn.Dropout(_DROPOUT),
            nn.Flatten(),
            nn.Linear(width * (image_size // 4) ** 2, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, image_size, image_size) to logits (N,), positive for real."""
        return self.main(images).flatten()


class DCGANKeras(Recipe):
    """The generator and the discriminator above, initialised as Keras does.

    Args:
        order: of a layer, its norm and its activation; "conv-norm-act" or "conv-act-norm".
    """

    name = "dcgan-keras"
    image_sizes = (28, 32, 64)

    def __init__(self, setup: Setup, order: str = ORDERS[0]) -> None:
        super().__init__(setup)
        _check_order(order)
        self.order = order

    def generator(self) -> nn.Module:
        setup = self.setup
        model = Generator(setup.image_size, setup.channels, setup.latent_dim, setup.features, self.order)
        return model.apply(_glorot)

    def discriminator(self) -> nn.Module:
        setup = self.setup
        model = Discriminator(setup.image_size, setup.channels, setup.features, setup.norm, self.order)
        return (add_spectral_norm(model) if setup.spectral_norm else model).apply(_glorot)


def _check_order(order: str) -> None:
    if order not in ORDERS:
        raise ValueError(f"order must be {' or '.join(ORDERS)} for model dcgan-keras, got {order!r}")


def _glorot(layer: nn.Module) -> None:
    """Initialise one layer as Keras does: weights uniform by Glorot and Bengio 2010, equation 16, biases zero."""
    if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        initialise(layer, nn.init.xavier_uniform_)
