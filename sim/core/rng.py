"""Named random streams: each depends only on the seed and its path.

Adding a node, a strategy or a draw changes no other draw, and two strategies under one seed have the same failures.
"""

from __future__ import annotations

import hashlib

import numpy as np

PATHS = {
    "failures": "failures/{process}/{domain}",
    "downtimes": "downtimes/{process}/{domain}",
    "victims": "victims/{process}/{domain}",
    "provisioning": "provisioning/{node}",
    "places": "places",
    "jitter": "jitter/{execution}/{node}",
    "jitter_sample": "jitter/sample/{execution}",
    "training_init": "training/init",
    "training_data": "training/data",
}
"""All paths in use. A test keeps them fixed: a changed path would silently change published numbers."""


def _sequence(seed: int, path: str) -> np.random.SeedSequence:
    words = np.frombuffer(hashlib.sha256(path.encode()).digest(), dtype="<u4")
    return np.random.SeedSequence(seed, spawn_key=tuple(int(word) for word in words))


def stream(seed: int, name: str, **parts: object) -> np.random.Generator:
    """The generator of the path `PATHS[name]`, filled with `parts`, under `seed`."""
    return np.random.default_rng(_sequence(seed, PATHS[name].format(**parts)))


def derived_seed(seed: int, name: str) -> int:
    """A 63-bit seed for code with a generator of its own (torch), from the path `PATHS[name]`."""
    return int(_sequence(seed, PATHS[name]).generate_state(1, np.uint64)[0] >> 1)
