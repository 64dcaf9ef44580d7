"""`training.compile` from the YAML to the recipe that is trained."""

import sys

import pytest

from models import compiled
from sim.experiments.plan import plan_runs
from sim.experiments.training import Texts, on_this_machine, training_spec
from sim.scenario.loading import DataError, parse_scenario
from sim.scenario.sweep_points import Point

SCENARIO = """
name: tiny
training:
  model: {{dim: 16, num_heads: 2}}
  data: {{source: text, files: ["*.txt"]}}
  steps: {steps}
  {lines}
strategies: [none]
"""


def scenario_with(*lines, steps=3):
    return parse_scenario(SCENARIO.format(steps=steps, lines="\n  ".join(lines)))


def chosen(*lines, steps=3):
    return training_spec(on_this_machine(scenario_with(*lines, steps=steps)), None, 0).compile


@pytest.fixture
def no_compiler(monkeypatch):
    def missing():
        raise ValueError("torch.compile finds no C++ compiler on this machine")

    monkeypatch.setattr(compiled, "compiler_name", missing)


@pytest.fixture
def a_compiler(monkeypatch):
    monkeypatch.setattr(compiled, "compiler_name", lambda: "g++ 1")


@pytest.mark.usefixtures("a_compiler")
def test_auto_compiles_long_training_of_single_replicates():
    assert [chosen("compile: auto", steps=steps) for steps in (9_999, 10_000)] == ["off", "on"]
    assert chosen("compile: auto", "precision: bf16", steps=10_000) == "off"
    assert chosen("compile: auto", "learner: none", steps=10_000) == "off"
    assert [chosen(steps=5000), chosen("compile: on")] == ["off", "on"]


@pytest.mark.usefixtures("no_compiler")
def test_a_missing_compiler_is_refused_only_where_it_is_asked_for():
    assert chosen("compile: auto", steps=10_000) == "off"
    with pytest.raises(DataError, match=r"found 'on', but torch.compile finds no C\+\+ compiler") as error:
        chosen("compile: on")
    assert error.value.field == ("training", "compile")


@pytest.mark.usefixtures("a_compiler")
def test_stacked_replicates_are_not_compiled():
    with pytest.raises(DataError, match="only single replicates on the CPU in fp32") as error:
        chosen("compile: on", "precision: bf16")
    assert error.value.field == ("training", "compile")


@pytest.mark.usefixtures("a_compiler")
def test_compiled_runs_have_other_keys_and_uncompiled_ones_theirs(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"{number} bottles, " for number in range(2000)))
    lines = "learner: torch", "compile: off", "compile: auto", "compile: on"
    runs = [plan_runs([Point({}, scenario_with(x))], tmp_path, tmp_path, Texts(tmp_path, None))[0] for x in lines]
    assert [run.key == runs[0].key for run in runs] == [True, True, True, False]
    assert "compiled" in runs[3].plan.versions["training"]
    assert "compile" not in runs[0].spec.model_dump_json()


def test_the_compiler_is_not_loaded_unless_it_is_wanted():
    loaded = set(sys.modules)
    chosen(steps=5000), chosen("compile: auto")
    assert not {"torch._inductor", "torch._dynamo"} & (set(sys.modules) - loaded)
