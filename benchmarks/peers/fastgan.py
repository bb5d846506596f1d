"""fastgan as its README says: converted networks, its penalty and critic step, channels_last."""

import fastgan
from benchmarks.peers.peer import Peer

PEER = Peer("fastgan", ours=True, channels_last=True, model=fastgan.convert, penalty="fastgan")
