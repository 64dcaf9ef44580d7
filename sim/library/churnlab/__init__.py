"""churnlab as a library: scenarios, simulation, sweeps, advice, results and figures in Python.

Functions print nothing, and write nothing unless a folder is named. `docs/library.md` has examples.
Names are loaded on first use: importing churnlab is fast and does not need torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.experiments.branches.study import branches as branches
    from sim.experiments.fit_comparison import compare_fit as compare_fit
    from sim.experiments.overheads import overheads as overheads
    from sim.experiments.overheads import recoveries as recoveries
    from sim.experiments.strategy_map.study import MapOptions as MapOptions
    from sim.experiments.strategy_map.study import advise as advise
    from sim.experiments.strategy_map.study import strategy_map as strategy_map
    from sim.experiments.sweep import SweepOptions as SweepOptions
    from sim.experiments.sweep import SweepOutcome as SweepOutcome
    from sim.experiments.sweep import simulate_run as simulate
    from sim.experiments.sweep import sweep_scenario as run_sweep
    from sim.experiments.training import default_cache as default_cache
    from sim.failures.churn_fit import ChurnFit as ChurnFit
    from sim.failures.churn_fit import fit_churn as fit_churn
    from sim.reporting.branches import branch_tables as branch_tables
    from sim.reporting.branches import branches_figure as branches_figure
    from sim.reporting.churn_fit import fit_figure as fit_figure
    from sim.reporting.churn_fit import fit_lines as fit_lines
    from sim.reporting.ledger import ledger_table as ledger_table
    from sim.reporting.panels import draw as draw
    from sim.reporting.registry import figure_of as figure
    from sim.reporting.strategy_map import advice_lines as advice_lines
    from sim.reporting.strategy_map import strategy_map_figure as strategy_map_figure
    from sim.reporting.style import STYLE as STYLE
    from sim.reporting.tables import comparison_table as comparison_table
    from sim.reporting.tables import summary_table as summary_table
    from sim.results.branches import Branches as Branches
    from sim.results.branches import load_branches as load_branches
    from sim.results.in_memory import SimulatedRun as SimulatedRun
    from sim.results.in_memory import as_results as as_results
    from sim.results.outcome_tables import ledger_hours as ledger_hours
    from sim.results.outcome_tables import time_to_loss as time_to_loss
    from sim.results.statistics import estimate as estimate
    from sim.results.statistics import paired_difference as paired_difference
    from sim.results.statistics import replicates_needed as replicates_needed
    from sim.results.statistics import summary as summary
    from sim.results.storage import Results as Results
    from sim.results.storage import load as load_results
    from sim.results.storage import load_run as load_run
    from sim.results.strategy_map import Advice as Advice
    from sim.results.strategy_map import StrategyMap as StrategyMap
    from sim.scenario.document import ScenarioError as ScenarioError
    from sim.scenario.loading import build_scenario as build_scenario
    from sim.scenario.loading import load_scenario as load_scenario
    from sim.scenario.scenario import Scenario as Scenario
    from sim.simulation.presences import presences as presences

_WHERE = {
    "Advice": "sim.results.strategy_map:Advice",
    "Branches": "sim.results.branches:Branches",
    "ChurnFit": "sim.failures.churn_fit:ChurnFit",
    "MapOptions": "sim.experiments.strategy_map.study:MapOptions",
    "Results": "sim.results.storage:Results",
    "STYLE": "sim.reporting.style:STYLE",
    "Scenario": "sim.scenario.scenario:Scenario",
    "ScenarioError": "sim.scenario.loading:ScenarioError",
    "SimulatedRun": "sim.results.in_memory:SimulatedRun",
    "StrategyMap": "sim.results.strategy_map:StrategyMap",
    "SweepOptions": "sim.experiments.sweep:SweepOptions",
    "SweepOutcome": "sim.experiments.sweep:SweepOutcome",
    "advice_lines": "sim.reporting.strategy_map:advice_lines",
    "advise": "sim.experiments.strategy_map.study:advise",
    "as_results": "sim.results.in_memory:as_results",
    "branch_tables": "sim.reporting.branches:branch_tables",
    "branches": "sim.experiments.branches.study:branches",
    "branches_figure": "sim.reporting.branches:branches_figure",
    "build_scenario": "sim.scenario.loading:build_scenario",
    "compare_fit": "sim.experiments.fit_comparison:compare_fit",
    "comparison_table": "sim.reporting.tables:comparison_table",
    "default_cache": "sim.experiments.training:default_cache",
    "draw": "sim.reporting.panels:draw",
    "estimate": "sim.results.statistics:estimate",
    "figure": "sim.reporting.registry:figure_of",
    "fit_churn": "sim.failures.churn_fit:fit_churn",
    "fit_figure": "sim.reporting.churn_fit:fit_figure",
    "fit_lines": "sim.reporting.churn_fit:fit_lines",
    "ledger_hours": "sim.results.outcome_tables:ledger_hours",
    "ledger_table": "sim.reporting.ledger:ledger_table",
    "load_branches": "sim.results.branches:load_branches",
    "load_results": "sim.results.storage:load",
    "load_run": "sim.results.storage:load_run",
    "load_scenario": "sim.scenario.loading:load_scenario",
    "overheads": "sim.experiments.overheads:overheads",
    "paired_difference": "sim.results.statistics:paired_difference",
    "presences": "sim.simulation.presences:presences",
    "recoveries": "sim.experiments.overheads:recoveries",
    "replicates_needed": "sim.results.statistics:replicates_needed",
    "run_sweep": "sim.experiments.sweep:sweep_scenario",
    "simulate": "sim.experiments.sweep:simulate_run",
    "strategy_map": "sim.experiments.strategy_map.study:strategy_map",
    "strategy_map_figure": "sim.reporting.strategy_map:strategy_map_figure",
    "summary": "sim.results.statistics:summary",
    "summary_table": "sim.reporting.tables:summary_table",
    "time_to_loss": "sim.results.outcome_tables:time_to_loss",
}

__all__ = list(_WHERE)

if not TYPE_CHECKING:  # type checkers see the imports above

    def __getattr__(name):
        """Load a name from its module."""
        if name not in _WHERE:
            raise AttributeError(f"module 'churnlab' has no attribute '{name}'")
        module, _, original = _WHERE[name].partition(":")
        globals()[name] = found = getattr(import_module(module), original)
        return found

    def __dir__():
        """The names to be used."""
        return __all__
