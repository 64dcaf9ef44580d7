"""Predicted learning: training without failures and single failures, measured once, from which runs are predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from models.spec import plain_routes
from sim.core.text import format_list
from sim.experiments.branches.study import opened
from sim.experiments.strategy_map.predicted import design_of
from sim.experiments.sweep import Observer, with_target
from sim.results.prediction import Prediction
from sim.scenario.axes import ScenarioTemplate
from sim.scenario.scenario import Scenario
from sim.strategies import legend_label, strategy_class, trains_otherwise

NOT_TRAINED = "Losses: none. This page was opened with --no-training; without it, a short training comes first."


@dataclass(frozen=True)
class Learning:
    """Predicted learning by strategy under one training seed, and sentences on the origin of the losses."""

    template: ScenarioTemplate
    predictions: Mapping[str, Prediction]
    notes: tuple[str, ...]


def measured(
    template: ScenarioTemplate, cache: Path, jobs: int | None, observer: Observer, trains: bool = True
) -> Learning:
    """Train what the predictions need and the cache lacks.

    trains: whether losses are required. DataError for effects that cannot be measured; ValueError if training fails.
    """
    if template.scenario.training.learner == "none":
        return Learning(template, {}, ("Losses: none, nothing is trained (learner: none).",))
    if not trains:
        return Learning(template, {}, (NOT_TRAINED,))
    with_number = with_target(template.scenario, template.base_folder, cache)
    template = template.with_target(with_number.training.target_loss)
    scenario = template.scenario
    steps = scenario.training.evaluated_steps
    design = design_of(scenario, scenario.seeds.training[:1], is_edited=True, trunk_steps=steps)
    with opened(scenario, template.base_folder, cache, jobs, observer, design=design) as job:
        observer.noted("\n".join(job.outline()))
        job.train()
        found = job.found()
    is_unknown = {config.name for config in scenario.strategies if trains_otherwise(config.kind)}
    predictions = {name: one for name, one in found.predictions().items() if name not in is_unknown}
    return Learning(
        template,
        predictions | _failure_free(scenario, predictions),
        _notes(scenario, found.corpus_description, is_unknown),
    )


def _failure_free(scenario: Scenario, predictions: Mapping[str, Prediction]) -> dict[str, Prediction]:
    """Learning of strategies on which failures have no effect, copied from one with the same routes."""
    routes = {
        config.name: strategy_class(config.kind)(config, scenario.workload.num_stages).training_variant()
        for config in scenario.strategies
    }
    plain = plain_routes(scenario.workload.num_stages)
    trunk = next((replace(one, healing=None) for name, one in predictions.items() if routes[name] == plain), None)
    ideal = [one.name for one in scenario.strategies if not strategy_class(one.kind).stops_on_failures]
    return dict.fromkeys(ideal, trunk) if trunk else {}


def _notes(scenario: Scenario, corpus: str, is_unknown: set[str]) -> tuple[str, ...]:
    if scenario.training.learner == "curve":
        origin = "Losses: a PARAMETRIC CURVE, nothing is trained (learner: curve); for dry runs only."
    else:
        origin = (
            f"Losses: predicted, from the proxy's training without failures and from single failures, on {corpus}, "
            f"under training seed {scenario.seeds.training[0]}. No whole run is trained."
        )
    if not is_unknown:
        return (origin,)
    names = format_list([legend_label(name) for name in sorted(is_unknown)])
    return origin, f"No losses of {names}: learning while nodes are missing cannot be predicted from single failures."
