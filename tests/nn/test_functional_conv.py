"""``conv_norm_act`` and ``conv_transpose_norm_act`` against torch's functions, and what they refuse."""

import pytest
import torch
import torch.nn.functional as F

from fastgan.nn.functional import conv_norm_act, conv_transpose_norm_act
from fastgan.testing import CountOps

from .common import assert_same, images

x = images()


def parameters(transposed, dtype=torch.float64):
    rng = torch.Generator().manual_seed(1)
    weight = torch.randn((3, 6, 4, 4) if transposed else (6, 3, 4, 4), generator=rng, dtype=torch.float64)
    vectors = [torch.randn(6, generator=rng, dtype=torch.float64) for _ in range(3)]
    return [t.to(dtype).requires_grad_() for t in (weight, *vectors)]


@pytest.mark.parametrize("order", ["norm act", "act norm", "act"])
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_equals_torch(backend, transposed, order, training):
    weight, bias, gamma, beta = parameters(transposed)
    ours, conv = (conv_transpose_norm_act, F.conv_transpose2d) if transposed else (conv_norm_act, F.conv2d)
    stats = [[torch.zeros(6).double(), torch.ones(6).double()] for _ in range(2)]
    arguments = {
        "norm": order != "act", "norm_weight": gamma, "norm_bias": beta, "running_mean": stats[0][0],
        "running_var": stats[0][1], "training": training, "act_first": order == "act norm",
    }  # fmt: skip
    y = ours(x, weight, bias, 2, 1, **arguments)
    z = conv(x, weight, bias, 2, 1)
    steps = {"norm": lambda t: F.batch_norm(t, *stats[1], gamma, beta, training), "act": lambda t: F.leaky_relu(t, 0.2)}
    for step in order.split():
        z = steps[step](z)
    wanted = (weight, bias, gamma, beta) if order != "act" else (weight, bias)
    assert_same([y, *torch.autograd.grad(y.sin().sum(), wanted)], [z, *torch.autograd.grad(z.sin().sum(), wanted)])
    assert_same(*stats)


def test_padding_same(backend):
    weight = torch.ones(2, 3, 3, 3).double()
    y = conv_norm_act(x, weight, padding="same", norm=False, activation="relu")
    assert_same([y], [F.conv2d(x, weight, padding="same").relu()])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": x[0]}, ValueError, r"x must have shape \(N, C, H, W\), got \(3, 16, 16\)"),
        ({"x": x.long()}, TypeError, "x must be float16, bfloat16, float32 or float64, got torch.int64"),
        ({"x": x.float()}, TypeError, "weight must be torch.float32, the dtype of x, got torch.float64"),
        ({"weight": None}, TypeError, "weight must be a Tensor, got NoneType"),
        (
            {"weight": torch.ones(6, 2, 4, 4)},
            ValueError,
            r"weight must have shape \(C_out, 3, kH, kW\) .* got \(6, 2, 4, 4\)",
        ),
        ({"groups": 2}, ValueError, "weight must have shape .* for 3 channels in 2 groups"),
        ({"groups": 0}, ValueError, "groups must be an integer >= 1, got 0"),
        ({"stride": 0}, ValueError, "stride must be an integer or a pair of integers >= 1, got 0"),
        ({"padding": (1, -1)}, ValueError, r"padding must be an integer or a pair of integers >= 0, got \(1, -1\)"),
        ({"dilation": 1.5}, ValueError, "dilation must be an integer"),
        ({"bias": torch.ones(3)}, ValueError, r"bias must be None or have shape \(6,\), .*, got \(3,\)"),
        ({"norm_weight": torch.ones(3)}, ValueError, r"norm_weight must have shape \(6,\)"),
        (
            {"training": False, "running_mean": None, "running_var": None},
            ValueError,
            "running_mean must be a Tensor when training is False, got None",
        ),
        ({"momentum": 2}, ValueError, r"momentum must be in \[0, 1\], got 2"),
        ({"eps": 0}, ValueError, "eps must be > 0, got 0"),
        ({"activation": "gelu"}, ValueError, "activation must be one of"),
        ({"negative_slope": -0.1}, ValueError, "negative_slope must be >= 0 and finite, got -0.1"),
        ({"stride": (1, 2, 3)}, ValueError, r"stride must be an integer or a pair of integers >= 1, got \(1, 2, 3\)"),
        ({"stride": 2, "padding": "same"}, ValueError, "padding must be a number when stride is not 1, got 'same'"),
        ({"weight": torch.ones(6, 3, 4).double()}, ValueError, r"weight must have shape .* got \(6, 3, 4\)"),
        (
            {"x": images(channels=4), "weight": torch.ones(5, 2, 4, 4).double(), "groups": 2},
            ValueError,
            "groups must divide the 5 rows of weight, got 2",
        ),
        (
            {"weight": torch.ones(6, 3, 17, 4).double()},
            ValueError,
            r"x must be at least as large as the kernel \(17, 4\)",
        ),
        ({"dilation": 6}, ValueError, r"x must be at least as large as the kernel \(4, 4\) with its padding"),
        (
            {"weight": torch.ones(6, 3, 4, 4, device="meta").double()},
            ValueError,
            "weight must be on cpu, the device of x, got meta",
        ),
        ({"bias": torch.ones(6, device="meta")}, ValueError, "bias must be on cpu, the device of x, got meta"),
        (
            {"norm_bias": torch.ones(6, device="meta")},
            ValueError,
            "norm_bias must be on cpu, the device of x, got meta",
        ),
        ({"running_mean": None}, ValueError, "running_mean and running_var must be given together"),
        (
            {"x": x[:1, :, :4, :4]},
            ValueError,
            r"the result of the convolution must have more than 1 value per channel .* got shape \(1, 6, 1, 1\)",
        ),
    ],
)
def test_rejects(change, error, message):
    statistics = {"running_mean": torch.zeros(6).double(), "running_var": torch.ones(6).double()}
    arguments = {"x": x, "weight": parameters(False)[0], **statistics} | change
    with CountOps("aten") as aten, CountOps() as ours, pytest.raises(error, match=f"^conv_norm_act: .*{message}"):
        conv_norm_act(**arguments)
    # nothing was computed, and nothing written
    assert not ours.calls and aten["convolution"] == 0
    assert not statistics["running_mean"].any() and statistics["running_var"].eq(1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output_padding": 2}, "output_padding must be smaller than stride or dilation, got 2"),
        ({"output_padding": (0, 2)}, r"output_padding must be smaller than stride or dilation, got \(0, 2\)"),
        ({"output_padding": -1}, "output_padding must be an integer or a pair of integers >= 0, got -1"),
        ({"padding": -1}, "padding must be an integer or a pair of integers >= 0, got -1"),
        ({"groups": 2}, "weight must have shape .* for 3 channels in 2 groups"),
        ({"bias": torch.ones(3).double()}, r"bias must be None or have shape \(6,\), .*, got \(3,\)"),
        ({"padding": 19}, r"x must be at least as large as the kernel \(4, 4\) with its padding, got \(16, 16\)"),
        ({"norm_weight": torch.ones(3).double()}, r"norm_weight must have shape \(6,\)"),
    ],
)
def test_transposed_rejects_with_the_name_of_the_argument(change, message):
    raises = pytest.raises(ValueError, match=f"^conv_transpose_norm_act: {message}")
    with CountOps("aten") as aten, CountOps() as ours, raises:
        conv_transpose_norm_act(x, parameters(True)[0], stride=2, **change)
    assert not ours.calls and aten["convolution"] == 0


@pytest.mark.parametrize(("stride", "dilation", "output_padding"), [(1, 2, 1), (3, 1, 2), (2, 3, 2)])
def test_takes_every_output_padding_that_torch_takes(backend, stride, dilation, output_padding):
    sizes = {"stride": stride, "dilation": dilation, "output_padding": output_padding}
    weight = parameters(True)[0]
    y = conv_transpose_norm_act(x, weight, norm=False, activation="identity", **sizes)
    assert_same([y], [F.conv_transpose2d(x, weight, **sizes)])


def test_transposed_rejects():
    weight = torch.ones(6, 3, 4, 4).double()
    with pytest.raises(
        ValueError, match=r"^conv_transpose_norm_act: weight must have shape \(3, C_out / groups, kH, kW\)"
    ):
        conv_transpose_norm_act(x, weight)
    with pytest.raises(ValueError, match="padding must be an integer or a pair of integers >= 0, got 'same'"):
        conv_transpose_norm_act(x, weight.transpose(0, 1), padding="same")


def test_autocast_takes_float32_weights(backend):
    weight = parameters(False, torch.float32)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert conv_norm_act(x.float(), weight, stride=2).dtype == torch.bfloat16
