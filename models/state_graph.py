"""The graph of training states: what a line is made of. Does not load torch."""

from __future__ import annotations

from collections.abc import Mapping

from models.training_state import Lineage, Merge, Moment, Position, terms_of


def older_states(lineage: Lineage) -> dict[Moment, Position]:
    """Older states of its own that the last entry of a lineage refers to, by moment."""
    _, edit = lineage.edits[-1]
    moments = {term.moment for term in terms_of(edit) if term.moment is not None}
    return {moment: Position(lineage.first(moment.num_edits), moment.step).settled for moment in sorted(moments)}


def states_used(lineage: Lineage) -> list[Position]:
    """States that the last entry of a lineage refers to: older ones of its own, or the sources of a merge."""
    _, entry = lineage.edits[-1]
    states = entry.sources if isinstance(entry, Merge) else older_states(lineage).values()
    return list(dict.fromkeys(states))


def origins(lineage: Lineage) -> list[Position]:
    """States that a lineage begins with: the one in which its last entry is made, and those the entry refers to."""
    parent = lineage.parent()
    return [Position(parent, lineage.first_step).settled, *states_used(lineage)] if parent else []


def all_lines(last_steps: Mapping[Lineage, int]) -> dict[Lineage, int]:
    """Last step needed of each line that these are made of, themselves included; what others are made of comes first.

    last_steps: the last step needed of some lines.
    """
    found, to_visit = dict(last_steps), list(last_steps)
    visited: set[Lineage] = set()
    while to_visit:
        if (lineage := to_visit.pop()) in visited:
            continue
        visited.add(lineage)
        for state in origins(lineage):
            found[state.lineage] = max(found.get(state.lineage, 0), state.step)
            to_visit.append(state.lineage)
    return dict(sorted(found.items(), key=lambda item: item[0].rank))
