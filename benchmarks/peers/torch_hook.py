"""torch's older ``torch.nn.utils.spectral_norm``, a hook before each forward."""

from benchmarks.peers.peer import Peer

PEER = Peer("torch_hook", suites=("spectral_norm",))
