"""Numbers as they were: a change that moves one has to say so in the changelog, under [RESULTS].

To accept moved numbers: `python tests/test_baseline.py`, and look at the difference.
"""

import json
import tempfile
from pathlib import Path

import pytest

from models.corpus import load_corpus
from models.curve import CurveTraining
from models.spec import DataSpec, ModelSpec, OptimizerSpec, plain_routes
from models.training_state import Edit, GradientNormWeights
from models.trajectory import Trajectory
from sim.results.summary import summarise
from sim.scenario.loading import parse_scenario
from sim.simulation.run import simulate

BASELINE = Path(__file__).parent
SCENARIO = """
name: baseline
workload: {num_microbatches: 8, max_in_flight: 7}
training: {learner: curve, steps: 400, target_validation_loss: 2.2}
cluster: {device: l4, detection_seconds: 10, provisioning_seconds: 60, num_spares: 1, startup_seconds: 5}
network: gcp_paper
failures: {kind: exponential, rate_per_hour: 0.3}
strategies:
  [none, {kind: checkpoint, interval_iterations: 20, blocking_share: 0.2}, redundant, checkfree, checkfree_plus]
fallback: {kind: checkpoint, interval_iterations: 50}
"""


def summaries() -> dict[str, object]:
    """Outcomes of five strategies, nothing trained: the same on every machine."""
    scenario = parse_scenario(SCENARIO)
    spec = scenario.training.spec("curve", 256, 1, 2, plain_routes(6))
    runs = [simulate(scenario, config, 0, 0, CurveTraining(spec)) for config in scenario.strategies]
    return {run.strategy: summarise(scenario, run) for run in runs}


def losses(folder: Path) -> dict[str, list[float]]:
    """Twenty steps of each family, an edit among them."""
    for number in range(6):
        (folder / f"{number}.txt").write_text("".join(f"{i}: {i * i % 89}, " for i in range(900)))
    corpus = load_corpus(DataSpec(source="text", files=("*.txt",)), folder, None)
    found = {}
    for family in ("llama", "gpt"):
        model = ModelSpec(family=family, dim=16, num_heads=2, num_stages=4)
        changes = {"model": model, "optimizer": OptimizerSpec(learning_rate=3e-3)}
        changes |= {"sequences_per_batch": 4, "sequence_length": 16}
        training = parse_scenario("name: x\nstrategies: [none]").training.model_copy(update=changes)
        spec = training.spec(corpus.content_hash, corpus.vocabulary_size, 1, 2, plain_routes(4))
        trajectory = Trajectory(spec, corpus, None)
        fork = trajectory.root(plain_routes(4)).after(10)
        rebuilt = fork.edited(Edit(2, "average", (1, 3), GradientNormWeights(), learning_rate_factor=1.1))
        positions = [fork.after(step) for step in range(1, 11)] + [rebuilt.after(step) for step in range(11, 21)]
        found[family] = [trajectory.train_loss(position) for position in positions]
    return found


def test_simulated_seconds_are_as_they_were():
    expected = json.loads((BASELINE / "summaries.json").read_text())
    found = json.loads(json.dumps(summaries()))
    for strategy, summary in expected.items():
        for name, value in summary.items():
            same = pytest.approx(value, rel=1e-12, abs=1e-9) if isinstance(value, float | dict) else value
            assert found[strategy][name] == same, (strategy, name)


def test_losses_equal_the_stored_ones(tmp_path):
    """Up to the rounding of another machine."""
    expected = json.loads((BASELINE / "losses.json").read_text())
    found = losses(tmp_path)
    for family, values in expected.items():
        assert found[family] == pytest.approx(values, rel=1e-3)


if __name__ == "__main__":
    (BASELINE / "summaries.json").write_text(json.dumps(summaries(), indent=1) + "\n")
    with tempfile.TemporaryDirectory() as name:
        (BASELINE / "losses.json").write_text(json.dumps(losses(Path(name)), indent=1) + "\n")
