"""Two batches in one pass, with batch norm by the statistics of each: nobody can tell it from two passes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import grad

import fastgan
import fastgan.nn as fnn
from fastgan.nn.utils import separate_statistics

from .common import assert_same, fused_calls, images
from .parallel import in_two_processes
from .zoo import Block


class Lone(nn.Module):
    """Norms that no group holds."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.BatchNorm2d(3), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.last(self.first(x * 2).mean((2, 3)) * 3)


def critic():
    return nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 5, 4, 2, 1), nn.BatchNorm2d(5), nn.LeakyReLU(0.2),
        nn.Conv2d(5, 6, 3), nn.ReLU(), nn.BatchNorm2d(6, momentum=None), nn.Conv2d(6, 4, 2),
        nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(),
    )  # fmt: skip


def own_modules():
    return nn.Sequential(
        fnn.ConvNormAct2d(3, 4, 3), fnn.ConvTransposeNormAct2d(4, 5, 3, 2, activation="silu", act_first=True),
        fnn.BatchNormAct2d(5, activation="tanh"), nn.Conv2d(5, 2, 3), fnn.BatchNormAct2d(2, act_first=True),
        nn.Flatten(),
    )  # fmt: skip


def clips():
    return nn.Sequential(
        nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 4, (1, 4, 4), 2), nn.BatchNorm3d(4), nn.LeakyReLU(0.2), nn.Flatten()
    )


MODELS = {"critic": critic, "block": Block, "lone": Lone, "own_modules": own_modules, "clips": clips}


def made(name):
    torch.manual_seed(0)
    model = MODELS[name]().double()
    for p in model.parameters():
        nn.init.normal_(p)
    return model


def found(model, together, x):
    """Return results, gradients and buffers of x's halves, in one pass or two."""
    x = x.clone().requires_grad_()
    if together:
        with separate_statistics(model, 2):
            y = result(model(x))
    else:
        y = torch.cat([result(model(half)) for half in x.chunk(2)])
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    gradients = grad((y * weights).sum(), [x, *model.parameters()], create_graph=True, allow_unused=True)
    second = grad(gradients[0].square().sum(), [x, *model.parameters()], allow_unused=True)
    return [y, *gradients, *second, *model.buffers()]


def result(y):
    return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("converted", [False, True], ids=["stock", "converted"])
@pytest.mark.parametrize("name", MODELS)
def test_one_pass_is_two_passes(backend, name, converted):
    models = [made(name) for _ in range(2)]
    if converted:
        fastgan.convert(models[0])
    x = images(6).double()
    assert_same(found(models[0], True, x), found(models[1], False, x))


def test_statistics_of_all_would_be_others(backend):
    model, x = made("critic"), images(6).double()
    with separate_statistics(model, 2):
        apart = model(x)
    assert (apart - model(x)).abs().max() > 1e-3


def test_three_parts(backend):
    model, twin, x = fastgan.convert(made("critic")), made("critic"), images(6).double()
    with separate_statistics(model, 3):
        y = model(x)
    torch.testing.assert_close(y, torch.cat([twin(part) for part in x.chunk(3)]))
    assert_same(list(model.buffers()), list(twin.buffers()))


def test_convolutions_see_all_and_norms_a_part(backend):
    model = fastgan.convert(made("critic"))
    with separate_statistics(model, 2):
        assert fused_calls(model, images(6).double()) == {"conv_norm_act": 4, "norm_act": 6}


def test_evaluation_is_as_ever(backend):
    model, x = fastgan.convert(made("critic")).eval(), images(6).double()
    # without running statistics those of the batch are taken
    model[9].track_running_stats = True
    model[9].running_mean, model[9].running_var = torch.zeros(4).double(), torch.ones(4).double()
    before = [buffer.clone() for buffer in model.buffers()]
    with separate_statistics(model, 2):
        y = model(x)
    torch.testing.assert_close(y, model(x))
    assert_same(list(model.buffers()), before)


def test_a_forward_of_the_users_own_is_called_for_each_part(backend):
    model, twin, x = fastgan.convert(made("critic")), made("critic"), images(6).double()
    for each in (model, twin):
        each[3].forward = lambda x: x - x.mean()
    own = model[3].forward
    with separate_statistics(model, 2):
        y = model(x)
    torch.testing.assert_close(y, torch.cat([twin(half) for half in x.chunk(2)]))
    assert model[3].forward is own


def test_nothing_is_left_behind(backend):
    model = fastgan.convert(made("critic"))
    before = [set(module.__dict__) for module in model.modules()]
    with pytest.raises(RuntimeError), separate_statistics(model, 2):
        model(torch.zeros(4, 7, 16, 16, dtype=torch.float64))
    assert [set(module.__dict__) for module in model.modules()] == before
    copy.deepcopy(model)


def test_within_another_the_parts_are_parted_again(backend):
    model, twin, x = made("lone"), made("lone"), images(8).double()
    with separate_statistics(model, 2), separate_statistics(model, 2):
        y = model(x)
    torch.testing.assert_close(y, torch.cat([twin(part) for part in x.chunk(4)]))


@pytest.mark.parametrize("converted", [False, True], ids=["stock", "converted"])
def test_parts_that_cannot_be(backend, converted):
    model = fastgan.convert(made("critic")) if converted else made("critic")
    with pytest.raises(ValueError, match=r"parts must be >= 1, got 0"), separate_statistics(model, 0):
        pass
    with pytest.raises(ValueError, match=r"parts must divide the batch of 5, got 2"), separate_statistics(model, 2):
        model(images(5).double())
    with pytest.raises(ValueError, match="more than 1 value per channel"), separate_statistics(model, 2):
        F.mse_loss(model[9](torch.zeros(2, 4, 1, 1, dtype=torch.float64)), torch.zeros(()))


def _share(rank):
    torch.manual_seed(0)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(fastgan.convert(made("critic")))
    x = images(8).double()
    mine = torch.cat([half.chunk(2)[rank] for half in x.chunk(2)])
    with separate_statistics(model, 2):
        y = model(mine)
    return [y.detach(), *model.buffers()]


def test_synchronised_over_processes(tmp_path):
    model, x = made("critic"), images(8).double()
    halves = [model(half) for half in x.chunk(2)]
    (first, *buffers), (second, *_) = in_two_processes(_share, tmp_path)
    mine = [torch.cat(parts) for parts in zip(*(half.chunk(2) for half in halves), strict=True)]
    assert_same([first, second, *buffers], [*mine, *model.buffers()])


def test_an_empty_batch_is_counted_as_often():
    model, twin = made("critic"), made("critic")
    empty = torch.zeros(0, 5, 4, 4, dtype=torch.float64)
    with separate_statistics(model, 2):
        model[3](empty)
    twin[3](empty), twin[3](empty)
    assert_same(list(model.buffers()), list(twin.buffers()))


def test_code_compiled_before_sees_the_parts(backend):
    model, twin, x = fastgan.convert(made("critic")), made("critic"), images(6).double()
    compiled = torch.compile(model, backend="eager")
    compiled(x), twin(x)
    with separate_statistics(model, 2):
        y = compiled(x)
    torch.testing.assert_close(y, torch.cat([twin(half) for half in x.chunk(2)]))
    torch.compiler.reset()


class Conditional(nn.BatchNorm2d):
    def forward(self, x, label):
        return super().forward(x) + label


def test_the_input_has_a_name_and_is_alone():
    norm, x = nn.BatchNorm2d(3), images(4).float()
    with separate_statistics(norm, 2):
        assert torch.equal(norm(input=x), norm(x))
    several = pytest.raises(ValueError, match="must have batch norms of one input, got Conditional")
    with several, separate_statistics(Conditional(3), 2):
        pass
