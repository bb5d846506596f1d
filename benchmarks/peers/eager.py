"""Eager PyTorch as most people run it: NCHW, all settings as they come; autocast where the dtype is of 16 bits."""

from benchmarks.peers.peer import Peer

PEER = Peer("eager", tuned=False)
