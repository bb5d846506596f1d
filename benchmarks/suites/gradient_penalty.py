"""A critic's step: Wasserstein loss, gradient penalty, all gradients; without an optimiser."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

import fastgan
from benchmarks import cases, losses, networks
from benchmarks.peers.peer import Peer
from benchmarks.work import Results, Run, Work, gradients

SEED = 1


class PenaltyWork(Work):
    """One critic, its images, and the kinds of penalty that are added up."""

    def __init__(self, case: cases.Case, dtype: torch.dtype, device: str) -> None:
        super().__init__(case, dtype, device)
        network, size, self.kinds = case.what
        self.critic = networks.critic(network, size)
        self.real, self.fake = torch.randn(2, case.batch, 3, size, size).tanh()

    def shape(self) -> list[Any]:
        return list(self.real.shape)

    def ideal(self) -> tuple[int, int]:
        """Real and fake: forward, input and weight gradient. WGAN-GP: these and a tangent on the points between.

        R1 and R2 share the forward and the input gradient of the images, and add a tangent and a weight gradient.
        """
        d = networks.passes(self.critic, self.real)
        penalty = [(d, 4)] if self.kinds == ("wgan-gp",) else [(d, 2 * len(self.kinds)), (d[:1], len(self.kinds))]
        return networks.ideal([(d, 4), (d[1:], 2), *penalty], self.dtype.itemsize)

    def size(self, name: str, right: Tensor) -> float:
        """The loss of a new critic is the difference of two nearly equal means: an error is a share of these."""
        size = super().size(name, right)
        return max(size, self.score) if name == "loss" else size

    @functools.cached_property
    def score(self) -> float:
        """The size of the mean score of the real images."""
        with torch.no_grad():
            return self.critic(self.real).mean().abs().item()

    def run(self, peer: Peer) -> Run:
        own, critic = self.model(self.critic, peer)
        real, fake = (self.place(x, peer) for x in (self.real, self.fake))
        torch.manual_seed(SEED)
        t = torch.rand(len(real), device=self.device).reshape(-1, 1, 1, 1).to(self.parameter_dtype)
        loss = peer.loss(self._by_hand(critic))
        found: list[Tensor] = []

        def by_hand() -> Tensor:
            total = loss(real, fake, t)
            total.backward()
            return total

        def ours() -> Tensor:
            return self._ours(critic, real, fake)

        chosen = ours if peer.penalty == "fastgan" else by_hand

        def step() -> None:
            own.zero_grad()
            found[:] = [chosen().detach()]

        captured = peer.step(step)

        def run() -> None:
            # fastgan draws its points inside
            torch.manual_seed(SEED)
            captured()

        def results() -> Results:
            return {"loss": found[0], "gradients": gradients(own)}

        return Run(run, results, images=len(real))

    def _by_hand(self, critic: nn.Module) -> Any:
        def loss(real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
            with self.autocast():
                total = losses.discriminator_loss("wasserstein", critic(real), critic(fake))
                for kind in self.kinds:
                    total = total + losses.penalty(kind, critic, real, fake, t)
            return total

        return loss

    def _ours(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        if self.kinds == ("wgan-gp",):
            with self.autocast():
                return fastgan.critic_step_wgan_gp(critic, real, fake, weight=losses.WEIGHT).loss
        with self.autocast():
            total = losses.discriminator_loss("wasserstein", critic(real), critic(fake))
            for kind in self.kinds:
                total = total + fastgan.gradient_penalty(critic, real, fake, kind=kind, weight=losses.WEIGHT)
        total.backward()
        return total


WORK = PenaltyWork
