"""Which branches a prediction rests on, and for how many steps training without failures goes."""

from __future__ import annotations

import pytest

from sim.experiments.strategy_map.predicted import branch_steps, first_trunk_steps
from sim.scenario.loading import load_scenario
from support.mutations import SCENARIOS


@pytest.mark.parametrize(
    ("changes", "last"),
    [
        ({}, 520),  # 60 % of 800 steps, and 40
        ({"training.steps": 1600}, 1000),
        ({"training.evaluation.interval_steps": 100}, 800),  # five validations are too few for a line
        ({"training.optimizer.decay": "cosine"}, 800),  # the loss falls faster at the end
    ],
)
def test_trunks_end_with_the_last_branch_where_they_can_be_continued(changes, last):
    scenario = load_scenario(SCENARIOS / "quickstart.yaml", changes)
    found = first_trunk_steps(scenario)
    assert found == tuple(step for step in scenario.training.evaluated_steps if step <= last)
    steps, after = branch_steps(scenario)
    assert max(steps) + max(after) <= last
