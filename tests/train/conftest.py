"""Small data sets on disk, and a config that trains on them in a moment."""

import gzip
import struct

import numpy as np
import pytest

from fastgan.train import TrainConfig


def idx_bytes(images):
    return struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.tobytes()


@pytest.fixture(scope="session")
def idx_dir(tmp_path_factory):
    """Forty 28x28 images in MNIST's files, a gzipped and a plain one, with labels."""
    root = tmp_path_factory.mktemp("idx")
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    (root / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images[:32])))
    (root / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(images[32:]))
    (root / "train-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 32) + bytes(32))
    return root


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty directory, in which the test works."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(idx_dir):
    """Makes a config: 4 features, batches of 8, on the CPU."""

    def make(**settings):
        small = {"image_size": 32, "features": 4, "latent_dim": 8, "batch_size": 8, "steps": 4, "device": "cpu"}
        often = {"log_every": 1, "sample_every": 2, "checkpoint_every": 2, "sample_count": 9}
        return TrainConfig(**{"data": f"idx:{idx_dir}", **small, **often, **settings})

    return make
