"""Replicas that train apart and are merged at times: DiLoCo in names of training states. Does not load torch.

A `Position` of several replicas has the line of the global weights, which rests between merges, and the state of each
replica, None for one that takes no part. All functions return a new Position; nothing is trained.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Literal

from models.recipe import PLAIN, REST, Recipe, rows_of_parts
from models.spec import TrainingSpec
from models.training_state import Merge, Position, root


def own_rows(number: int, num_replicas: int, spec: TrainingSpec) -> Recipe:
    """The recipe of a replica that learns its share of each batch."""
    return Recipe(rows=rows_of_parts((number,), num_replicas, spec.sequences_per_batch))


def split(position: Position, recipes: Sequence[Recipe]) -> Position:
    """Replicas that go on from one state, each by its recipe; the global weights are those of this state."""
    if not recipes:
        raise ValueError("replicas: at least one recipe, found none")
    replicas = tuple(position.entered(recipe) for recipe in recipes)
    return replace(position.entered(REST), replicas=replicas)


def synchronised(
    position: Position,
    *,
    rate: float,
    momentum: float,
    present: Collection[int] | None = None,
    shares: Sequence[float] = (),
    stages: tuple[int, ...] | None = None,
    mixing: float = 1.0,
    taken: Sequence[Position | None] | None = None,
) -> Position:
    """The state after an outer step on the global weights, which the replicas in it then receive.

    rate, momentum: of the outer optimizer, SGD with Nesterov's momentum; 1 and 0 average the weights.
    present: numbers of the replicas in the step; None: all that take part. The others stay as they are.
    shares: weight of each replica in the mean, by its number; empty: equal.
    stages: those that are synchronised, 0 being the ends; None: all.
    mixing: share of the global weights in the weights that a replica goes on with; the rest are its own.
    taken: older states of the replicas, whose weights are merged in place of the present ones, by number.
    """
    numbers = sorted(with_state(position) if present is None else set(present))
    if wrong := set(numbers).difference(with_state(position)):
        raise ValueError(f"replicas: number {min(wrong)} takes no part in the training")
    if shares and len(shares) != len(position.replicas):
        raise ValueError(f"replicas: {len(position.replicas)} of them, found {len(shares)} shares")
    states = [position.replicas[number] if taken is None else taken[number] for number in numbers]
    sources = tuple(state for state in states if state is not None)
    if len(sources) < len(numbers):
        raise ValueError("replicas: a state is taken of each replica that is present, found None")
    merge = Merge(
        sources=sources,
        shares=tuple(shares[number] for number in numbers if shares),
        rate=rate,
        momentum=momentum,
        stages=stages,
    )
    merged = global_state(position).merged(merge)
    replicas = list(position.replicas)
    for number in numbers:
        replicas[number] = received(the_replica(position, number), merged, mixing, stages)
    return replace(merged, replicas=tuple(replicas))


def averaged_in_pairs(
    position: Position,
    pairs: Iterable[tuple[int, int]],
    present: Collection[int],
    stages: tuple[int, ...] | None = None,
) -> Position:
    """The state after the two replicas of each pair have taken the mean of their weights, each with its own Adam state.

    The global weights become the mean of all replicas that are present, which no replica receives. stages: as above.
    """
    sources = tuple(the_replica(position, number) for number in sorted(present))
    replicas = list(position.replicas)
    for pair in pairs:
        mean = Merge(tuple(the_replica(position, number) for number in pair), stages=stages)
        for number in pair:
            replicas[number] = the_replica(position, number).merged(mean)
    merged = global_state(position).merged(Merge(sources, stages=stages))
    return replace(merged, replicas=tuple(replicas))


def without(position: Position, number: int) -> Position:
    """The state without a replica: it takes no part from here on, and its steps since the last merge are lost."""
    the_replica(position, number)
    replicas = tuple(None if each == number else replica for each, replica in enumerate(position.replicas))
    return replace(position, replicas=replicas)


def with_replica(position: Position, number: int, replica: Position) -> Position:
    """The state with one replica in another state at the same step, such as after an edit of a stage of it."""
    if not 0 <= number < len(position.replicas):
        raise ValueError(f"replicas: numbers are 0 to {len(position.replicas) - 1}, found {number}")
    if replica.replicas or replica.iteration != position.iteration:
        found = f"{len(replica.replicas)} replicas" if replica.replicas else f"one after iteration {replica.iteration}"
        raise ValueError(f"replicas: a state of one replica after iteration {position.iteration}, found {found}")
    replicas = tuple(replica if each == number else other for each, other in enumerate(position.replicas))
    return replace(position, replicas=replicas)


def joined(position: Position, number: int, recipe: Recipe, optimizer: Literal["fresh"] | int) -> Position:
    """The state with a replica that starts from the global weights, by its own recipe.

    optimizer: Adam's state, gradient norms and learning-rate factors: `fresh`, those of a new training, or those of
    another replica.
    """
    if optimizer == "fresh":
        begin = root(position.lineage.spec, position.iterations_per_step).entered(REST).after(position.iteration)
    else:
        begin = the_replica(position, optimizer)
    return with_replica(position, number, received(begin, global_state(position)).entered(recipe))


def rows_learnt(state: Position, since_step: int) -> int:
    """Rows of batches that the line of a state has learnt in the steps after one, for shares by rows or tokens."""
    edits, spec = state.lineage.edits, state.lineage.spec
    entered = [(0, PLAIN), *((step, entry) for step, entry in edits if isinstance(entry, Recipe))]
    until = [step for step, _ in entered[1:]] + [state.step]
    return sum(
        max(0, end - max(begin, since_step)) * recipe.num_rows(spec)
        for (begin, recipe), end in zip(entered, until, strict=True)
    )


def with_state(position: Position) -> list[int]:
    """Numbers of the replicas that take part."""
    return [number for number, replica in enumerate(position.replicas) if replica is not None]


def the_replica(position: Position, number: int) -> Position:
    """The state of a replica. ValueError if it takes no part."""
    replica = position.replicas[number] if 0 <= number < len(position.replicas) else None
    if replica is None:
        raise ValueError(f"replicas: number {number} takes no part in the training")
    return replica


def global_state(position: Position) -> Position:
    """The global weights as a state of a single line."""
    return replace(position, replicas=())


def received(
    replica: Position, merged: Position, mixing: float = 1.0, stages: tuple[int, ...] | None = None
) -> Position:
    """A replica after it has received global weights; itself if it has just received them."""
    merge = Merge((global_state(merged),), rate=mixing, stages=stages)
    last = replica.lineage.edits[-1] if replica.lineage.edits else None
    return replica if mixing == 1 and last == (replica.step, merge) else replica.merged(merge)
