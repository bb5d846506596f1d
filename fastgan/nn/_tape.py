"""Records one call of a piecewise-linear critic, and runs its input gradient, its tangent and its weight gradients.

A critic made of linear maps and piecewise-linear activations, each sample for itself, is linear around each point: with
h_l the value after layer l, d_l the gradient of the critic's results by it and t_l the tangent of a direction v,

    dD/dx          one backward pass over the d_l
    <v, dD/dx>     has the derivative wgrad(t_{l-1}, d_l) by the weights of layer l, and none by its bias
    D(x)           has the derivative wgrad(h_{l-1}, d_l)

since the second derivative of the activations is 0. One batch may hold both kinds of samples: those before ``start``
count with their values, those from ``start`` on with their tangents, and one weight gradient serves both.
Source: the double backward of Gulrajani et al. 2017, without the passes that are 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fastgan.ops import _define


class Curved(Exception):
    """The reason why a call of a critic cannot be run as a piecewise-linear map of each sample."""


class Samples(int):
    """A number of samples that may be a size, but not part of a sum: a step has three times those of a call by hand."""

    def _refuse(self, *_: Any) -> Any:
        raise Curved("it calculates with the number of samples, and a step has three batches in one")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __pow__ = __rpow__ = _refuse
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = _refuse
    __neg__ = __float__ = _refuse


class Node(ABC):
    """One recorded step: values ``inputs`` and ``output`` are places in ``Tape.values``."""

    inputs: tuple[int, ...]
    output: int

    @property
    def trainable(self) -> bool:
        """Whether it has parameters, so that the gradient by its output is needed."""
        return False

    @abstractmethod
    def input_gradients(self, tape: Tape, dy: Tensor, part: slice) -> list[Tensor]:
        """Return the gradients by the inputs, for the samples in ``part``, of which dy is that of the output."""

    @abstractmethod
    def tangent(self, tape: Tape, tangents: list[Tensor]) -> Tensor:
        """Return the tangent of the output for those of the inputs, of the samples from ``tape.start`` on."""


class Biased(Node):
    """A step that may add a bias: as the critic read it, so that a parametrization gets its share."""

    bias: Tensor | None

    @property
    def trainable(self) -> bool:
        return self.bias is not None

    @abstractmethod
    def bias_gradient(self, tape: Tape, bias: Tensor, dy: Tensor, part: slice) -> Tensor:
        """Return the gradient by the bias of the samples in ``part``, of which dy is the gradient of the output."""


class Weighted(Biased):
    """A step that multiplies by a weight: as the critic read it, and ``w`` without a graph."""

    weight: Tensor
    w: Tensor

    @property
    def trainable(self) -> bool:
        return True

    @abstractmethod
    def weight_gradient(self, tape: Tape, x: Tensor, dy: Tensor) -> Tensor:
        """Return the gradient by the weight for inputs, or tangents of them, x."""


class Tape(TorchFunctionMode):
    """Records what a critic does to x.

    Args:
        x: (N, ...), the critic's input; its values from ``start`` on are overwritten by ``weight_gradients``.
        start: the first sample that counts with its tangent.
        run_call: runs and records one call of a torch function: (tape, function, args, kwargs).
    Raises (by ``record``): Curved with the reason why this cannot be done.
    """

    def __init__(self, x: Tensor, start: int, run_call: Callable[[Tape, Any, tuple, dict], Any]) -> None:
        super().__init__()
        self.x, self.start, self.run_call = x, start, run_call
        self.values: list[Tensor] = [x]
        self.nodes: list[Node] = []
        self.gradients: dict[int, Tensor] = {}
        # whether a value depends on a weight, so that the gradient by it is needed for all samples
        self.behind_weight = [False]
        self._places = {id(x): 0}
        self.result = 0

    @property
    def direction(self) -> slice:
        """The samples that count with their tangents."""
        return slice(self.start, None)

    def record(self, critic: Callable[[Tensor], Any]) -> Tensor:
        """Return the critic's result for x."""
        with torch.enable_grad(), _define.watched(), self:
            result = critic(self.x)
        place = self.place(result)
        if place is None or place == 0:
            raise Curved("its result does not come from its input by torch functions alone")
        self.result = place
        self._forget_what_the_result_does_not_need()
        return result

    def _forget_what_the_result_does_not_need(self) -> None:
        needed, nodes = {self.result}, []
        for node in reversed(self.nodes):
            if node.output in needed:
                needed.update(node.inputs)
                nodes.append(node)
        self.nodes = nodes[::-1]

    def place(self, value: Any) -> int | None:
        """Return where a value is that comes from x; None for all others."""
        return self._places.get(id(value)) if isinstance(value, Tensor) else None

    def append(self, node: Node, value: Tensor) -> Tensor:
        """Record a node whose output is ``value``."""
        if value.dim() == 0 or value.shape[0] != self.x.shape[0]:
            raise Curved("it changes the first dimension, that of the samples")
        node.output = len(self.values)
        self.values.append(value)
        self.nodes.append(node)
        self.behind_weight.append(node.trainable or any(self.behind_weight[i] for i in node.inputs))
        self._places[id(value)] = node.output
        return value

    def used(self, place: int) -> bool:
        """Return whether a value is read by a node, or is x."""
        return place == 0 or any(place in node.inputs for node in self.nodes)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return self.run_call(self, func, args, kwargs or {})

    def weights(self) -> list[Tensor]:
        """Return the weights that want a gradient, in the order of ``weight_gradients`` with ``start`` 0."""
        return [node.weight for node in self.nodes if isinstance(node, Weighted) and node.weight.requires_grad]

    def biases(self) -> list[Tensor]:
        """Return the biases that want a gradient."""
        biases = [node.bias for node in self.nodes if isinstance(node, Biased)]
        return [bias for bias in biases if bias is not None and bias.requires_grad]

    def read_weights(self) -> list[Tensor]:
        """Return all weights without a graph, as the passes read them."""
        return [node.w for node in self.nodes if isinstance(node, Weighted)]

    def input_gradient(self, seed: Tensor) -> Tensor:
        """Return the gradient of <seed, result> by x of the samples from ``start`` on; keeps those of all layers."""
        gradients = {self.result: seed}
        for node in reversed(self.nodes):
            dy = gradients.pop(node.output)
            if node.trainable:
                self.gradients[node.output] = dy
            deep = any(self.behind_weight[i] for i in node.inputs)
            if not deep:
                dy = self._directed(dy)
            part = slice(None) if deep else self.direction
            for i, dx in zip(node.inputs, node.input_gradients(self, dy, part), strict=True):
                dx = dx if self.behind_weight[i] else self._directed(dx)
                gradients[i] = gradients[i] + dx if i in gradients else dx
        return gradients[0]

    def _directed(self, dy: Tensor) -> Tensor:
        """Return the part of a gradient from ``start`` on; dy may be that part already."""
        return dy[self.direction] if dy.shape[0] == self.x.shape[0] else dy

    def weight_gradients(self, v: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return (weight, its gradient) of each layer, and of biases: of <seed, result> for the samples before
        ``start``, and of <v, gradient by x> for those from ``start`` on. Only after ``input_gradient``; once, unless
        ``start`` is 0."""
        tangents, found, wanted = {0: v}, [], self._wanted_tangents()
        for node in self.nodes:
            if self.start and isinstance(node, Biased) and node.bias is not None and node.bias.requires_grad:
                part = slice(0, self.start)
                dy = self.gradients[node.output][part]
                found.append((node.bias, node.bias_gradient(self, node.bias, dy, part)))
            if isinstance(node, Weighted) and node.weight.requires_grad:
                x = self._joined(node.inputs[0], tangents)
                found.append((node.weight, node.weight_gradient(self, x, self.gradients[node.output])))
            if node.output in wanted:
                tangents[node.output] = node.tangent(self, [tangents[i] for i in node.inputs])
        return found

    def _wanted_tangents(self) -> set[int]:
        """Return the values whose tangents a weight gradient needs."""
        wanted: set[int] = set()
        for node in reversed(self.nodes):
            if node.output in wanted or (isinstance(node, Weighted) and node.weight.requires_grad):
                wanted.update(node.inputs)
        return wanted

    def _joined(self, place: int, tangents: dict[int, Tensor]) -> Tensor:
        """Return the values of the samples before ``start`` and the tangents of the others, in the values' memory."""
        if self.start == 0:
            return tangents[place]
        values = self.values[place]
        there = values[self.direction]
        if tangents[place].data_ptr() != there.data_ptr():
            # nobody reads these values again: the masks of their own layer are used up
            there.copy_(tangents[place])
        return values
