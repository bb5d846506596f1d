"""The training loop of PyTorch's DCGAN example, written anew: what a reader of the tutorial runs.

Probabilities and BCELoss, one backward for real and one for generated images, the discriminator's weight gradients
taken and thrown away in the generator's step, five numbers read back each step for the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from benchmarks import losses
from benchmarks.peers.peer import Peer, Refused
from benchmarks.work import Results, Run, gradients, in_place, parameters

if TYPE_CHECKING:
    from benchmarks.work import Work


def _refuses(work: Work) -> None:
    if work.case.what.loss != "non-saturating":
        raise Refused("the example has no other loss than its own")
    if work.dtype.itemsize == 2:
        raise Refused("the example has no autocast, which its BCELoss does not allow")


class Example:
    """The loop's state and one turn of it."""

    def __init__(self, work: Work) -> None:
        self.net_g, _ = work.model(work.generator, PEER)  # type: ignore[attr-defined]
        self.net_d, _ = work.model(work.discriminator, PEER)  # type: ignore[attr-defined]
        self.probability = nn.Sequential(self.net_d, nn.Sigmoid())
        self.before = parameters(self.net_g), parameters(self.net_d)
        self.opt_g, self.opt_d = (losses.adam(net, "non-saturating", False, False) for net in (self.net_g, self.net_d))
        self.criterion = nn.BCELoss()
        self.real, self.noise = work.place(work.real[0], PEER), work.place(work.latents[0], PEER)  # type: ignore[attr-defined]
        self.log: list[float] = []

    def turn(self) -> None:
        """One batch."""
        self.net_d.zero_grad()
        label = torch.full((len(self.real),), 1.0, dtype=self.real.dtype, device=self.real.device)
        output = self.probability(self.real)
        error_real = self.criterion(output, label)
        error_real.backward()
        d_x = output.mean().item()

        fake = self.net_g(self.noise)
        label.fill_(0.0)
        output = self.probability(fake.detach())
        error_fake = self.criterion(output, label)
        error_fake.backward()
        d_g_z1 = output.mean().item()
        self.opt_d.step()

        self.net_g.zero_grad()
        label.fill_(1.0)
        output = self.probability(fake)
        error_g = self.criterion(output, label)
        error_g.backward()
        d_g_z2 = output.mean().item()
        self.opt_g.step()
        self.log = [(error_real + error_fake).item(), error_g.item(), d_x, d_g_z1, d_g_z2]

    def restore(self) -> None:
        """Forget both optimisers' state."""
        for optimizer in (self.opt_g, self.opt_d):
            optimizer.state.clear()

    def results(self) -> Results:
        """What the step gave."""
        return {
            "losses": torch.tensor(self.log[:2], dtype=torch.float64),
            "generator gradient": gradients(self.net_g),
            "generator update": parameters(self.net_g) - self.before[0],
            "discriminator update": parameters(self.net_d) - self.before[1],
        }


def _build(work: Work) -> Run:
    example = Example(work)
    models = in_place(example.net_g, example.net_d)

    def restore() -> None:
        models()
        example.restore()

    return Run(example.turn, example.results, restore, images=len(example.real))


PEER = Peer("dcgan_example", tuned=False, suites=("step",), refuses=_refuses, build=_build)
