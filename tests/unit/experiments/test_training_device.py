"""A scenario's device, precision and replicates at once, from the YAML to the recipe that is trained."""

import pytest

from models import device
from sim.experiments.plan import plan_runs
from sim.experiments.training import Texts, on_this_machine, training_spec
from sim.scenario.document import ScenarioError
from sim.scenario.loading import DataError, parse_scenario
from sim.scenario.sweep_points import Point
from sim.simulation.run import time_only

SCENARIO = """
name: tiny
training:
  model: {{dim: {dim}, num_heads: 2}}
  data: {{source: text, files: ["*.txt"]}}
  sequence_length: 32
  steps: 3
  {line}
strategies: [none]
"""


def scenario_with(line="device: cpu", dim=32):
    return parse_scenario(SCENARIO.format(line=line, dim=dim))


def recipe(line, dim=32):
    return training_spec(on_this_machine(scenario_with(line, dim)), None, 0)


def test_auto_is_the_device_found_here(monkeypatch):
    monkeypatch.setattr(device, "available_gpus", lambda: [])
    assert recipe("device: auto") == recipe("device: cpu")
    monkeypatch.setattr(device, "available_gpus", lambda: ["cuda"])
    assert recipe("device: auto") == recipe("device: cuda") != recipe("device: cpu")


def test_eight_replicates_at_once_on_a_gpu_if_sizes_allow_it(monkeypatch):
    monkeypatch.setattr(device, "available_gpus", lambda: ["cuda"])
    assert [recipe("device: auto", dim).replicates_at_once for dim in (32, 36)] == [8, 1]
    assert [recipe("device: cpu", dim).replicates_at_once for dim in (32, 36)] == [1, 1]
    assert recipe("replicates_at_once: 5").replicates_at_once == 5
    with pytest.raises(ScenarioError, match=r"multiples of 16, found model\.dim 36; allowed: 1"):
        scenario_with("replicates_at_once: 5", dim=36)


def test_a_device_that_is_missing_is_refused_at_its_field(monkeypatch, tmp_path):
    monkeypatch.setattr(device, "available_gpus", lambda: [])
    points = [Point({}, scenario_with("device: cuda"))]
    with pytest.raises(DataError, match="found 'cuda'") as error:
        plan_runs(points, tmp_path, tmp_path, Texts(tmp_path, None))
    assert error.value.field == ("training", "device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("learner", ["curve", "none"])
def test_where_nothing_is_trained_no_device_is_needed(monkeypatch, learner):
    monkeypatch.setattr(device, "available_gpus", lambda: [])
    assert recipe(f"{{device: cuda, learner: {learner}}}".strip("{}").replace(", ", "\n  ")).device == "cpu"


def test_times_alone_need_no_device(monkeypatch):
    monkeypatch.setattr(device, "available_gpus", lambda: [])
    for line in ("device: cuda", "device: auto", "compile: auto", "num_threads: auto"):
        assert not time_only(scenario_with(line)).spec.is_stacked


def test_runs_of_another_device_or_precision_have_other_keys(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"{number} bottles, " for number in range(2000)))
    texts = Texts(tmp_path, None)
    lines = "device: cpu", "device: auto", "precision: bf16", "replicates_at_once: 2"
    runs = [plan_runs([Point({}, scenario_with(line))], tmp_path, tmp_path, texts)[0] for line in lines]
    assert runs[0].plan.versions["training"] == runs[1].plan.versions["training"]
    assert len({run.key for run in runs}) == 3
