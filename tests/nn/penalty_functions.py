"""Functions to put between the layers of a critic, each with whether a penalty through it takes the fast path."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


class Around(nn.Module):
    """A convolution, the function ``f(self, h)`` under test, h (N, 4, 4, 4), and a linear layer of what comes out."""

    def __init__(self, f):
        super().__init__()
        self.first, self.conv = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1)
        self.linear, self.last = nn.Linear(4, 3), nn.Parameter(torch.randn(1, 512) / 4)
        self.gain = nn.Parameter(torch.tensor([0.7]))
        self.f = f

    def forward(self, x):
        h = self.f(self, self.first(x))
        h = F.leaky_relu(h.flatten(1), 0.2)
        return F.linear(h, self.last[:, : h.shape[1]])


class _Reverse(torch.autograd.Function):
    """The identity, with a gradient of its own."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        return -0.5 * dy


class _Same(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, dy):
        return 3 * dy


def _without_gradient(m, h):
    with torch.no_grad():
        g = m.conv(h)
    return h + g


def _in_place_view(m, h):
    F.relu_(h.view(h.size(0), -1))
    return m.conv(h)


def _in_place_on_view_used_later(m, h):
    v = h.flatten(1)
    v.relu_()
    return m.conv(h)


def _view_after_in_place(m, h):
    v = h.view(h.size(0), -1)
    h.relu_()
    return v


def _add_in_place_to_activation(m, h):
    g = F.leaky_relu(h, 0.2)
    g += m.conv(h)
    return g


def _add_in_place_to_view(m, h):
    g = m.conv(h)
    g.flatten(1).add_(h.flatten(1))
    return g


def _add_to_itself(m, h):
    g = m.conv(F.relu(h))
    g += g
    return g


def _chunks(m, h):
    a, b = h.chunk(2, 1)
    return torch.cat([b, a], 1)


def _stddev(m, h):
    s = h.std(0, unbiased=False).mean().expand(h.size(0), 1, 4, 4)
    return torch.cat([h, s], 1)


def _branch_on_values(m, h):
    return m.conv(h) if h.sum() > 0 else F.relu(h)


def _statement_of_other_values(m, h):
    m.features = F.relu(m.conv(h))
    m.linear(F.relu(h))
    return h.abs() if m.features is None else h


def _in_and_out_of_groups(m, h):
    return m.linear(h.view(h.shape[0], 4, 16).sum(-1, keepdim=True).reshape(-1, 1, 4)).squeeze(1)


# straight on: linear or piecewise linear in each sample
FAST = {
    "identity": lambda m, h: h,
    "relu": lambda m, h: m.conv(torch.relu(h)),
    "relu-method": lambda m, h: m.conv(h.relu()),
    "relu-in-place": lambda m, h: m.conv(h.relu_()),
    "leaky-slope-0": lambda m, h: m.conv(F.leaky_relu(h, 0.0)),
    "leaky-slope-2": lambda m, h: m.conv(F.leaky_relu(h, 2.0)),
    "add-to-itself": _add_to_itself,
    "values-nobody-uses": _statement_of_other_values,
    "keyword-input": lambda m, h: F.relu(input=h, inplace=False),
    "keyword-mean": lambda m, h: torch.mean(input=h, dim=1),
    "keyword-flatten": lambda m, h: torch.flatten(input=h, start_dim=1),
    "keyword-pad": lambda m, h: m.conv(F.pad(input=h, pad=(1, 1))),
    "times-number": lambda m, h: 2 * h * 0.5 / 3,
    "times-keyword": lambda m, h: h.mul(other=2.0),
    "numpy-float": lambda m, h: h * m.first.weight.detach().numpy()[0, 0, 0, 0],
    "mean": lambda m, h: m.linear(h.mean((2, 3))),
    "mean-last": lambda m, h: m.linear(h.mean(dim=[-1, -2])),
    "sum-keepdim": lambda m, h: torch.sum(h, 1, True),
    "linear-of-images": lambda m, h: m.linear(h),
    "groups": _in_and_out_of_groups,
    "pad": lambda m, h: m.conv(F.pad(h, (1, 0, -1, 2))),
    "pad-reflect": lambda m, h: m.conv(F.pad(h, (1, 1, 2, 1), mode="reflect")),
    "pad-circular": lambda m, h: m.conv(F.pad(h, (1, 1, 2, 1), "circular")),
    "nearest": lambda m, h: m.conv(F.interpolate(h, scale_factor=2)),
    "bilinear": lambda m, h: m.conv(F.interpolate(h, size=(5, 7), mode="bilinear", align_corners=True)),
    "pixel-shuffle": lambda m, h: F.pixel_shuffle(h, 2),
    "pixel-unshuffle": lambda m, h: F.pixel_unshuffle(h, 2),
    "pixel-shuffle-1": lambda m, h: m.conv(F.relu(F.pixel_shuffle(h, 1))) - h,
    "unflatten": lambda m, h: m.linear(h.flatten(1).unflatten(1, (16, 4))),
    "avg-pool": lambda m, h: F.avg_pool2d(h, 3, 2, 1, count_include_pad=False),
    "adaptive-pool-same-size": lambda m, h: m.conv(F.relu(F.adaptive_avg_pool2d(h, 4))) + h,
    "pool-of-three-dimensions": lambda m, h: F.avg_pool2d(h.mean(1), 2),
    "squeeze": lambda m, h: m.conv(h).sum(1, keepdim=True).squeeze(1),
    "clone": lambda m, h: m.conv(h.clone().relu_()) + h,
    "contiguous": lambda m, h: h.contiguous(memory_format=torch.channels_last),
    "to-float": lambda m, h: h.to(torch.float64).double(),
    "strided": lambda m, h: F.conv2d(h, m.conv.weight, stride=(3, 2), padding=(0, 1)),
    "grouped": lambda m, h: F.conv2d(h, m.conv.weight[:, :2], m.gain.expand(4), groups=2),
    "transposed": lambda m, h: m.conv(F.conv_transpose2d(h, m.conv.weight, None, 3, (1, 0), (2, 1), 1, 1)).mean(1),
    "weight-of-others": lambda m, h: F.conv2d(h, m.conv.weight * m.gain, m.gain * m.conv.bias),
    "constant-weight": lambda m, h: m.linear(F.relu(F.linear(h, torch.eye(4, dtype=h.dtype) + 0.1))),
    "detached-weight": lambda m, h: m.conv(F.relu(F.conv2d(h, m.conv.weight.detach(), padding=1))),
    "data-of-a-weight": lambda m, h: m.conv(F.relu(F.conv2d(h, m.conv.weight.data))),
    "checkpoint": lambda m, h: checkpoint(m.conv, h, use_reentrant=False),
    "residual": lambda m, h: F.relu(h) + m.conv(F.relu(m.conv(F.relu(h)))),
    "diamond": lambda m, h: m.conv(h) - m.conv(F.relu(h)) + h,
    "of-its-gradient": lambda m, h: m.conv(h) if h.requires_grad else m.conv(h * 1.0),
}  # fmt: skip
# right by whatever path; most are none of the tape's
ANY = {
    "reverse": lambda m, h: m.conv(_Reverse.apply(h)) + h,
    "reverse-alone": lambda m, h: m.conv(_Reverse.apply(F.relu(h))),
    "same": lambda m, h: m.conv(_Same.apply(h)) + h,
    "no-grad": _without_gradient,
    "detach": lambda m, h: h + m.conv(h.detach()),
    "data": lambda m, h: h + m.conv(h.data),
    "in-place-view": _in_place_view,
    "in-place-on-view-used-later": _in_place_on_view_used_later,
    "view-after-in-place": _view_after_in_place,
    "add-in-place-to-activation": _add_in_place_to_activation,
    "add-in-place-to-view": _add_in_place_to_view,
    "chunks": _chunks,
    "split": lambda m, h: h.split([1, 3], 1)[1] * 2,
    "unbind": lambda m, h: torch.stack(h.unbind(1)[::-1], 1),
    "concatenated-samples": lambda m, h: torch.cat([h, -h]),
    "transpose": lambda m, h: h.transpose(1, 2),
    "permute": lambda m, h: m.linear(h.permute(0, 2, 3, 1)),
    "einsum": lambda m, h: torch.einsum("nchw,oc->nohw", h, m.conv.weight[:, :, 0, 0]),
    "matmul": lambda m, h: h.flatten(2).mT @ m.linear.weight.mT,
    "bmm": lambda m, h: torch.bmm(h.flatten(2), h.flatten(2).mT),
    "max-pool": lambda m, h: F.max_pool2d(h, 2),
    "amax": lambda m, h: h.amax((2, 3)),
    "abs": lambda m, h: h.abs(),
    "product": lambda m, h: h * m.conv(h),
    "square": lambda m, h: h**2,
    "times-its-mean": lambda m, h: h * h.mean(),
    "plus-its-mean": lambda m, h: h + h.mean((2, 3), keepdim=True),
    "gain": lambda m, h: h * m.gain,
    "plus-gain": lambda m, h: h + m.gain,
    "stddev": _stddev,
    "normalize": lambda m, h: F.normalize(h),
    "every-other": lambda m, h: h[::2],
    "index": lambda m, h: h[:, [0, 2]],
    "flip": lambda m, h: h.flip(0),
    "roll": lambda m, h: h.roll(1, 0) + h,
    "dropout-0": lambda m, h: F.dropout(h, 0.5, training=False),
    "pad-value": lambda m, h: m.conv(F.pad(h, (1, 1), value=1.5)),
    "pad-samples": lambda m, h: F.pad(h.flatten(1), (0, 0, 1, -1)) + h.flatten(1),
    "bicubic": lambda m, h: F.interpolate(h, scale_factor=2, mode="bicubic"),
    "mean-of-samples": lambda m, h: h - h.mean(0, keepdim=True),
    "mean-of-all": lambda m, h: h - h.mean(),
    "plus-1": lambda m, h: F.relu(h + 1),
    "1-minus": lambda m, h: F.relu(1 - h),
    "minus-number": lambda m, h: F.relu(h.sub(0.5)),
    "by-samples": lambda m, h: h / h.size(0),
    "by-samples-of-shape": lambda m, h: h * (1 / h.shape[0]),
    "by-length": lambda m, h: h / len(h),
    "negative": lambda m, h: -h,
    "alpha": lambda m, h: torch.add(h, F.relu(h), alpha=2),
    "sum-of-list": lambda m, h: sum([h, F.relu(h)]),
    "rounded": lambda m, h: h + torch.div(F.relu(h), 0.01, rounding_mode="floor"),
    "truncated": lambda m, h: h + h.div(0.01, rounding_mode="trunc"),
    "bits": lambda m, h: h + h.view(torch.int64).view(torch.float64),
    "vector-weight": lambda m, h: F.linear(h.flatten(1), m.last[0, :64]).unsqueeze(1),
    "sum-of-nothing": lambda m, h: h + h.sum((), keepdim=True),
    "double-relu6": lambda m, h: F.relu6(h),
    "negative-slope": lambda m, h: F.leaky_relu(h, -0.3),
    "branch": _branch_on_values,
    "weight-from-values": lambda m, h: F.conv2d(h, m.conv.weight * h.mean()),
    "bias-from-values": lambda m, h: F.linear(h, m.linear.weight, h[0, 0, 0, :3]),
    "values-as-weight": lambda m, h: F.linear(m.linear.weight, h[0, 0, :, :]).expand(h.size(0), -1, -1),
    "first-sample-by-weight": lambda m, h: F.linear(h, h[0, 0]),
    "softplus": lambda m, h: F.softplus(h),
    "where": lambda m, h: torch.where(h > 0, h, 0.3 * h),
    "clamp": lambda m, h: h.clamp(-0.5, 0.5),
    "number-of-a-tensor": lambda m, h: h * float(h.detach().abs().max()),
    "reshape-samples": lambda m, h: h.reshape(-1, 2, 4, 4),
    "unsqueezed-samples": lambda m, h: h.unsqueeze(0).squeeze(0),
    "conv1d": lambda m, h: F.conv1d(h.flatten(2), m.conv.weight[..., 0]),
    "conv3d": lambda m, h: F.conv3d(h.unsqueeze(1), m.conv.weight[:, :1, None]),
    "same-padding": lambda m, h: F.conv2d(h, m.conv.weight, padding="same"),
    "weight-of-values-of-own-function": lambda m, h: F.linear(h, _Reverse.apply(h)[0, 0]),
}  # fmt: skip
