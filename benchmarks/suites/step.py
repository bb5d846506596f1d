"""A whole training step: the discriminator's steps, one of the generator, Adam's included."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import fastgan
from benchmarks import cases, losses, networks
from benchmarks.peers.peer import Peer
from benchmarks.work import Results, Run, Work, gradients, in_place, parameters

LATENT = 100
SEED = 1


class StepWork(Work):
    """One step of a game from its first weights; all images and latents are given."""

    def __init__(self, case: cases.Case, dtype: torch.dtype, device: str, width: int = 64) -> None:
        super().__init__(case, dtype, device)
        self.game: cases.Game = case.what
        size, steps, batch = self.game.size, self.game.d_steps, case.batch
        wgan = self.game.loss == "wgan-gp"
        shapes = cases.discriminator(size, width, norm=not wgan and not self.game.spectral_norm)
        self.generator = networks.network(cases.generator(size, width))
        self.discriminator = networks.network(shapes, self.game.spectral_norm)
        self.real = torch.randn(steps, batch, 3, size, size).tanh()
        self.latents = torch.randn(steps, batch, LATENT, 1, 1)

    def shape(self) -> list[Any]:
        return list(self.real.shape[1:])

    def ideal(self) -> tuple[int, int]:
        """The passes that no way of training can leave out; an image's gradient is for the generator alone."""
        batch, steps, size = self.case.batch, self.game.d_steps, self.game.size
        g = networks.passes(self.generator, torch.randn(batch, LATENT, 1, 1))
        d = networks.passes(self.discriminator, torch.randn(batch, 3, size, size))
        # forward, input and weight gradient; the critic's also judges the generator's images without a weight gradient
        work = [(g, steps + 1), (g[1:], 1), (d, 2 + 4 * steps), (d[1:], 2 * steps)]
        if self.game.loss == "wgan-gp":
            # of the points between: forward, input gradient, tangent, weight gradient
            work.append((d, 4 * steps))
        return networks.ideal(work, self.dtype.itemsize)

    def run(self, peer: Peer) -> Run:
        return Players(self, peer).run()


class Players:
    """Both networks with their optimisers, as one peer runs them."""

    def __init__(self, work: StepWork, peer: Peer) -> None:
        self.work, self.peer, self.kind = work, peer, work.game.loss
        self.g, self.run_g = work.model(work.generator, peer)
        self.d, self.run_d = work.model(work.discriminator, peer)
        self.before = parameters(self.g).clone(), parameters(self.d).clone()
        self.optimizers = [losses.adam(model, self.kind, peer.tuned, peer.capturable) for model in (self.g, self.d)]
        self.real = [work.place(x, peer) for x in work.real]
        self.latents = [work.place(x, peer) for x in work.latents]
        torch.manual_seed(SEED)
        draws = [torch.rand(work.case.batch, device=work.device) for _ in self.real]
        self.t = [draw.reshape(-1, 1, 1, 1).to(work.parameter_dtype) for draw in draws]
        self.d_loss, self.g_loss = peer.loss(self._d_loss), peer.loss(self._g_loss)
        self.losses: list[Tensor] = []

    def run(self) -> Run:
        models = in_place(self.g, self.d)

        def restore() -> None:
            models()
            for optimizer in self.optimizers:
                for state in optimizer.state.values():
                    for value in state.values():
                        value.zero_()

        step = self.peer.step(self.step)

        def run() -> Any:
            # the points of fastgan's penalty are drawn inside
            torch.manual_seed(SEED)
            return step()

        return Run(run, self.results, restore, images=len(self.real) * len(self.real[0]))

    def _d_loss(self, real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
        with self.work.autocast():
            loss = losses.discriminator_loss(self.kind, self.run_d(real), self.run_d(fake))
            if self.kind == "wgan-gp":
                loss = loss + losses.penalty(self.kind, self.run_d, real, fake, t)
        return loss

    def _g_loss(self, fake: Tensor) -> Tensor:
        with self.work.autocast():
            return losses.generator_loss(self.kind, self.run_d(fake))

    def step(self) -> None:
        """One training step; the last images of the generator serve both players."""
        last = len(self.real) - 1
        for i, (real, latent, t) in enumerate(zip(self.real, self.latents, self.t, strict=True)):
            with self.work.autocast(), torch.set_grad_enabled(i == last):
                fake = self.run_g(latent)
            d_loss = self._train_discriminator(real, fake.detach().to(real.dtype), t)
        self.d.requires_grad_(False)
        self.g.zero_grad()
        g_loss = self.g_loss(fake)
        g_loss.backward()
        self.optimizers[0].step()
        self.d.requires_grad_(True)
        self.losses = [d_loss, g_loss.detach()]

    def _train_discriminator(self, real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
        self.d.zero_grad()
        if self.kind == "wgan-gp" and self.peer.penalty == "fastgan":
            with self.work.autocast():
                loss = fastgan.critic_step_wgan_gp(self.run_d, real, fake, weight=losses.WEIGHT).loss
        else:
            loss = self.d_loss(real, fake, t)
            loss.backward()
        self.optimizers[1].step()
        return loss.detach()

    def results(self) -> Results:
        return {
            "losses": torch.stack([loss.double() for loss in self.losses]),
            "generator gradient": gradients(self.g),
            "generator update": parameters(self.g) - self.before[0],
            "discriminator update": parameters(self.d) - self.before[1],
        }


WORK = StepWork
