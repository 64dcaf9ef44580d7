"""Which training a set of runs asks for, and the pieces that it is cut into: each step once, whoever asks for it.

A run's seconds do not depend on what is learnt, so a run can be played without training first (`Survey`): what it asks
for is known then, state by state. The lines of all runs together make a tree, in which every step stands once.
`plan_work` cuts what is missing of it into pieces, at every fork, and says which piece must wait for which.
No torch here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from models.spec import Routes, TrainingSpec
from models.training_state import Lineage, Position, older_states, root


@dataclass
class Demand:
    """What is asked of one line: the results of its steps up to `last_step`, and validations at some."""

    last_step: int = 0
    validations: set[int] = field(default_factory=set)

    def __or__(self, other: Demand) -> Demand:
        """What both ask for."""
        return Demand(max(self.last_step, other.last_step), self.validations | other.validations)

    @property
    def end(self) -> int:
        """The last step that matters."""
        return max([self.last_step, *self.validations])


Demands = dict[Lineage, Demand]


class Survey:
    """A training that learns nothing and notes what it is asked for; implements `models.training.Training`."""

    def __init__(self, spec: TrainingSpec, iterations_per_step: int = 1) -> None:
        self.spec, self.iterations_per_step = spec, iterations_per_step
        self.num_trained_steps = 0
        self.demands: Demands = {}

    def root(self, routes: Routes) -> Position:
        """The state before the first step."""
        return root(self.spec, self.iterations_per_step, routes)

    def train_loss(self, position: Position) -> None:
        """Noted, not known."""
        demand = self.demands.setdefault(position.line_of_step, Demand())
        demand.last_step = max(demand.last_step, position.step)

    def validation_loss(self, position: Position) -> None:
        """Noted, not known."""
        self.demands.setdefault(position.lineage, Demand()).validations.add(position.step)

    def flush(self) -> None:
        """Nothing to keep."""


@dataclass(frozen=True)
class KnownLine:
    """What is at hand of a line: results by step, validations by step, and the steps whose states are kept."""

    steps: Collection[int] = frozenset()
    validations: Collection[int] = frozenset()
    states: Collection[int] = frozenset()


@dataclass(frozen=True)
class Segment:
    """A stretch of one line to train: from `start`, through edits that enter the line, up to `last_step`.

    start: the state to begin with, on this line or on the one it is forked from; None: before the first step.
    entered: the lines entered at the start, the last of them this one; each by the last of its edits.
    validations: steps at which to validate, the first and the last among them where they are this piece's to do.
    end_is_kept: the state that it leads to is at hand already, so that nobody waits for this piece to make it.
    """

    lineage: Lineage
    first_step: int
    last_step: int
    start: Position | None
    entered: tuple[Lineage, ...] = ()
    validations: frozenset[int] = frozenset()
    end_is_kept: bool = False

    @property
    def num_steps(self) -> int:
        """Steps to train."""
        return self.last_step - self.first_step

    @property
    def end(self) -> Position:
        """The state that it leads to."""
        return Position(self.lineage, self.last_step)

    @property
    def older(self) -> list[Position]:
        """Older states that its edits refer to."""
        return list(dict.fromkeys(state for lineage in self.entered for state in older_states(lineage).values()))

    @property
    def needs(self) -> list[Position]:
        """Every state that it cannot begin without."""
        return [*([self.start] if self.start else []), *self.older]


def together(demands: Iterable[Demands]) -> Demands:
    """What all ask for."""
    union: Demands = {}
    for some in demands:
        for lineage, demand in some.items():
            union[lineage] = union[lineage] | demand if lineage in union else demand
    return union


def ends(demands: Demands) -> dict[Lineage, int]:
    """Up to which step each line is asked for, those that others are forked from among them."""
    last = {lineage: demand.end for lineage, demand in demands.items()}
    climbed: set[Lineage] = set()
    for lineage in demands:
        while lineage not in climbed and (parent := lineage.parent()) is not None:
            climbed.add(lineage)
            last[parent] = max(last.get(parent, 0), lineage.first_step)
            lineage = parent
    return last


def num_steps(demands: Demands) -> int:
    """Distinct steps that are asked for."""
    return sum(max(0, end - lineage.first_step) for lineage, end in ends(demands).items())


def plan_work(demands: Demands, known: Callable[[Lineage], KnownLine], most_steps: int) -> list[Segment]:
    """The pieces that bring what is asked for and not known, none longer than `most_steps`; needs come before users."""
    wanted: dict[Lineage, set[int]] = {lineage: set() for lineage in demands}
    pieces: list[list[Segment]] = []
    for depth in range(max((len(lineage.edits) for lineage in demands), default=0), -1, -1):
        for lineage in [lineage for lineage in wanted if len(lineage.edits) == depth]:
            chains = work_on(lineage, demands.get(lineage, Demand()), wanted[lineage], known(lineage), most_steps)
            pieces += reversed(chains)  # all is turned round in the end
            for state in (state for chain in chains for state in chain[0].needs if state.lineage != lineage):
                wanted.setdefault(state.lineage, set()).add(state.step)
    return [piece for chain in reversed(pieces) for piece in chain]


def work_on(
    lineage: Lineage, demand: Demand, wanted: Collection[int], known: KnownLine, most_steps: int
) -> list[list[Segment]]:
    """The pieces that one line needs, in chains: each piece after the first starts where the one before ends.

    wanted: steps whose states others need.
    """
    first = lineage.first_step
    missing = [step for step in range(first + 1, demand.last_step + 1) if step not in known.steps]
    validations = demand.validations.difference(known.validations)
    states = set(wanted).difference(known.states)
    goals = [(step, step) for step in (*validations, *states)]
    if missing:
        goals.append((missing[0] - 1, missing[-1]))
    sources = sorted(step for step in known.states if step >= first)
    kept = frozenset(sources)
    spans: list[tuple[int, int]] = []
    for begin, end in sorted((latest(sources, begin, first), end) for begin, end in goals):
        if spans and (begin < spans[-1][1] or begin == spans[-1][0] or begin == end == spans[-1][1]):
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((begin, end))
    chains = []
    for span in spans:
        chains.append(chain_of(lineage, span, validations, states, kept, most_steps))
        validations = validations.difference(*(piece.validations for piece in chains[-1]))
    return chains


def latest(sources: Sequence[int], step: int, default: int) -> int:
    """The last of some steps up to one."""
    index = bisect_right(sources, step)
    return sources[index - 1] if index else default


def chain_of(
    lineage: Lineage,
    span: tuple[int, int],
    validations: Collection[int],
    states: Collection[int],
    kept: Collection[int],
    most_steps: int,
) -> list[Segment]:
    """One stretch of a line, cut at the states that others need and into pieces of bearable length.

    kept: steps whose states are at hand.
    """
    begin, end = span
    start, entered = (Position(lineage, begin), ()) if begin in kept else way_in(lineage)
    cuts = cuts_between(begin, end, [step for step in states if begin <= step < end], most_steps)
    chain: list[Segment] = []
    for first, last in zip([begin, *cuts], cuts, strict=False):
        due = frozenset(step for step in validations if first < step <= last or (step == first and not chain))
        chain.append(Segment(lineage, first, last, start, entered, due, last in kept))
        start, entered = Position(lineage, last), ()
    return chain


def cuts_between(begin: int, end: int, needed: Collection[int], most_steps: int) -> list[int]:
    """Where a stretch is cut: at its end, where it must be, and between at multiples of `most_steps` that leave no
    slivers.
    """
    fixed = sorted({*needed, end})
    cuts = []
    for low, high in zip([begin, *fixed], fixed, strict=False):
        whole = range(low - low % most_steps + most_steps, high, most_steps)
        cuts += [step for step in whole if min(step - low, high - step) >= most_steps // 4]
        cuts.append(high)
    return cuts


def way_in(lineage: Lineage) -> tuple[Position | None, tuple[Lineage, ...]]:
    """From where a line is entered, and through which lines, when several edits are made at once."""
    entered: list[Lineage] = []
    step = lineage.first_step
    while (parent := lineage.parent()) is not None and lineage.first_step == step:
        entered.append(lineage)
        lineage = parent
    start = Position(lineage, step) if step else None
    return start, tuple(reversed(entered))


def longest_ways(pieces: Sequence[Segment]) -> dict[Segment, int]:
    """For each piece the steps of the longest way through it to the end of all work: what to do first."""
    makers = makers_of_states(pieces)
    ways = dict.fromkeys(pieces, 0)
    for piece in reversed(pieces):
        ways[piece] += max(1, piece.num_steps)
        for state in piece.needs:
            if maker := makers.get(state):
                ways[maker] = max(ways[maker], ways[piece])
    return ways


def waits_for(pieces: Sequence[Segment]) -> Mapping[Segment, set[Segment]]:
    """For each piece, those that make the states it needs."""
    makers = makers_of_states(pieces)
    return {piece: {makers[state] for state in piece.needs if state in makers} for piece in pieces}


def makers_of_states(pieces: Sequence[Segment]) -> dict[Position, Segment]:
    """Which piece is to be waited for, for which state: none for those that are kept."""
    return {piece.end: piece for piece in pieces if not piece.end_is_kept}
