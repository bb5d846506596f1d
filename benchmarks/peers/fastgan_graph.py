"""fastgan, the whole step captured once as a CUDA graph and replayed."""

import dataclasses

from benchmarks.peers import cuda_graph, fastgan

PEER = dataclasses.replace(
    fastgan.PEER, name="fastgan_graph", capturable=True, step=cuda_graph.captured, refuses=cuda_graph.needs_cuda
)
