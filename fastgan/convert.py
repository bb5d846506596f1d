"""Runs the stock layers of a model through fused ops, in place, and back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from torch import nn

from fastgan.nn._explain import explain
from fastgan.nn._layers import CONVERTED
from fastgan.nn._source import Unproven
from fastgan.nn._take_over import give_back, take_over
from fastgan.nn._trace import trace, why_not_convert
from fastgan.nn.sequential import Sequential, run_children

__all__ = ["convert", "explain", "revert"]


def convert(model: nn.Module) -> nn.Module:
    r"""Run the stock layers of a model through fused ops; the model keeps its children, parameters, buffers and hooks.

    Each ``torch.nn.Sequential`` in it becomes a ``fastgan.nn.Sequential``. A module that calls batch norm, convolution
    and activation by hand in ``forward`` gets a forward with the fused ops in it, where the source proves that this
    does the same; else it is left, and only what is inside it is converted. ``fastgan.explain`` says which, and why.
    Spectral norms of ``torch.nn.utils`` and of ``torch.nn.utils.parametrizations`` iterate by fastgan's op, those of a
    Sequential all in one call; each loads the keys of the other, too, and keeps writing its own.
    Converting twice changes nothing. Optimisers, state_dict and checkpoints do not notice.

    Args:
        model: any module; changed in place.
    Returns: the same object.
    Raises: TypeError if model is not a module.
    """
    _check("convert", model)
    for module in list(model.modules()):
        take_over(module)
        _convert_one(module)
    return model


def revert(model: nn.Module) -> nn.Module:
    r"""Undo ``convert``: each module in the model has its own class again, and no attribute is left over.

    Args:
        model: any module; changed in place. What was not converted, such as a ``fastgan.nn.Sequential`` written by
            hand, stays as it is.
    Returns: the same object.
    Raises: TypeError if model is not a module.
    """
    _check("revert", model)
    for module in list(model.modules()):
        if type(module) is Sequential and module.__dict__.pop(CONVERTED, False):
            module.__class__ = nn.Sequential  # type: ignore[assignment]
        elif "_fastgan_source" in type(module).__dict__:
            module.__class__ = type(module).__base__  # type: ignore[assignment]
        give_back(module)
    return model


def _check(name: str, model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name}: model must be a torch.nn.Module, got {type(model).__name__}")


def _convert_one(module: nn.Module) -> None:
    cls = type(module)
    if cls is nn.Sequential:
        if "forward" not in module.__dict__:
            module.__class__ = Sequential
            module.__dict__[CONVERTED] = True
        return
    if why_not_convert(module):
        return
    if issubclass(cls, nn.Sequential) and cls.forward is nn.Sequential.forward:
        module.__class__ = _subclass(cls, "", run_children, ())
        return
    # what cannot be proved stays as it is; explain finds the reason again
    with contextlib.suppress(Unproven):
        traced = trace(module)
        module.__class__ = _subclass(cls, traced.source, traced.forward, traced.groups)


def _subclass(cls: Any, source: str, forward: Callable[..., Any] | None, groups: tuple[Any, ...]) -> Any:
    """Return the subclass of a user's class that runs ``forward``, the one there is if it is in use somewhere."""
    for known in cls.__subclasses__():
        if known.__dict__.get("_fastgan_source") == source:
            return known
    members: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__reduce_ex__": _reduce_ex,
        "_fastgan_source": source,
        "_fastgan_groups": groups,
        "forward": forward,
    }
    return type(cls.__name__, (cls,), members)


def _reduce_ex(self: Any, protocol: Any) -> Any:
    converted = type(self)
    # the user's class pickles itself in its own way
    self.__class__ = converted.__base__
    try:
        function, arguments, *rest = self.__reduce_ex__(protocol)
    finally:
        self.__class__ = converted
    return _rebuild, (function, arguments), *rest


def _rebuild(function: Callable[..., Any], arguments: tuple) -> Any:
    """Make an object of the user's class that converts itself again as soon as it has its state."""
    module = function(*arguments)
    cls = type(module)

    def set_state(self: Any, state: Any) -> None:
        self.__class__ = cls
        self.__setstate__(state)
        _convert_one(self)

    module.__class__ = type(cls.__name__, (cls,), {"__module__": cls.__module__, "__setstate__": set_state})
    return module
