"""Spectral norm for any layer, with the names and keys of ``torch.nn.utils.parametrizations``; batches in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn import utils as torch_utils
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrizations import spectral_norm as torch_spectral_norm
from torch.nn.utils.spectral_norm import SpectralNorm as _Hook

from fastgan.nn._parts import separate_statistics
from fastgan.nn._power_iteration import Weight, by_kind, iterate
from fastgan.nn._spectral_norm import SpectralNorm, hooks, norms, parametrizations
from fastgan.nn._take_over import forget_legacy_keys, make_fastgans, read_legacy_keys

__all__ = ["SpectralNormGroup", "remove_spectral_norm", "separate_statistics", "spectral_norm"]


def spectral_norm(
    module: nn.Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
    *,
    per: str = "read",
) -> nn.Module:
    r"""Divide a weight by its spectral norm, the largest singular value, at each read.

    Equal to ``torch.nn.utils.parametrizations.spectral_norm``: the same buffers for the same seed, the same 15
    iterations first, ``n_power_iterations`` at each read in training and none in evaluation. The state_dict has its
    keys; ``load_state_dict`` also takes ``weight_orig, weight_u, weight_v`` of ``torch.nn.utils.spectral_norm``.
    Iteration and gradient are one op each; a converted or ``fastgan.nn.Sequential`` iterates all its layers in one.
    Under autocast sigma is computed in the weight's dtype, where torch rounds it. Differentiable twice, u and v count
    as constants.

    Args:
        module: any module; changed in place.
        name: of a parameter of 1 to any dimensions; with one dimension it is divided by its norm.
        n_power_iterations: at each read, > 0.
        eps: the least norm to divide by while iterating, > 0.
        dim: the dimension of outputs; None for 1 in transposed convolutions, else 0.
        per: ``read``, as in torch, or ``step``: iterate at the first read in training after an optimiser's step, or
            after weight or buffers have changed otherwise (by identity or version, which ``weight.data`` does not
            change), and let the reads that follow share sigma, as D(real), D(fake) and the penalty of a step do.
            Replicas of DataParallel and code under ``torch.compile`` iterate at each read. ``SpectralNormGroup.step``
            iterates now, which a captured CUDA graph needs once for each step in it.
    Returns: the same module.
    Raises: ValueError naming the argument, IndexError for a dim that the weight does not have.
    Source: Miyato et al. 2018, algorithm 1.
    """
    if per not in ("read", "step"):
        raise ValueError(f"spectral_norm: per must be 'read' or 'step', got {per!r}")
    # torch registers its own, so that random numbers and the first iterations are its own, too
    torch_spectral_norm(module, name, n_power_iterations, eps, dim)
    each: Any = dict(parametrizations(module))[name]
    norm = make_fastgans(each[-1])
    if per != norm.per:
        norm.per = per
    read_legacy_keys(module, name)
    return module


def remove_spectral_norm(module: nn.Module, name: str = "weight") -> nn.Module:
    r"""Take the spectral norm of a weight away, fastgan's or torch's, and leave the weight as a read returns it.

    In training a parametrization iterates once more, as ``torch.nn.utils.parametrize.remove_parametrizations`` does.

    Args:
        module: changed in place.
        name: of the weight.
    Returns: the same module.
    Raises: ValueError if ``name`` has no spectral norm, or other parametrizations beside it.
    """
    each: Any = dict(parametrizations(module)).get(name, ())
    if any(isinstance(p, _SpectralNorm) for p in each):
        if len(each) > 1:
            raise ValueError(f"remove_spectral_norm: name must have no other parametrization, got {name!r}")
        parametrize.remove_parametrizations(module, name)
    elif any(isinstance(hook, _Hook) and hook.name == name for hook in module._forward_pre_hooks.values()):
        torch_utils.remove_spectral_norm(module, name)
    else:
        raise ValueError(f"remove_spectral_norm: name must be that of a weight with spectral norm, got {name!r}")
    forget_legacy_keys(module, name)
    return module


class SpectralNormGroup:
    r"""The spectral norms of a model that are fastgan's, its own and those that ``convert`` took over.

    ``len`` counts them, iteration goes over the names of the weights, such as ``main.0.weight``.

    Args:
        model: any module; spectral norms that are added to it later are not in the group.
    Raises: TypeError if model is not a module.
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"SpectralNormGroup: model must be a torch.nn.Module, got {type(model).__name__}")
        self._norms: dict[str, tuple[nn.Module, SpectralNorm] | None] = {}
        for path, module in model.named_modules():
            prefix = f"{path}." if path else ""
            for name, norm, _ in norms(module):
                self._norms[prefix + name] = module.parametrizations[name], norm  # type: ignore[index,operator]
            self._norms.update((prefix + hook.name, None) for hook in hooks(module))

    def step(self) -> None:
        r"""Iterate all layers with ``per="step"`` now, in one call for each dtype, device and number of iterations.

        The reads that follow share the result until the weights change. Layers in evaluation are left alone, and so are
        those with ``per="read"``, which iterate at each read anyway: one more would part them from torch's.
        """
        found: dict[int, SpectralNorm] = {}
        weights: list[Weight] = []
        for entry in self._norms.values():
            if entry is None or entry[1].per != "step":
                continue
            w = entry[1].look(entry[0].original)  # type: ignore[arg-type]
            if w is not None and w.iterations:
                found[id(w.u)] = entry[1]
                weights.append(w)
        for batch in by_kind(weights):
            for w, estimate in zip(batch, iterate(batch), strict=True):
                found[id(w.u)].keep(w, estimate)

    def __len__(self) -> int:
        return len(self._norms)

    def __iter__(self) -> Iterator[str]:
        return iter(self._norms)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self)})"
