"""What tests compare of two runs."""

import torch


def losses_of(result):
    return [(row["step"], row["d_loss"], row["g_loss"]) for row in result.metrics]


def same(state, other):
    """Whether two nested states are equal to the last bit."""
    if isinstance(state, torch.Tensor):
        return state.dtype == other.dtype and torch.equal(state, other)
    if isinstance(state, dict):
        return state.keys() == other.keys() and all(same(state[key], other[key]) for key in state)
    if isinstance(state, (list, tuple)):
        return len(state) == len(other) and all(map(same, state, other))
    return state == other
