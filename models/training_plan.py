"""Training plan: the states that a set of runs needs, and the segments to train for them, each step once.

A run is first simulated without training (`DemandRecorder`), which gives the states it needs. The lines of all runs
form a graph, which `plan_segments` cuts into segments, at every fork and merge. This module does not load torch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from models.recipe import Recipe
from models.spec import TrainingSpec
from models.state_graph import all_lines, states_used
from models.training import Training
from models.training_state import Lineage, Position


@dataclass
class Demand:
    """Demand for one line: training losses up to `last_step`, validation losses at some steps."""

    last_step: int = 0
    validations: set[int] = field(default_factory=set)

    def __or__(self, other: Demand) -> Demand:
        return Demand(max(self.last_step, other.last_step), self.validations | other.validations)

    @property
    def end(self) -> int:
        """Last step that is needed."""
        return max([self.last_step, *self.validations])


Demands = dict[Lineage, Demand]


class DemandRecorder(Training):
    """Training that computes nothing and records the states whose losses a run needs."""

    def __init__(self, spec: TrainingSpec, iterations_per_step: int = 1) -> None:
        super().__init__(spec, iterations_per_step)
        self.demands: Demands = {}

    def loss_of_step(self, lineage: Lineage, step: int) -> None:
        """None; the demand is recorded."""
        demand = self.demands.setdefault(lineage, Demand())
        demand.last_step = max(demand.last_step, step)

    def validation_loss_of(self, state: Position) -> None:
        """None; the demand is recorded."""
        self.demands.setdefault(state.lineage, Demand()).validations.add(state.step)


@dataclass(frozen=True)
class StoredLine:
    """Steps of a line whose training losses, validation losses and states are stored."""

    steps: Collection[int] = frozenset()
    validations: Collection[int] = frozenset()
    states: Collection[int] = frozenset()


@dataclass(frozen=True)
class Segment:
    """Consecutive steps of one line to train: from `start`, through the entries of the line there, up to `last_step`.

    A line at rest has segments of no step. start: initial state, on this line or on the one it forks from; None: before
    the first step. entered: lines entered at the start, each by its last entry; the last is this one. validations:
    steps at which to validate.
    end_is_stored: whether the end state is stored already, so that no segment depends on this one for it.
    """

    lineage: Lineage
    first_step: int
    last_step: int
    start: Position | None
    entered: tuple[Lineage, ...] = ()
    validations: frozenset[int] = frozenset()
    end_is_stored: bool = False

    @property
    def num_steps(self) -> int:
        """Steps to train."""
        return self.last_step - self.first_step

    @property
    def end(self) -> Position:
        """State at the last step."""
        return Position(self.lineage, self.last_step)

    @property
    def kind(self) -> tuple[TrainingSpec, Recipe]:
        """The spec without seeds and the recipe in force: segments of equal kinds can be stacked."""
        return self.lineage.spec.without_seeds, self.lineage.recipe

    @property
    def used(self) -> list[Position]:
        """States that the entries refer to: older ones, and the sources of merges."""
        return list(dict.fromkeys(state for lineage in self.entered for state in states_used(lineage)))

    @property
    def needs(self) -> list[Position]:
        """States needed to begin."""
        return [*([self.start] if self.start else []), *self.used]

    @property
    def outlined(self) -> Segment:
        """This segment without the history of its lines, which a worker does not need and which grows with merges."""
        entered = tuple(lineage.outlined for lineage in self.entered)
        return replace(self, lineage=self.lineage.outlined, start=self.start and self.start.outlined, entered=entered)


def together(demands: Iterable[Demands]) -> Demands:
    """Union of demands."""
    union: Demands = {}
    for some in demands:
        for lineage, demand in some.items():
            union[lineage] = union[lineage] | demand if lineage in union else demand
    return union


def ends(demands: Demands) -> dict[Lineage, int]:
    """Last step needed of each line, including the lines that others are made of."""
    return all_lines({lineage: demand.end for lineage, demand in demands.items()})


def num_steps(demands: Demands) -> int:
    """Number of distinct steps needed."""
    return sum(max(0, end - lineage.first_step) for lineage, end in ends(demands).items())


def plan_segments(demands: Demands, stored_line: Callable[[Lineage], StoredLine], max_steps: int) -> list[Segment]:
    """Segments that give what is needed and not stored, of about `max_steps` at most; dependencies come first."""
    wanted: dict[Lineage, set[int]] = {lineage: set() for lineage in demands}
    by_rank: dict[int, list[Lineage]] = {}
    for lineage in wanted:
        by_rank.setdefault(lineage.rank, []).append(lineage)
    segments: list[list[Segment]] = []
    for rank in range(max(by_rank, default=0), -1, -1):  # what a line is made of has lower ranks
        for lineage in by_rank.pop(rank, ()):
            chains = segments_of_line(
                lineage, demands.get(lineage, Demand()), wanted[lineage], stored_line(lineage), max_steps
            )
            segments += reversed(chains)  # the whole list is reversed at the end
            for state in (state for chain in chains for state in chain[0].needs if state.lineage != lineage):
                if state.lineage not in wanted:
                    wanted[state.lineage] = set()
                    by_rank.setdefault(state.lineage.rank, []).append(state.lineage)
                wanted[state.lineage].add(state.step)
    return [segment for chain in reversed(segments) for segment in chain]


def segments_of_line(
    lineage: Lineage, demand: Demand, wanted: Collection[int], line: StoredLine, max_steps: int
) -> list[list[Segment]]:
    """Segments of one line, in chains, each from the end of the one before; wanted: steps whose states others need."""
    first = lineage.first_step
    missing = [step for step in range(first + 1, demand.last_step + 1) if step not in line.steps]
    validations = demand.validations.difference(line.validations)
    states = set(wanted).difference(line.states)
    goals = [(step, step) for step in (*validations, *states)]
    if missing:
        goals.append((missing[0] - 1, missing[-1]))
    stored = sorted(step for step in line.states if step >= first)
    starts = [(stored[index - 1] if (index := bisect_right(stored, begin)) else first, end) for begin, end in goals]
    spans: list[tuple[int, int]] = []
    for begin, end in sorted(starts):
        if spans and (begin < spans[-1][1] or begin == spans[-1][0] or begin == end == spans[-1][1]):
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((begin, end))
    chains = []
    for span in spans:
        chains.append(chain_of(lineage, span, validations, states, stored, max_steps))
        validations = validations.difference(*(segment.validations for segment in chains[-1]))
    return chains


def chain_of(
    lineage: Lineage,
    span: tuple[int, int],
    validations: Collection[int],
    states: Collection[int],
    stored: Collection[int],
    max_steps: int,
) -> list[Segment]:
    """Segments of a span of steps, cut at `states` that others need and about each `max_steps`; stored: their steps."""
    begin, end = span
    start: Position | None = Position(lineage, begin)
    entered: tuple[Lineage, ...] = ()
    if begin not in stored:  # begins with all edits of this step, from the line that they fork from
        num_edits = lineage.num_edits_before(lineage.first_step)
        entered = tuple(lineage.first(number) for number in range(num_edits + 1, len(lineage.edits) + 1))
        start = Position(lineage.first(num_edits), begin).settled if begin else None
    cuts = cuts_between(begin, end, [step for step in states if begin <= step < end], max_steps)
    chain: list[Segment] = []
    for first, last in zip([begin, *cuts], cuts, strict=False):
        due = frozenset(step for step in validations if first < step <= last or (step == first and not chain))
        chain.append(Segment(lineage, first, last, start, entered, due, last in stored))
        start, entered = Position(lineage, last), ()
    return chain


def cuts_between(begin: int, end: int, needed: Collection[int], max_steps: int) -> list[int]:
    """Steps at which a span is cut: its end, `needed`, and multiples of `max_steps` not too close to either."""
    fixed = sorted({*needed, end})
    cuts = []
    for low, high in zip([begin, *fixed], fixed, strict=False):
        whole = range(low - low % max_steps + max_steps, high, max_steps)
        cuts += [step for step in whole if min(step - low, high - step) >= max_steps // 4]
        cuts.append(high)
    return cuts


def longest_paths(segments: Sequence[Segment]) -> dict[Segment, int]:
    """For each segment the steps of the longest dependency path that starts with it: its priority."""
    needed, lengths = dependencies_of(segments), dict.fromkeys(segments, 0)
    for segment in reversed(segments):
        lengths[segment] += max(1, segment.num_steps)
        for producer in needed[segment]:
            lengths[producer] = max(lengths[producer], lengths[segment])
    return lengths


def dependencies_of(segments: Sequence[Segment]) -> Mapping[Segment, set[Segment]]:
    """For each segment, those that produce the states it needs that are not stored."""
    producers = {segment.end: segment for segment in segments if not segment.end_is_stored}
    return {segment: {producers[state] for state in segment.needs if state in producers} for segment in segments}
