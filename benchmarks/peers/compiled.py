"""``torch.compile`` of each network, default mode, channels_last."""

import torch

from benchmarks.peers.peer import Peer

PEER = Peer("compiled", channels_last=True, model=torch.compile)
