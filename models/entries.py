"""Entries of a line of training states, made in a live trainer: edits, merges and recipes."""

from __future__ import annotations

from collections.abc import Mapping

from models.recipe import Recipe
from models.stacked import LiveTrainer
from models.state_graph import older_states
from models.trainer import State
from models.training_state import Lineage, Merge, Position


def make_last_entry(trainer: LiveTrainer, lineage: Lineage, states: Mapping[Position, State]) -> None:
    """Bring a trainer from the state before the last entry of a lineage to the first state of that lineage.

    states: those that the entry refers to (`states_used`).
    """
    step, entry = lineage.edits[-1]
    if trainer.step < step:  # on a line at rest
        trainer.rest_until(step)
    if isinstance(entry, Recipe):
        trainer.enter(entry)
    elif isinstance(entry, Merge):
        trainer.merge(entry, [states[source] for source in entry.sources])
    else:
        trainer.apply(entry, {moment: states[state] for moment, state in older_states(lineage).items()})
