"""``gradient_penalty_interpolate`` against ``t * real + (1 - t) * fake`` in plain PyTorch."""

from typing import NamedTuple

import pytest
import torch

from fastgan.backends.layout import accumulate_dtype, memory_format
from fastgan.ops.gradient_penalty import gradient_penalty_interpolate
from fastgan.testing import LAYOUTS, assert_close_to_gold, in_layout, random_values

from . import bodies
from .grid import DTYPES, grid


class MixCase(NamedTuple):
    """One configuration; the layouts are those of real and of fake."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    fake_layout: str = "contiguous"

    def __str__(self) -> str:
        return "-".join(("x".join(map(str, self.shape)), str(self.dtype)[6:], self.layout, self.fake_layout))


SHAPES = ((5, 3, 4, 7), (1, 3, 131, 257), (3, 2, 97, 89), (77, 2), (9, 5, 11), (4, 2, 3, 5, 7), (2, 65))
CASES = [MixCase(shape, dtype) for shape in SHAPES for dtype in DTYPES]
CASES += [MixCase(SHAPES[0], torch.float32, real, fake) for real in LAYOUTS for fake in LAYOUTS]
# for the interpreter, which takes 0.1 s a program
FEW = [case for case in CASES if case.shape[-1] < 80 and case.dtype != torch.bfloat16][::2]
both = pytest.mark.parametrize("stack", [False, True], ids=["alone", "stack"])


def _given(case, device):
    real, fake = (in_layout(random_values(case.shape, i, device).to(case.dtype), layout)
                  for i, layout in enumerate((case.layout, case.fake_layout)))  # fmt: skip
    t = random_values(case.shape[:1], 2, device).sigmoid().to(accumulate_dtype(case.dtype))
    return real, fake, t


def _stock(real, fake, t, dtype):
    share = t.to(dtype).reshape(-1, *[1] * (real.dim() - 1))
    return real.to(dtype) * share + (1 - share) * fake.to(dtype)


@both
@grid("gradient_penalty", CASES, FEW)
def test_forward(backend, device, case, stack):
    real, fake, t = _given(case, device)
    x = gradient_penalty_interpolate(real, fake, t, stack)
    assert x.dtype == case.dtype and x.is_contiguous(memory_format=memory_format(real))
    if stack:
        parts = x.unflatten(0, (3, case.shape[0]))
        assert torch.equal(parts[0], real) and torch.equal(parts[1], fake)
        x = parts[2]
    gold, low = _stock(real, fake, t, torch.float64), _stock(real, fake, t, t.dtype).to(case.dtype)
    assert_close_to_gold(x, gold, low, name=f"x of {case}")


@both
@grid("gradient_penalty", DTYPES)
def test_the_ends(backend, device, case, stack):
    real, fake, _ = _given(MixCase((4, 3, 2, 5), case), device)
    t = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=accumulate_dtype(case), device=device)
    x = gradient_penalty_interpolate(real, fake, t, stack)[-4:]
    assert torch.equal(x[1::2], real[1::2]) and torch.equal(x[::2], fake[::2])


@both
@grid("gradient_penalty", [torch.float16])
def test_a_fake_of_another_type(backend, device, case, stack):
    """A generator under autocast gives 16 bits."""
    real, fake, t = _given(MixCase((4, 3, 2, 5)), device)
    fake = fake.to(case)
    x = gradient_penalty_interpolate(real, fake, t, stack)
    assert torch.equal(x, gradient_penalty_interpolate(real, fake.float(), t, stack)) and x.dtype == torch.float32


@both
@grid("gradient_penalty", list(LAYOUTS), few=["contiguous", "channels_last"])
def test_opcheck(backend, device, case, stack):
    real, fake, t = _given(MixCase((3, 5, 4, 6), layout=case, fake_layout="channels_last"), device)
    bodies.check_op(False, torch.ops.fastgan.gradient_penalty_interpolate, (real, fake, t, stack))


@both
@grid("gradient_penalty", [torch.float32])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compile(backend, device, case, stack, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda *given: gradient_penalty_interpolate(*given, stack), fullgraph=True, dynamic=dynamic, backend="aot_eager"
    )
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in ((4, 3, 5, 7), (6, 3, 6, 8)) if dynamic else ((4, 3, 5, 7),):
            given = _given(MixCase(shape, case, "channels_last"), device)
            assert torch.equal(compiled(*given), gradient_penalty_interpolate(*given, stack))


@both
@grid("gradient_penalty", [(0, 3, 4, 4), (0, 3), (2, 0, 4)])
def test_empty_batch(backend, device, case, stack):
    x = torch.ones(case, device=device)
    t = torch.ones(case[0], device=device)
    assert gradient_penalty_interpolate(x, x, t, stack).shape == ((3 if stack else 1) * case[0], *case[1:])


@both
@grid("gradient_penalty", [(4, 3, 5, 7), (2, 3, 80, 81), (37, 3)])
def test_every_value_is_written(backend, device, case, stack, nan_in_new_memory):
    given = _given(MixCase(case), device)
    x = gradient_penalty_interpolate(*given, stack)
    assert x.isfinite().all()
    torch.use_deterministic_algorithms(False)
    assert torch.equal(x, gradient_penalty_interpolate(*given, stack))


@both
@grid("gradient_penalty", [(6, 3, 67, 71), (1, 3, 400, 401), (3000, 1, 3, 9)], few=[(2, 3, 67, 71)])
def test_same_bits_again_for_any_number_of_threads(backend, device, case, stack, threads):
    given = _given(MixCase(case), device)
    first = gradient_penalty_interpolate(*given, stack)
    for number in (1, 2, 3) if device == "cpu" and backend == "native" else (1, 1):
        threads(number)
        assert torch.equal(first, gradient_penalty_interpolate(*given, stack))
