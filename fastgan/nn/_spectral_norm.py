"""Spectral norm on a layer's weight: torch's parametrization and torch's older hook, on fastgan's ops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm as _Hook

from fastgan import ops
from fastgan.nn._kept import Kept
from fastgan.nn._plain import why_not_module
from fastgan.nn._power_iteration import (
    Batch,
    Estimate,
    Weight,
    by_kind,
    full_precision,
    is_ahead,
    iterate,
    put_ahead,
    take_ahead,
    write,
)

_KEPT = "_fastgan_kept"


class SpectralNorm(_SpectralNorm):
    """torch's parametrization with its iteration in one op; whatever the op does not serve goes torch's way.

    per: ``read``, as in torch, or ``step``: reads share an estimate until the weight changes.
    """

    per = "read"

    def wants(self, weight: Tensor) -> Weight | None:
        """Return what a read needs, served or not; None without vectors."""
        u, v = self._buffers.get("_u"), self._buffers.get("_v")
        if u is None or v is None:
            return None
        return Weight(weight, u, v, self.dim, self.n_power_iterations if self.training else 0, self.eps, False)

    def look(self, weight: Tensor) -> Weight | None:
        """Return what a read needs, None if it has to go torch's way."""
        w = self.wants(weight)
        return w if w is not None and w.served() else None

    def kept(self, w: Weight) -> Estimate | None:
        """Return the estimate that reads share, None if there is none or the weight has changed since."""
        kept = self.__dict__.get(_KEPT)
        if kept is None or not w.iterations or torch.compiler.is_compiling():
            return None
        return kept.found if kept.holds(w) else None

    def keep(self, w: Weight, found: Estimate) -> None:
        """Write an estimate into the buffers and let the reads that follow share it, if they may."""
        write(w, found)
        # autograd cannot save what inference mode made
        if self.per == "step" and w.iterations and not torch.compiler.is_compiling() and not found.u.is_inference():
            self.__dict__[_KEPT] = Kept(w, found)

    def read(self, weight: Tensor) -> tuple[Batch, int] | None:
        """Return the batch that holds the estimate for this read, and the weight's place in it, None for torch's."""
        w = self.wants(weight)
        if w is None:
            return None
        # what was iterated ahead was served before
        ahead = None if torch.compiler.is_compiling() else take_ahead(w)
        if ahead is None and not w.served():
            return None
        kept = self.kept(w)
        batch, i = ahead or (Batch([w], [kept] if kept else iterate([w])), 0)
        if not kept:
            self.keep(w, batch.found[i])
        return batch, i

    def forward(self, weight: Tensor) -> Tensor:
        found = self.read(weight)
        if found is None:
            with full_precision(weight.device):
                return super().forward(weight)
        return scaled(*found)

    def _get_name(self) -> str:
        return _SpectralNorm.__name__

    def extra_repr(self) -> str:
        return "" if self.per == "read" else f"per={self.per!r}"

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != _KEPT}


class LegacySpectralNorm(_Hook):
    """torch's forward pre-hook with its iteration in one op; whatever the op does not serve goes torch's way."""

    def wants(self, module: nn.Module, do_power_iteration: bool) -> Weight:
        """Return what a call needs, served or not."""
        weight, u, v = (getattr(module, self.name + suffix) for suffix in ("_orig", "_u", "_v"))
        return Weight(weight, u, v, self.dim, self.n_power_iterations if do_power_iteration else 0, self.eps, True)

    def look(self, module: nn.Module, do_power_iteration: bool) -> Weight | None:
        """Return what a call needs, None if it has to go torch's way."""
        w = self.wants(module, do_power_iteration)
        return w if w.served() else None

    def read(self, module: nn.Module, do_power_iteration: bool) -> tuple[Batch, int] | None:
        """Return the batch that holds the estimate for this call, and the weight's place in it, None for torch's."""
        w = self.wants(module, do_power_iteration)
        ahead = None if torch.compiler.is_compiling() else take_ahead(w)
        if ahead is None and not w.served():
            return None
        batch, i = ahead or (Batch([w], iterate([w])), 0)
        write(w, batch.found[i])
        return batch, i

    def compute_weight(self, module: nn.Module, do_power_iteration: bool) -> Tensor:
        found = self.read(module, do_power_iteration)
        if found is None:
            with full_precision(getattr(module, self.name + "_orig").device):
                return super().compute_weight(module, do_power_iteration)
        return scaled(*found)


def scaled(batch: Batch, i: int) -> Tensor:
    """Return weight i of a batch over its sigma."""
    w = batch.weights[i]
    return ops.spectral_norm.spectral_norm_scale(w.weight, *batch.found[i], w.dim)


def parametrizations(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield name and ParametrizationList of each parametrized tensor of a module itself."""
    lists = module._modules.get("parametrizations")
    if isinstance(lists, nn.ModuleDict):
        yield from lists._modules.items()


def norms(module: nn.Module) -> Iterator[tuple[str, SpectralNorm, Tensor]]:
    """Yield name, parametrization and stored weight of each weight of a module that fastgan's normalises first."""
    for name, each in parametrizations(module):
        first = each._modules.get("0")
        if type(first) is SpectralNorm and each.is_tensor:
            yield name, first, each.original


def hooks(module: nn.Module) -> Iterator[LegacySpectralNorm]:
    """Yield the hooks of a module that fastgan took over."""
    for hook in module._forward_pre_hooks.values():
        if type(hook) is LegacySpectralNorm:
            yield hook


def _looks(children: list[nn.Module]) -> Iterator[tuple[Weight, Estimate | None]]:
    """Yield what the next reads of children's weights need, and the estimate that is there already."""
    for child in children:
        if "parametrizations" in child._modules:
            for _, norm, weight in norms(child):
                if (w := norm.look(weight)) is not None:
                    yield w, norm.kept(w)
        if child._forward_pre_hooks:
            for hook in hooks(child):
                if (w := hook.look(child, child.training)) is not None:
                    yield w, None
        if isinstance(child, nn.Sequential):
            yield from _looks(list(child._modules.values()))  # type: ignore[arg-type]
        elif "conv" in child._modules:
            # a ConvNormAct2d
            yield from _looks([child._modules["conv"]])  # type: ignore[list-item]


def prefetch(children: list[nn.Module]) -> list[int]:
    """Iterate all that the children's next reads will want, in one call for each kind.

    Each estimate waits for the next read of its weight, in this thread, and is as good as one made then.

    Returns: keys for ``forget``.
    """
    keys: list[int] = []
    if torch.compiler.is_compiling():
        return keys
    kept, seen = {}, {}
    for w, estimate in _looks(children):
        if not is_ahead(w):
            seen[id(w.u)], kept[id(w.u)] = w, estimate
    for weights in by_kind(seen.values()):
        if len(weights) == 1:
            continue
        new = [w for w in weights if kept[id(w.u)] is None]
        found = dict(zip((id(w.u) for w in new), iterate(new) if new else (), strict=True))
        keys += put_ahead(Batch(weights, [kept[id(w.u)] or found[id(w.u)] for w in weights]))
    return keys


def read_weight(module: nn.Module) -> Tensor:
    """Return ``module.weight`` as a call of the module would find it: hooks that fastgan took over run first."""
    for hook in hooks(module):
        hook(module, ())
    return module.weight  # type: ignore[return-value]


def folded_weight(conv: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Return the weight of a convolution before its spectral norm, and 1 / sigma, for the op to scale its result with.

    This is one read, as ``read_weight`` is. The gradient for the weight returned must be that of weight / sigma; one
    backward serves all weights that were prefetched together. An older hook's ``conv.weight`` is set all the same.

    Returns: the weight, in its dtype, and 1 / sigma, without dimensions or gradient, in the accumulation type; None
        if the weight has no spectral norm of fastgan's, or another parametrization or hook, or outside eager mode:
        nothing was read then.
    """
    if torch.compiler.is_compiling() or parametrize._cache_enabled:
        return None
    hook = next(hooks(conv), None) if conv._forward_pre_hooks else None
    if hook is not None:
        return _folded_by_hook(conv, hook)
    lists = conv._modules.get("parametrizations")
    each = lists._modules.get("weight") if isinstance(lists, nn.ModuleDict) else None
    if each is None or len(each._modules) != 1 or type(each._modules["0"]) is not SpectralNorm:
        return None
    norm = each._modules["0"]
    found = None if why_not_module(each) or why_not_module(norm) else norm.read(each.original)  # type: ignore[arg-type]
    return None if found is None else found[0].folded(found[1])


def _folded_by_hook(conv: nn.Module, hook: LegacySpectralNorm) -> tuple[Tensor, Tensor] | None:
    found = hook.read(conv, conv.training) if len(conv._forward_pre_hooks) == 1 and hook.name == "weight" else None
    if found is None:
        return None
    # a plain attribute, which others may read after the call
    conv.weight = scaled(*found)
    return found[0].folded(found[1])
