"""One file a suite: what its cases compute."""
