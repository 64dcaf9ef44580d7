"""`training.num_threads: auto`: measured once for the share of the cores that a worker has, then kept."""

import json

import pytest

from models import segment
from sim.experiments import threads
from sim.experiments.threads import THREADS, fastest, numbers_to_try, with_threads
from sim.experiments.training import on_this_machine
from sim.scenario.document import ScenarioError
from sim.scenario.loading import parse_scenario
from sim.scenario.sweep_points import Point

SCENARIO = """
name: tiny
training: {{model: {{dim: {dim}, num_heads: 2}}, num_threads: {number}, sequence_length: 16, learner: {learner}}}
strategies: [none]
"""


def scenario_with(number="auto", dim=16, learner="torch"):
    return parse_scenario(SCENARIO.format(number=number, dim=dim, learner=learner))


@pytest.fixture
def four_cores(monkeypatch):
    """Four cores, on which more threads are always faster; the sizes measured are listed."""
    asked = []

    def measured(scenario, numbers):
        asked.append(scenario.training.model.dim)
        return {number: 1 / number for number in numbers}

    monkeypatch.setattr(threads, "num_cores", lambda: 4)
    monkeypatch.setattr(threads, "measured", measured)
    return asked


def chosen(folder, num_workers, scenario=None, writes=True):
    notes = []
    (point,) = with_threads([Point({}, scenario or scenario_with())], folder, num_workers, notes.append, writes)
    return point.scenario.training.num_threads, notes


def test_workers_share_the_cores():
    assert numbers_to_try(1, 1) == numbers_to_try(8, 8) == numbers_to_try(4, 9) == [1]
    assert [numbers_to_try(8, workers) for workers in (1, 2, 3)] == [[1, 2, 4, 8], [1, 2, 4], [1, 2]]
    assert numbers_to_try(500, 1)[-1] == 64


def test_more_threads_are_taken_only_where_they_are_clearly_faster():
    assert fastest({1: 1.0, 2: 0.96, 4: 0.97}) == 1
    assert fastest({1: 1.0, 2: 0.6, 4: 0.59}) == 2
    assert fastest({1: 1.0, 2: 1.1, 4: 0.8}) == 4


def test_a_resumed_sweep_keeps_the_number_it_began_with(four_cores, tmp_path):
    number, notes = chosen(tmp_path, 1)
    assert (number, notes) == (4, ["training.num_threads: auto is 4 for 1 worker on 4 cores."])
    assert chosen(tmp_path, 4) == (4, [])
    assert chosen(tmp_path, 2, scenario_with(dim=32))[0] == 2
    assert four_cores == [16, 32]
    (tmp_path / "tiny" / THREADS).write_text("damaged")
    assert chosen(tmp_path, 4)[0] == 1


def test_a_dry_run_writes_nothing(four_cores, tmp_path):
    assert chosen(tmp_path, 2, writes=False)[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_measured_where_no_choice_is_left(four_cores, tmp_path):
    assert chosen(tmp_path, 1, scenario_with(number=3)) == (3, [])
    assert chosen(tmp_path, 1, scenario_with(learner="none")) == (1, [])
    assert chosen(tmp_path, 4)[0] == 1
    assert four_cores == []
    assert json.loads((tmp_path / "tiny" / THREADS).read_text()).popitem()[1] == 1


def test_outside_a_sweep_auto_is_one_thread():
    assert on_this_machine(scenario_with()).training.num_threads == 1


def test_a_step_is_timed_with_each_number(monkeypatch):
    monkeypatch.setattr(segment, "NUM_STEPS_TIMED", 1)
    assert all(seconds > 0 for seconds in threads.measured(scenario_with(), [1, 2]).values())


@pytest.mark.parametrize("number", ["0", "65", "many", "1.5"])
def test_other_values_are_refused(number):
    with pytest.raises(ScenarioError) as error:
        scenario_with(number=number)
    (problem,) = error.value.problems
    found = repr(number) if number == "many" else number
    assert problem.message == f"found {found}: it must be a whole number from 1 to 64, or 'auto'"
