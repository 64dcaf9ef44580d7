"""Holdings: which node holds which parts of the training state, and what has to move for a cut of the pipelines."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sim.workload.costs import Costs
from sim.workload.cuts import Cut, PlacedCut

EMBEDDING, HEAD = -1, -2
"""Parts of the training state beside the layers, which have their numbers from 0."""


def parts_of(costs: Costs, cut: Cut, stage: int, first_stage: int) -> frozenset[int]:
    """Parts of the training state on the nodes of a stage of a cut: layers by number, EMBEDDING and HEAD."""
    own, before = costs.cut(cut.layers_per_stage), sum(cut.layers_per_stage[: max(0, stage - 1)])
    parts = set(range(before, before + own.num_layers(stage)))
    if stage == first_stage:
        parts.add(EMBEDDING)
    if stage == own.head_stage:
        parts.add(HEAD)
    return frozenset(parts)


def bytes_of(costs: Costs, parts: Collection[int]) -> float:
    """Bytes of parts of the training state: weights and optimizer."""
    beside = {EMBEDDING: costs.embedding_parameters, HEAD: costs.head_parameters}
    return costs.stored_bytes(sum(beside.get(part, costs.layer_parameters) for part in parts))


@dataclass(frozen=True)
class Holdings:
    """The parts of the training state that nodes hold, by slot; nodes that are not named hold none."""

    costs: Costs
    first_stage: int
    parts_at: Mapping[int, frozenset[int]]

    def parts(self, cut: Cut) -> list[frozenset[int]]:
        """The parts of each stage with nodes of a cut, from the first."""
        stages = range(self.first_stage, cut.num_stages + 1)
        return [parts_of(self.costs, cut, stage, self.first_stage) for stage in stages]

    def place(self, cut: Cut, slots: Sequence[int]) -> PlacedCut:
        """Place a cut on some of the nodes of slots so that the fewest bytes have to move."""
        from scipy.optimize import linear_sum_assignment  # light commands load no scipy

        parts, num = self.parts(cut), cut.num_pipelines
        known: dict[frozenset[int], list[float]] = {}
        rows = []
        for slot in slots:
            held = self.parts_at.get(slot, frozenset())
            if held not in known:
                known[held] = [bytes_of(self.costs, needed - held) for needed in parts for _ in range(num)]
            rows.append(known[held])
        chosen, places = linear_sum_assignment(np.array(rows))
        slot_at = {int(place): slots[int(row)] for row, place in zip(chosen, places, strict=True)}
        return PlacedCut(cut, tuple(slot_at[place] for place in range(len(slot_at))))

    def lacking_bytes(self, placed: PlacedCut) -> float:
        """Bytes of all that the nodes of a cut do not hold yet."""
        parts, num = self.parts(placed.cut), placed.cut.num_pipelines
        lacking = (
            parts[place // num] - self.parts_at.get(slot, frozenset()) for place, slot in enumerate(placed.places)
        )
        return sum(bytes_of(self.costs, each) for each in lacking)

    def moves(self, placed: PlacedCut, regions: Sequence[str]) -> Iterator[tuple[int, int, float]]:
        """Slot, slot and bytes of what has to move between nodes; a part comes from its region if it is there.

        Where several nodes hold a part, they send it to the pipelines in turn.
        """
        holders: dict[int, list[int]] = {}
        for slot, parts in sorted(self.parts_at.items()):
            for part in parts:
                holders.setdefault(part, []).append(slot)
        parts_of_stages = self.parts(placed.cut)
        for place, slot in enumerate(placed.places):
            stage, pipeline = divmod(place, placed.cut.num_pipelines)
            sent: dict[int, list[int]] = {}
            for part in sorted(parts_of_stages[stage] - self.parts_at.get(slot, frozenset())):
                near = [one for one in holders[part] if regions[one] == regions[slot]] or holders[part]
                sent.setdefault(near[pipeline % len(near)], []).append(part)
            for source, moving in sent.items():
                yield source, slot, bytes_of(self.costs, moving)
