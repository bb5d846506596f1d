"""Traces a ``forward`` written by hand and puts the fused groups into it, on the module's own children."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Callable
from typing import Any, Generic, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn

from fastgan.nn._fusion import traced_conv, traced_norm_act
from fastgan.nn._layers import ACT, CONV, NORM, kind_of
from fastgan.nn._source import Proof, Unproven

# activation, names of the arguments after the input
_FUNCTIONS: dict[Any, tuple[str, tuple[str, ...]]] = {
    F.relu: ("relu", ("inplace",)),
    F.leaky_relu: ("leaky_relu", ("negative_slope", "inplace")),
    F.silu: ("silu", ("inplace",)),
    torch.relu: ("relu", ()),
    torch.relu_: ("relu", ()),
    F.leaky_relu_: ("leaky_relu", ("negative_slope",)),
    torch.tanh: ("tanh", ()),
    torch.tanh_: ("tanh", ()),
    torch.sigmoid: ("sigmoid", ()),
    torch.sigmoid_: ("sigmoid", ()),
}
_METHODS = ("relu", "tanh", "sigmoid")
_IN_PLACE = (torch.relu_, F.leaky_relu_, torch.tanh_, torch.sigmoid_)
# what a value in forward is asked for without torch's functions
_PLAIN = {getattr, *(f for f in vars(operator).values() if callable(f))}


class Group(NamedTuple):
    """Layers that one op runs: their paths, None for those that are not there; ``function`` for an activation that is
    called by name."""

    conv: str | None
    norm: str | None
    act: str | None
    function: tuple[str, float, bool] | None
    act_first: bool


class Traced(NamedTuple):
    """A forward with fused groups in it: its code, the function, and the groups."""

    source: str
    forward: Callable[..., Any]
    groups: tuple[Group, ...]


class _Activation(NamedTuple):
    path: str | None
    function: tuple[str, float, bool] | None


class _Tracer(fx.Tracer):
    # attributes are read when the code runs
    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def why_not_convert(module: nn.Module) -> str:
    """Return why a module that is no Sequential of torch's keeps its class, empty if it may run another forward."""
    cls = type(module)
    if cls.__module__.split(".")[0] in ("torch", "fastgan"):
        return "it is a layer"
    if "_fastgan_source" in cls.__dict__:
        return "it is converted"
    if "forward" in module.__dict__ or "parametrizations" in module._modules:
        return "its forward is replaced, or it is parametrized"
    watchers = (c for c in cls.__mro__ if c not in (object, Generic) and "__init_subclass__" in c.__dict__)
    if type(cls) is not type or any(watchers):
        return "its class watches over its subclasses"
    if issubclass(cls, nn.Sequential) and cls.forward is nn.Sequential.forward:
        return "" if cls.__iter__ is nn.Sequential.__iter__ else "it goes through its children in its own way"
    return ""


def trace(module: nn.Module) -> Traced:
    """Return the module's forward with its groups fused.

    Raises: Unproven with the reason why it has to run its own forward.
    """
    if not any(kind_of(child) in (NORM, CONV) for child in module.modules()):
        raise Unproven("there is no batch norm and no convolution in it")
    proof = Proof(module)
    graph = _graphs_agree(module)
    _check(graph, proof)
    groups = tuple(_fuse(graph, module))
    if not groups:
        raise Unproven("no batch norm or convolution stands next to an activation in forward")
    for node in graph.nodes:
        # the annotations of forward, whose names need not be known here
        node.type = None
    code = graph.python_code("self")
    namespace = dict(code.globals)
    exec(compile(code.src, f"<fastgan: forward of {type(module).__name__}>", "exec"), namespace)
    return Traced(code.src, functools.update_wrapper(namespace["forward"], type(module).forward), groups)


def _graphs_agree(module: nn.Module) -> fx.Graph:
    training, graphs = module.training, []
    try:
        for module.training in (True, False):
            graphs.append(_Tracer().trace(module))
    except Exception as error:
        # fx runs the user's code, which may raise anything
        raise Unproven(
            f"torch.fx cannot trace forward: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error
    finally:
        module.training = training
    sources = [graph.python_code("self").src for graph in graphs]
    if sources[0] != sources[1]:
        raise Unproven("forward does something else in training than in evaluation")
    return graphs[0]


def _check(graph: fx.Graph, proof: Proof) -> None:
    """Compare the trace with the source: each call is there, once."""
    layers = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    calls = (node.target for node in graph.nodes if node.op == "call_function")
    functions = [target for target in calls if target not in _PLAIN]
    if Counter(layers) != Counter(proof.layers):
        raise Unproven("a layer is there under two names")
    if Counter(map(id, functions)) != Counter(map(id, proof.functions)):
        raise Unproven("forward calls a torch function that torch.fx takes apart")
    if any(node.op == "get_attr" and str(node.target).startswith("_tensor_constant") for node in graph.nodes):
        raise Unproven("forward makes a tensor of its own")


def _activation(node: fx.Node, module: nn.Module) -> _Activation | None:
    """Return what activation of its first argument a node is, None if it is none."""
    if not node.args or not isinstance(node.args[0], fx.Node):
        return None
    if node.op == "call_module":
        act = module.get_submodule(str(node.target))
        alone = kind_of(act) == ACT and len(node.args) == 1 and not node.kwargs
        return _Activation(str(node.target), None) if alone else None
    if node.op == "call_method":
        name = str(node.target)
        known = name.rstrip("_") in _METHODS and len(node.args) == 1 and not node.kwargs
        return _Activation(None, (name.rstrip("_"), 0.0, name.endswith("_"))) if known else None
    if node.op != "call_function" or node.target not in _FUNCTIONS:
        return None
    name, names = _FUNCTIONS[node.target]
    given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
    slope, in_place = given.get("negative_slope", 0.01), given.get("inplace", False)
    if (
        set(given) - set(names)
        or not isinstance(slope, (int, float))
        or not slope >= 0
        or not isinstance(in_place, bool)
    ):
        return None
    return _Activation(None, (name, float(slope), in_place or node.target in _IN_PLACE))


def _next(node: fx.Node) -> fx.Node:
    node = node.next
    while node.op in ("get_attr", "placeholder"):
        node = node.next
    return node


def _kind(node: fx.Node, module: nn.Module) -> int:
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs or not isinstance(node.args[0], fx.Node):
        return 0
    return kind_of(module.get_submodule(str(node.target)))


def _follows(node: fx.Node) -> fx.Node | None:
    """Return the next node if it takes the result of this one and nobody else does."""
    second = _next(node)
    return second if list(node.users) == [second] and second.args[:1] == (node,) else None


class _Found(NamedTuple):
    nodes: list[fx.Node]
    conv: fx.Node | None
    norm: fx.Node | None
    act: _Activation | None
    act_first: bool


def _match(first: fx.Node, module: nn.Module) -> _Found | None:
    """Return the group that a node begins; each node of it is the only user of the one before."""
    kind, nodes, norm, act, act_first = _kind(first, module), [first], None, None, False
    if kind == NORM:
        norm = first
    elif kind != CONV:
        act = _activation(first, module)
        # whoever made the input of an activation in place may hold it
        if act is None or (act.function is not None and act.function[2]):
            return None
        act_first = True
    for _ in range(2 if kind == CONV else 1):
        node = _follows(nodes[-1])
        if node is None:
            break
        if norm is None and _kind(node, module) == NORM:
            norm = node
        elif act is None and (found := _activation(node, module)) is not None:
            act, act_first = found, norm is None
        else:
            break
        nodes.append(node)
    if kind != CONV and (norm is None or act is None):
        return None
    both = norm is not None and act is not None
    return _Found(nodes, first if kind == CONV else None, norm, act, both and act_first)


def _fuse(graph: fx.Graph, module: nn.Module) -> list[Group]:
    groups = []
    node = next(iter(graph.nodes))
    while node.op != "output":
        found = _match(node, module)
        if found is None:
            node = node.next
            continue
        with graph.inserting_before(node):
            conv, norm = (None if n is None else graph.get_attr(str(n.target)) for n in (found.conv, found.norm))
            act: Any = None
            if found.act is not None:
                act = found.act.function if found.act.path is None else graph.get_attr(found.act.path)
            layers = (norm, act) if conv is None else (conv, norm, act)
            function = traced_norm_act if conv is None else traced_conv
            fused = graph.call_function(function, (node.args[0], *layers, found.act_first))
        found.nodes[-1].replace_all_uses_with(fused)
        for old in reversed(found.nodes):
            graph.erase_node(old)
        paths = [None if n is None else str(n.target) for n in (found.conv, found.norm)]
        path, called = found.act or (None, None)
        groups.append(Group(paths[0], paths[1], path, called, found.act_first))
        node = fused.next
    return groups
