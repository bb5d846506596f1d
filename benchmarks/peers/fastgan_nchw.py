"""fastgan on NCHW images."""

import fastgan
from benchmarks.peers.peer import Peer

PEER = Peer("fastgan_nchw", ours=True, model=fastgan.convert, penalty="fastgan")
