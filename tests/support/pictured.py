"""Results with a parametric loss, of a scenario and of a sweep, for tests of figures and tables."""

from sim.experiments.sweep import run_scenario
from sim.reporting.tables import write_comparison
from sim.results import storage as results
from sim.results.selection import comparable
from sim.scenario.loading import load_scenario
from support.sweeps import do_sweep, write_scenario

SCENARIO = """
name: dry
workload: {num_stages: 4, num_microbatches: 4}
training:
  learner: curve
  model: {num_stages: 4}
  steps: 300
  evaluation: {interval_steps: 10}
  target_validation_loss: 2.5
failures: {kind: exponential, rate_per_hour: 0.9}
strategies: [none, {kind: checkpoint, interval_iterations: 40}, {kind: checkfree, end_stages: copy}, checkfree_plus]
fallback: {kind: checkpoint, interval_iterations: 50}
seeds: {failures: [0, 1]}
iterations_per_step: 2
"""
SWEEP = (
    SCENARIO.replace("seeds: {failures: [0, 1]}\n", "")
    + "sweep: {grid: {failures.rate_per_hour: [0.6, 0.9], 'strategies[checkpoint].interval_iterations': [20, 40]}, "
    "replicates: 2}\n"
)
RATE, INTERVAL = "failures.rate_per_hour", "strategies[checkpoint].interval_iterations"


def run_all(folder, text, *overrides):
    """Folder of all runs of a scenario, as `churnlab run` writes them."""
    (folder / "dry.yaml").write_text(text)
    scenario = load_scenario(folder / "dry.yaml", overrides)
    runs = run_scenario(scenario, folder / "results", folder).run_files()
    write_comparison(folder / "results" / "dry", runs)
    return folder / "results" / "dry"


def of_scenario(folder):
    """Results of four strategies under two failure seeds."""
    return comparable(results.load(run_all(folder, SCENARIO)))


def of_sweep(folder, text=SWEEP):
    """The same at two rates and two intervals of checkpoints."""
    do_sweep(write_scenario(folder, text), folder / "results", folder / "cache")
    return comparable(results.load(folder / "results" / "dry"))


def of(rows, **wanted):
    """Rows with some values."""
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    return rows
