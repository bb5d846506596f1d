"""Proves from the source of a ``forward`` that a trace of it is the whole of it, or says what stands against that.

torch.fx runs ``forward`` once and records what happens to the inputs. All else is baked in: control flow, attributes,
global state, random numbers, context managers. So a trace is accepted only of straight-line code that does nothing but
call layers, torch functions with an input among their arguments, and methods of what came from an input.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

# values an argument may have; a bool could be a switch that somebody turns
_CONSTANTS = (torch.dtype, torch.memory_format, torch.layout, torch.device, int, float)
_IDENTITIES = (ast.Is, ast.IsNot, ast.In, ast.NotIn)
# they are written as a method call, and so traced
_METHODS = (F.tanh, F.sigmoid)


class Unproven(Exception):
    """The reason why a module has to run its own ``forward``."""


class _Traced:
    """Marks an expression that comes from an input, a layer, a parameter or a buffer."""


_TRACED = _Traced()


class Proof:
    """What the trace of ``module.forward`` must contain.

    Attributes:
        layers: the path of each layer called, in the order of the source.
        functions: each torch function called.
    Raises: Unproven with the reason.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.layers: list[str] = []
        self.functions: list[Any] = []
        function = type(module).forward
        definition = _definition(function)
        self.globals = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
        first, *inputs = [a.arg for a in definition.args.args]
        self.locals: dict[str, Any] = {first: ("", module), **dict.fromkeys(inputs, _TRACED)}
        self.self_name = first
        *body, last = definition.body
        for statement in body:
            self._statement(statement)
        if not isinstance(last, ast.Return) or last.value is None:
            raise Unproven("forward does not end with a return of its result")
        self._argument(last.value)

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Expr):
            self._argument(node.value)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            self._assign(node.targets[0], self._argument(node.value))
        else:
            raise Unproven(f"forward has a {type(node).__name__} statement (line {node.lineno} of it)")

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, (ast.Tuple, ast.List)) and value is _TRACED:
            for item in target.elts:
                self._assign(item, value)
        elif isinstance(target, ast.Name) and target.id != self.self_name:
            self.locals[target.id] = value
        else:
            raise Unproven(f"forward assigns to {ast.unparse(target)}")

    def _argument(self, node: ast.expr) -> Any:
        """Return _TRACED or None, for a constant."""
        value = self._value(node)
        if value is None or value is _TRACED:
            return value
        if isinstance(value, _CONSTANTS) and not isinstance(value, bool):
            return None
        raise Unproven(f"forward uses {ast.unparse(node)} as a value")

    def _any(self, *nodes: ast.expr | None) -> Any:
        # all are looked at, the first traced one does not end the search
        values = [self._argument(node) for node in nodes if node is not None]
        return _TRACED if _TRACED in values else None

    def _value(self, node: ast.expr) -> Any:
        """Return _TRACED, None for a constant, (path, module), or an object of torch."""
        if isinstance(node, ast.Constant):
            return None
        if isinstance(node, (ast.Tuple, ast.List)):
            return self._any(*node.elts)
        if isinstance(node, ast.Slice):
            return self._any(node.lower, node.upper, node.step)
        if isinstance(node, ast.BinOp):
            return self._any(node.left, node.right)
        if isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Not):
            return self._any(node.operand)
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and not isinstance(node.ops[0], _IDENTITIES):
            return self._any(node.left, *node.comparators)
        if isinstance(node, ast.Subscript):
            return self._subscript(node)
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        raise Unproven(f"forward uses {ast.unparse(node)}")

    def _name(self, name: str) -> Any:
        if name in self.locals:
            return self.locals[name]
        value = self.globals.get(name)
        if _is_torch(value):
            return value
        raise Unproven(f"forward uses {name}, which is neither an input nor torch's")

    def _attribute(self, node: ast.Attribute) -> Any:
        base = self._value(node.value)
        if base is _TRACED:
            return _TRACED
        if isinstance(base, tuple):
            return self._member(base[0], base[1], node.attr)
        value = getattr(base, node.attr, None) if isinstance(base, types.ModuleType) else None
        if value is not None and (_is_torch(value) or isinstance(value, _CONSTANTS)):
            return value
        raise Unproven(f"forward uses {ast.unparse(node)}")

    def _member(self, path: str, module: nn.Module, name: str) -> Any:
        value = getattr(module, name, None)
        child = module._modules.get(name)
        if child is not None and value is child:
            return f"{path}.{name}" if path else name, child
        if value is not None and (value is module._parameters.get(name) or value is module._buffers.get(name)):
            return _TRACED
        dotted = ".".join(part for part in (self.self_name, path, name) if part)
        raise Unproven(f"forward reads {dotted}, which is not a module, parameter or buffer")

    def _subscript(self, node: ast.Subscript) -> Any:
        base, index = self._value(node.value), node.slice
        if not isinstance(base, tuple):
            return self._any(node.value, index)
        number = index.value if isinstance(index, ast.Constant) and type(index.value) is int else -1
        if type(base[1]) is nn.ModuleList and number >= 0:
            return self._member(base[0], base[1], str(number))
        raise Unproven(f"forward uses {ast.unparse(node)}")

    def _call(self, node: ast.Call) -> Any:
        function = self._value(node.func)
        keywords = [keyword.value for keyword in node.keywords if keyword.arg is not None]
        if len(keywords) < len(node.keywords):
            raise Unproven("forward passes ** arguments")
        traced = self._any(*node.args, *keywords)
        if isinstance(function, tuple):
            if not function[0] or type(function[1]).forward is nn.Module.forward:
                raise Unproven(f"forward calls {ast.unparse(node.func)}, which is not a layer")
            self.layers.append(function[0])
        elif function is _TRACED and not isinstance(node.func, ast.Attribute):
            raise Unproven(f"forward calls the value {ast.unparse(node.func)}")
        elif function is not _TRACED:
            if traced is None or not callable(function):
                raise Unproven(f"forward calls {ast.unparse(node.func)} on no input")
            if function not in _METHODS:
                self.functions.append(function)
        return _TRACED


def _is_torch(value: Any) -> bool:
    if isinstance(value, types.ModuleType):
        return value.__name__ == "torch" or value.__name__.startswith("torch.")
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
        return (getattr(value, "__module__", None) or "torch").split(".")[0] == "torch"
    return False


def _definition(function: Any) -> ast.FunctionDef:
    if not isinstance(function, types.FunctionType) or hasattr(function, "__wrapped__"):
        raise Unproven("forward is not a plain function")
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError) as error:
        raise Unproven("the source of forward cannot be read") from error
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef) or definition.name != "forward":
        raise Unproven("forward is not a plain function")
    arguments = definition.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs or not arguments.args:
        raise Unproven("forward has more than plain arguments")
    if not all(isinstance(default, ast.Constant) for default in arguments.defaults):
        raise Unproven("forward has a default that is not a constant")
    if definition.decorator_list:
        raise Unproven("forward has a decorator")
    return definition
