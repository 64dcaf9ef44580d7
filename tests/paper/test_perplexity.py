"""Perplexity of final states."""

from itertools import product

import pytest

from benchmarks.paper import perplexity
from benchmarks.paper.tables import RATE
from sim.scenario.sweep_points import load_points


def test_perplexity_is_of_the_final_state(tiny, monkeypatch):
    folder, path, extract = tiny
    monkeypatch.setattr(perplexity, "RATE_PER_HOUR", 0.3)
    monkeypatch.setattr(perplexity, "NUM_SEQUENCES", 8)
    found = perplexity.perplexities(load_points(path), path.parent, folder / "results", folder / "cache", 10**9)
    held_out = found[found["text"] == "held-out files"].set_index(["strategy", "failure_seed"])["loss_nats"]
    at_end = extract.at({RATE: 0.3}).runs.set_index(["strategy", "failure_seed"])
    for strategy, seed in product(("none", "checkfree"), (0, 1)):
        expected = at_end.loc[(strategy, seed), "final_validation_loss"]
        assert held_out[strategy, seed] == pytest.approx(expected, rel=1e-6)
    assert set(found["text"]) == {"held-out files", "NumPy's sources"}
