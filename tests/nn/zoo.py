"""Models with a ``forward`` written by hand: those that may be traced, and those that may not."""

import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import leaky_relu

SWITCH = True


class Block(nn.Module):
    """Each way to write the activation beside a norm or a convolution that fastgan knows."""

    def __init__(self):
        super().__init__()
        for i in range(1, 9):
            setattr(self, f"conv{i}", nn.Conv2d(3, 3, 3, padding=1, bias=i % 2 == 0))
            setattr(self, f"bn{i}", nn.BatchNorm2d(3))
        self.act = nn.LeakyReLU(0.2, inplace=True)
        self.more = nn.ModuleList([nn.BatchNorm2d(3), nn.SiLU()])
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("shift", torch.ones(1))

    def forward(self, input: "torch.Tensor", scale=2.0):
        """Return what comes out of eleven groups."""
        x = F.leaky_relu(self.bn1(self.conv1(input)), 0.2, inplace=True)
        x = F.relu(self.bn2(self.conv2(x)))
        x = torch.tanh(self.bn3(self.conv3(x)))
        x = self.bn4(self.conv4(x)).sigmoid()
        x = self.bn5(self.conv5(x))
        x = x.relu_()
        x = self.act(self.bn6(x))
        x = self.bn7(leaky_relu(x, negative_slope=0.1))
        x = F.silu(self.conv6(x))
        skip = torch.relu_(self.conv7(x + self.shift))
        x = self.bn8(self.act(self.conv8(skip)))
        x = self.more[1](self.more[0](x * self.gain + skip))
        return x.reshape(x.size(0), -1) * scale, (skip, -x[:, 0])


# six groups of convolution and norm take two each, as does convolution and silu
OPS_OF_BLOCK = 18


class Net(nn.Module):
    """A container with control flow around a Block and a Sequential."""

    def __init__(self):
        super().__init__()
        self.ngpu = 1
        self.block = Block()
        self.main = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True))

    def forward(self, x):
        if x.is_cuda and self.ngpu > 1:
            x = x.contiguous()
        return self.main(x), self.block(x)


class Named(nn.Sequential):
    """A Sequential of the user's own."""

    def __init__(self, width):
        super().__init__(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.LeakyReLU(0.2))
        self.width = width


class _Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 3, 1)
        self.slope = 0.2
        self.number = 0
        self.other = self.conv


class ReadsAttribute(_Base):
    def forward(self, x):
        return F.leaky_relu(self.bn(x), self.slope)


class ReadsTraining(_Base):
    def forward(self, x):
        return F.dropout(F.relu(self.bn(x)), 0.5, training=self.training)


class WritesAttribute(_Base):
    def forward(self, x):
        self.number = self.number + 1
        return F.relu(self.bn(x))


class Branches(_Base):
    def forward(self, x):
        if SWITCH:
            x = x + 1
        return F.relu(self.bn(x))


class Chooses(_Base):
    def forward(self, x):
        return F.relu(self.bn(x)) if SWITCH else x


class Loops(_Base):
    def forward(self, x):
        for _ in range(2):
            x = F.relu(self.bn(x))
        return x


class WithoutGradient(_Base):
    def forward(self, x):
        with torch.no_grad():
            x = F.relu(self.bn(x))
        return x


class Decorated(_Base):
    @torch.no_grad()
    def forward(self, x):
        return F.relu(self.bn(x))


class Random(_Base):
    def forward(self, x):
        return F.relu(self.bn(x)) * random.random()


class TorchRandom(_Base):
    def forward(self, x):
        return F.relu(self.bn(x)) * torch.rand(1)


class AsksTorch(_Base):
    def forward(self, x):
        return F.relu(self.bn(x)) * torch.is_grad_enabled()


class Helper(_Base):
    def forward(self, x):
        return self.help(F.relu(self.bn(x)))

    def help(self, x):
        return x * self.number


class CallsForward(_Base):
    def forward(self, x):
        return F.relu(self.bn.forward(x))


class Super(WithoutGradient):
    def forward(self, x):
        return super().forward(x)


class AnyArguments(_Base):
    def forward(self, *args):
        return F.relu(self.bn(args[0]))


class AddsInPlace(_Base):
    def forward(self, x):
        y = F.relu(self.bn(x))
        y += x
        return y


class SetsItem(_Base):
    def forward(self, x):
        y = F.relu(self.bn(x))
        y[0] = 0
        return y


class TwoNames(_Base):
    def forward(self, x):
        return F.relu(self.bn(self.other(x)))


class ComesOutEarly(_Base):
    def forward(self, x):
        return F.relu(self.bn(x))
        return x


class Checkpointed(_Base):
    def forward(self, x):
        return F.relu(torch.utils.checkpoint.checkpoint(self.bn, x, use_reentrant=False))


class Lambda(_Base):
    def forward(self, x):
        return (lambda t: F.relu(self.bn(t)))(x)


class Watched(_Base):
    subclasses = ()

    def __init_subclass__(cls):
        raise RuntimeError("a subclass was made")

    def forward(self, x):
        return F.relu(self.bn(x))


UNPROVEN = {
    ReadsAttribute: "reads self.slope, which is not a module",
    ReadsTraining: "reads self.training",
    WritesAttribute: "reads self.number",
    Branches: "has a If statement",
    Chooses: "uses F.relu(self.bn(x)) if SWITCH else x",
    Loops: "has a For statement",
    WithoutGradient: "has a With statement",
    Decorated: "is not a plain function",
    Random: "uses random, which is neither an input nor torch's",
    TorchRandom: "calls torch.rand on no input",
    AsksTorch: "calls torch.is_grad_enabled on no input",
    Helper: "reads self.help",
    CallsForward: "reads self.bn.forward",
    Super: "uses super, which",
    AnyArguments: "has more than plain arguments",
    AddsInPlace: "has a AugAssign statement",
    SetsItem: "assigns to y[0]",
    TwoNames: "a layer is there under two names",
    ComesOutEarly: "has a Return statement",
    Checkpointed: "uses self.bn as a value",
    Lambda: "uses lambda t",
    Watched: "its class watches over its subclasses",
}


class UsesBetween(_Base):
    """The norm's result is used twice, or something happens between norm and activation."""

    def forward(self, x):
        y = self.bn(x)
        z = F.relu(y) + y
        y = self.bn(z)
        z.add_(1)
        return F.relu(y) + z


class InPlaceFirst(_Base):
    def forward(self, x):
        return self.bn(F.relu(x, inplace=True))


class NegativeSlope(_Base):
    def forward(self, x):
        return F.leaky_relu(self.bn(x), -0.2)


class SlopeIsAnInput(_Base):
    def forward(self, x, slope=0.3):
        return F.leaky_relu(self.bn(x), slope)


NOTHING_TO_FUSE = (UsesBetween, InPlaceFirst, NegativeSlope, SlopeIsAnInput)
