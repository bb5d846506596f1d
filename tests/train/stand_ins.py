"""torch's own spectral norm in the place of fastgan's, where that is not there yet."""

import sys
import types

from torch.nn.utils.parametrizations import spectral_norm

import fastgan.nn


def install():
    """Give ``fastgan.nn`` what it lacks, until the process ends."""
    if not hasattr(fastgan.nn, "utils"):
        fastgan.nn.utils = types.ModuleType("fastgan.nn.utils")
        fastgan.nn.utils.spectral_norm = spectral_norm
        sys.modules["fastgan.nn.utils"] = fastgan.nn.utils
