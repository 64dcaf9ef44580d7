"""The answers of the page to explore: times are those of runs, losses those of predictions."""

import json
import math

import pytest

from sim.experiments.branches.whole_runs import rebuilt_in
from sim.experiments.sweep import Observer
from sim.exploring import server
from sim.exploring.controls import controls_of
from sim.exploring.learning import measured
from sim.exploring.outcomes import FEWEST_SEEDS, NUM_SEEDS, answer, by_strategy, runs_of
from sim.exploring.page import page
from sim.exploring.server import Explorer
from sim.scenario.axes import ScenarioTemplate
from sim.simulation.first_times import first_times
from sim.simulation.run import simulate, time_only
from support.sweeps import ALONE, write_scenario

CURVE = ALONE.replace("training:\n", "training:\n  learner: curve\n").replace("steps: 24", "steps: 48")


def learning_of(text, folder, **options):
    return measured(ScenarioTemplate(write_scenario(folder, text)), folder / "cache", 1, Observer(), **options)


@pytest.fixture(scope="module")
def learning(tmp_path_factory):
    return learning_of(CURVE, tmp_path_factory.mktemp("curve"))


def simulated(scenario, learning):
    return list(by_strategy(scenario, learning, list(runs_of(scenario))))


@pytest.fixture(scope="module")
def found(learning):
    return simulated(learning.template.scenario, learning)


def test_every_strategy_has_a_prediction_and_failures_none(learning):
    assert set(learning.predictions) == {"none", "checkpoint", "checkfree"}
    assert learning.predictions["none"].healing is None
    assert learning.predictions["checkfree"].healing is not None
    assert "PARAMETRIC CURVE" in learning.notes[0]


def test_times_and_losses_are_those_of_the_first_seed(learning, found):
    scenario = learning.template.scenario
    for one, config in zip(found, scenario.strategies, strict=True):
        run = simulate(scenario, config, 0, 0, time_only(scenario))
        assert [len(one.runs), one.runs[0].wall_clock_seconds] == [NUM_SEEDS, run.wall_clock_seconds]
        prediction, (hours, losses) = learning.predictions[config.name], one.curve
        assert losses == prediction.losses(0, rebuilt_in(run)).tolist()[-len(losses) :]
        assert hours[-1] * 3600 == pytest.approx(first_times(run)[-1])
        reached = [hour for hour, loss in zip(hours, losses, strict=True) if loss <= scenario.training.target_loss]
        assert one.to_target[0] == pytest.approx(reached[0] * 3600)


def test_an_answer_is_json_with_a_row_for_each_strategy(learning, found):
    told = answer(learning.template.scenario, found)
    json.dumps(told, allow_nan=False)
    assert [row["label"] for row in told["rows"]] == ["no failures", "checkpointing", "CheckFree"]
    assert told["rows"][0]["lost"] == "-"
    hours = sum(part["hours"] for part in told["ledger"] if part["strategy"] == 1)
    assert hours == pytest.approx(sum(run.wall_clock_seconds for run in found[1].runs) / NUM_SEEDS / 3600, rel=1e-3)
    assert "loss 4.9" in told["verdict"]


def test_a_missed_target_is_said(learning):
    scenario = learning.template.scenario
    training = scenario.training.model_copy(update={"target_validation_loss": 0.001})
    missed = scenario.model_copy(update={"training": training})
    told = answer(missed, simulated(missed, learning))
    assert [row["to_target"] for row in told["rows"]] == ["-"] * 3
    assert told["rows"][0]["reached"] == f"0 of {NUM_SEEDS} runs"


def test_without_training_there_are_seconds_alone(tmp_path):
    for text, options in ((CURVE, {"trains": False}), (CURVE.replace("learner: curve", "learner: none"), {})):
        bare = learning_of(text, tmp_path, **options)
        assert bare.predictions == {}
        assert bare.notes[0].startswith("Losses: none")
        found = simulated(bare.template.scenario, bare)
        told = answer(bare.template.scenario, found)
        assert told["curves"] == []
        assert all(math.isnan(seconds) for one in found for seconds in one.to_target)
        assert 'id="loss"' not in page(tmp_path / "x.yaml", [], bare)


def test_losses_of_strategies_with_recipes_are_not_predicted(tmp_path):
    bare = learning_of(CURVE.replace("strategies: [none,", "strategies: [none, elastic,"), tmp_path)
    assert set(bare.predictions) == {"none", "checkpoint", "checkfree"}
    assert "No losses of elastic" in bare.notes[1]
    apart = CURVE.replace("strategies: [none,", "strategies: [none, {kind: diloco, inner_steps: 4},")
    assert "No losses of DiLoCo" in learning_of(apart, tmp_path).notes[1]


def test_names_of_users_cannot_become_markup(tmp_path):
    evil = "</script><script>alert(1)</script>"
    bare = learning_of(f"description: '{evil}'\n{CURVE}", tmp_path, trains=False)
    html = page(tmp_path / "<b>.yaml", [], bare)
    assert evil not in html
    assert html.count("<script") == 3


def test_a_slow_position_has_few_seeds_first_and_all_of_them_when_asked_again(learning, monkeypatch):
    explorer = Explorer(learning, controls_of(learning.template))
    at_once = explorer.answered({})
    assert at_once["is_complete"]
    monkeypatch.setattr(server, "SECONDS_OF_ANSWER", 0.0)
    explorer = Explorer(learning, controls_of(learning.template))
    told = [explorer.answered({}) for _ in range(1 + NUM_SEEDS - FEWEST_SEEDS)]
    assert [one["is_complete"] for one in told] == [False] * (NUM_SEEDS - FEWEST_SEEDS) + [True]
    assert f"over {FEWEST_SEEDS} failure seeds, soon over {NUM_SEEDS}" in told[0]["about"]
    last, same = ({name: value for name, value in one.items() if name != "took_seconds"} for one in (told[-1], at_once))
    assert last == same


def test_a_position_that_fails_is_simulated_anew(learning, monkeypatch):
    explorer = Explorer(learning, controls_of(learning.template))
    with monkeypatch.context() as broken:
        broken.setattr(server, "runs_of", lambda _: (1 / 0 for _ in range(3)))
        with pytest.raises(ZeroDivisionError):
            explorer.answered({})
    assert explorer.answered({})["is_complete"]


def test_the_first_position_is_simulated_before_it_is_asked(learning, monkeypatch):
    explorer, asked = Explorer(learning, controls_of(learning.template)), []
    monkeypatch.setattr(server, "runs_of", lambda scenario: asked.append(scenario) or runs_of(scenario))
    explorer.warm_up()
    assert explorer.answered({})["is_complete"]
    assert len(asked) == 1


def test_an_error_in_the_warm_up_is_left_to_the_page(learning, monkeypatch):
    explorer = Explorer(learning, controls_of(learning.template))
    monkeypatch.setattr(server, "runs_of", lambda _: 1 / 0)
    explorer.warm_up()
    with pytest.raises(ZeroDivisionError):
        explorer.answered({})
