"""The excess of one failure as a function, and whole runs predicted from it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.results.healing import Healing, Rebuilt, amplitudes, fit, steps_apart
from sim.results.prediction import Prediction, WholeRuns

LAW = Healing({1: 2.0, 2: 0.1, 3: 0.3}, 600.0, {1: 0.9, 2: 0.5, 3: 0.6})


def branches_of(law, seeds=range(4), noise=0.001, steps=(200, 400, 600), factor=lambda seed: 1.0):
    """Branches that follow a law, with noise and a factor of each training seed."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"stage": stage, "step": step, "after_steps": after, "training_seed": seed, "is_rebuilt": True}
            | {"excess": factor(seed) * float(law.excess(stage, step, np.array(float(after)))) + noise * rng.normal()}
            for stage in law.costs
            for step in steps
            for after in (0, 10, 20, 40, 60, 100)
            for seed in seeds
        ]
    )


def test_the_fit_recovers_a_law():
    found = fit(branches_of(LAW))
    for stage in LAW.costs:
        for step, since in ((200, 15.0), (500, 50.0), (600, 300.0)):
            true = float(LAW.excess(stage, step, np.array(since)))
            assert float(found.excess(stage, step, np.array(since))) == pytest.approx(true, rel=0.2, abs=0.003)


def test_the_excess_at_once_is_not_fitted():
    branches = branches_of(LAW)
    branches.loc[branches["after_steps"] == 0, "excess"] *= 50.0
    assert fit(branches) == fit(branches_of(LAW))


def test_each_seed_has_its_own_amplitude():
    branches = branches_of(LAW, factor=lambda seed: 0.5 + 0.25 * seed)
    found = amplitudes(branches, fit(branches))
    ratios = {seed: value / found[3] for seed, value in found.items()}
    assert ratios == pytest.approx({0: 0.4, 1: 0.6, 2: 0.8, 3: 1.0}, rel=0.02)


def test_a_single_branch_is_enough_to_fit():
    found = fit(branches_of(Healing({2: 0.1}, 200.0, {2: 0.6}), seeds=[0], steps=(200,)))
    assert float(found.excess(2, 200, np.array(20.0))) == pytest.approx(0.1 * (1 + 20 / 3) ** -0.6, rel=0.1)
    assert float(found.excess(5, 200, np.array(20.0))) == float(found.excess(2, 200, np.array(20.0)))  # unknown: mean
    with pytest.raises(ValueError, match="no branch has an excess loss"):
        fit(branches_of(LAW).assign(excess=math.nan))


STAGES = st.sampled_from([1, 2, 3])
REBUILT = st.lists(st.builds(Rebuilt, STAGES, st.integers(1, 800), st.none() | STAGES), max_size=8)


@given(REBUILT.map(lambda found: sorted(found, key=lambda one: one.step)))
def test_failures_add_up_and_cost_nothing_before_they_occur(rebuilt):
    steps = np.arange(20.0, 801.0, 20.0)
    total = LAW.of_failures(rebuilt, steps)
    alone = [LAW.excess(one.stage, one.step, steps - one.step) for one in rebuilt]
    assert (total <= sum(alone, np.zeros(len(steps))) + 1e-12).all()  # a stage rebuilt before costs less
    if len({one.stage for one in rebuilt}) == len(rebuilt) and not any(one.copied_from for one in rebuilt):
        assert total == pytest.approx(sum(alone, np.zeros(len(steps))))
    first = min((one.step for one in rebuilt), default=801)
    assert (total[steps < first] == 0.0).all()
    assert (total >= 0.0).all()


def test_a_stage_is_trained_apart_since_it_or_its_copy_was_rebuilt():
    rebuilt = [
        Rebuilt(1, 100, 2),
        Rebuilt(3, 150),
        Rebuilt(1, 300, 2),
        Rebuilt(2, 350),
        Rebuilt(1, 400, 2),
        Rebuilt(3, 500),
    ]
    assert steps_apart(rebuilt) == [100, 150, 200, 350, 50, 350]


def test_a_run_is_its_trunk_plus_the_excess_of_its_failures():
    branches = branches_of(LAW)
    curve = [(seed, step, 5.0 - 0.005 * step + 0.01 * seed) for seed in range(4) for step in range(20, 801, 20)]
    trunks = pd.DataFrame(curve, columns=["training_seed", "step", "loss"])
    found = Prediction.of(trunks, branches, range(20, 801, 20))
    assert found.seeds == [0, 1, 2, 3]
    assert found.step_of(3.0, 0, []) == 400.0
    later = found.step_of(3.0, 0, [Rebuilt(1, 300), Rebuilt(3, 390)])
    assert later > 400.0
    excess = found.losses(2, [Rebuilt(1, 300)]) - found.losses(2, [])
    assert excess == pytest.approx(
        LAW.of_failures([Rebuilt(1, 300)], np.arange(20.0, 801.0, 20.0)), rel=0.25, abs=0.005
    )
    assert math.isnan(found.step_of(-5.0, 0, []))
    unchanged = Prediction.of(trunks, branches.assign(is_rebuilt=False), range(20, 801, 20))
    assert unchanged.step_of(3.0, 0, [Rebuilt(1, 300)]) == 400.0


def test_a_trunk_is_continued_along_the_logarithm_of_the_step():
    steps = range(20, 401, 20)
    found = Prediction(tuple(steps), {0: np.array([5.0 - 0.5 * math.log(step) for step in steps])})
    assert found.step_of(5.0 - 0.5 * math.log(390), 0, []) == 400.0
    assert found.step_of(5.0 - 0.5 * math.log(590), 0, []) == 600.0
    assert math.isnan(found.step_of(5.0 - 0.5 * math.log(850), 0, []))  # after twice the steps
    longer = Prediction(found.steps, found.trunks, num_steps=600)
    assert longer.step_of(5.0 - 0.5 * math.log(850), 0, []) == 860.0
    assert math.isnan(longer.step_of(5.0 - 0.5 * math.log(1210), 0, []))
    rising = Prediction(tuple(steps), {0: np.array([2.0 + 0.001 * step for step in steps])})
    assert math.isnan(rising.step_of(1.0, 0, []))
    short = Prediction((20, 40), {0: np.array([3.0, 2.0])})
    assert math.isnan(short.step_of(1.9, 0, []))


def test_whole_runs_have_students_intervals_over_training_seeds():
    rows = [
        {
            "value": rate,
            "strategy": name,
            "training_seed": seed,
            "failure_seed": 4 * seed + run,
            "hours_to_target": hours,
        }
        for rate in (0.1, 0.2)
        for name, shift in (("a", 0.0), ("b", 1.0))
        for seed in range(3)
        for run in range(4)
        for hours in [10.0 + seed + shift + 0.1 * run]
    ]
    found = WholeRuns("failures.rate_per_hour", pd.DataFrame(rows), 2.0)
    mean = found.means("hours_to_target").iloc[0]
    assert mean["mean"] == pytest.approx(11.15)
    assert mean["high"] - mean["mean"] == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    difference = found.difference("b", "a", "hours_to_target")
    assert difference["mean"].tolist() == pytest.approx([1.0, 1.0])
    assert math.isnan(difference["high"].iloc[0])  # equal values have no spread: no certainty
