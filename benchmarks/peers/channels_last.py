"""Eager PyTorch with the advice of its performance guide: channels_last, cudnn.benchmark, fused Adam; autocast."""

from benchmarks.peers.peer import Peer

PEER = Peer("channels_last", channels_last=True)
