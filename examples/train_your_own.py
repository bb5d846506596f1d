"""Train a GAN that is not fastgan's with fastgan's trainer: python examples/train_your_own.py [DIRECTORY]"""

import sys

from torch import nn

from fastgan.train import Callback, TrainConfig, Trainer


def block(convolution, width, norm=True):
    return [convolution, *([nn.BatchNorm2d(width)] if norm else []), nn.LeakyReLU(0.2)]


generator = nn.Sequential(
    *block(nn.ConvTranspose2d(64, 64, 8, bias=False), 64),  # 1 to 8 pixels
    *block(nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), 32),
    *(nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Tanh()),
)
discriminator = nn.Sequential(
    *block(nn.Conv2d(1, 32, 4, 2, 1), 32, norm=False),
    *block(nn.Conv2d(32, 64, 4, 2, 1, bias=False), 64),
    *(nn.Conv2d(64, 1, 8), nn.Flatten(0)),
)


class Print(Callback):
    def logged(self, trainer, row):
        print(row)


config = TrainConfig(image_size=32, latent_dim=64, steps=500, out=(sys.argv[1:] or [""])[0])
Trainer(config, generator, discriminator, callbacks=[Print()]).fit()
