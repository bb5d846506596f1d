"""The convolutions by torch's matrix products, which run where the processor multiplies 16-bit types."""

import random

import pytest
import torch

from fastgan.backends import load, processor
from fastgan.backends.geometry import Attributes, output_size
from fastgan.testing import random_values

from .grid import NATIVE

NO_NORM = (None, None, None, None)


def draw(seed):
    rng = random.Random(seed)
    transposed = rng.random() < 0.5
    kernel, stride = ([rng.choice(of) for _ in range(2)] for of in ((1, 2, 3, 4, 5), (1, 2, 3)))
    padding = [rng.randint(0, k - 1) for k in kernel]
    output_padding = [rng.randint(0, s - 1) if transposed else 0 for s in stride]
    channels, size = (rng.choice((1, 3, 5)), rng.choice((1, 3, 7))), [rng.randint(3, 9) for _ in range(2)]
    plain = (False, 0.0, "identity", 0.0, "tanh", 0.0, True, rng.random() < 0.5)
    a = Attributes(stride, padding, [1, 1], output_padding, transposed, 1, *plain)
    return a, kernel, channels, size


DRAWS = [seed for seed in range(80) if min(output_size(draw(seed)[3], draw(seed)[1], draw(seed)[0])) > 0]


@pytest.mark.skipif(not NATIVE, reason="fastgan._C is not here: see fastgan info")
@pytest.mark.parametrize("seed", DRAWS)
def test_equals_the_reference(seed, monkeypatch):
    import fastgan.backends.native.conv_norm_act as native

    monkeypatch.setattr(native, "_around", lambda *_: native._MATMUL)
    reference = load("reference", "conv_norm_act")
    a, kernel, (c_in, c_out), size = draw(seed)
    x, bias = random_values((2, c_in, *size), seed), random_values((c_out,), seed + 1)
    weight = random_values((c_in, c_out, *kernel) if a.transposed else (c_out, c_in, *kernel), seed + 2)
    y = reference.conv_norm_act(x, weight, bias, *NO_NORM, *a)
    dy = random_values(tuple(y[0].shape), seed + 3)
    for name, arguments in (
        ("conv_norm_act", (x, weight, bias, *NO_NORM)),
        ("conv_norm_act_dx", (dy, y[0], weight, x, *NO_NORM)),
        ("conv_norm_act_dw", (x, *NO_NORM, dy, y[0], kernel)),
    ):
        got, exact = getattr(native, name)(*arguments, *a), getattr(reference, name)(*arguments, *a)
        torch.testing.assert_close(got, exact, atol=1e-11, rtol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.skipif(not NATIVE, reason="fastgan._C is not here: see fastgan info")
def test_long_sums_of_16_bit_units_only(monkeypatch):
    import fastgan.backends.native.conv_norm_act as native

    a = draw(0)[0]
    x = torch.empty(1, 128, 8, 8, dtype=torch.bfloat16)
    monkeypatch.setattr(processor, "multiplies", lambda dtype: dtype == torch.bfloat16)
    monkeypatch.setattr(native, "_in_pairs", lambda *_: False)
    assert native._around(x, None, (3, 128, 4, 4), NO_NORM, a) is native._MATMUL
    assert native._around(x, None, (3, 128, 3, 3), NO_NORM, a) is native._VENDOR
    assert native._around(x.float(), None, (3, 128, 4, 4), NO_NORM, a) is None
    assert native._around(x, None, (3, 128, 4, 4), NO_NORM, a._replace(dilation=[2, 1])) is native._VENDOR
    assert native._around(x.float(), None, (3, 128, 4, 4), NO_NORM, a._replace(groups=2)) is native._VENDOR
