"""Scenarios: the configuration of a simulation, read from YAML, checked and explained.

Does not belong here: running anything.
"""

from sim.scenario.document import ScenarioError
from sim.scenario.loading import build_scenario, load_scenario, parse_scenario
from sim.scenario.scenario import Scenario

__all__ = ["Scenario", "ScenarioError", "build_scenario", "load_scenario", "parse_scenario"]
