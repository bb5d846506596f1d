"""``torch.compile(mode="max-autotune")`` of each network, channels_last.

Without its CUDA graphs: their memory is used again while gradients of several calls are still wanted.
"""

import functools

import torch

from benchmarks.peers.peer import Peer

PEER = Peer(
    "max_autotune",
    channels_last=True,
    slow=True,
    model=functools.partial(torch.compile, mode="max-autotune-no-cudagraphs"),
)
