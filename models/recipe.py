"""Recipes: how the steps from a training state on are trained. Does not load torch.

A recipe chooses which rows of each batch count, how the gradient is averaged, the routes, the learning rate, and
stages whose gradient is approximated. It changes no weights; it is an entry of a line of training states beside the
edits, and part of the states' names.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from models.spec import EMBEDDING_STAGE, ModelSpec, Routes, TrainingSpec, plain_routes

Route = tuple[int, ...]
Rows = npt.NDArray[np.int64]


def ascending(rows: Collection[int] | None) -> tuple[int, ...] | None:
    """Rows as numbers of Python, which have one text each. ValueError for negative and unsorted ones."""
    if rows is None:
        return None
    found = tuple(int(row) for row in rows)
    if list(found) != sorted(set(found)) or min(found, default=0) < 0:
        raise ValueError(f"recipe: rows are numbers from 0, ascending, found {found}")
    return found


@dataclass(frozen=True)
class ApproximateBackward:
    """A cheap backward pass of a stage of layers, for some rows; the forward pass and the loss are exact.

    The idea of MeCeFO (arXiv 2510.16415), not its code: a node that works for a lost one too saves the backward pass of
    attention, and most of that of the feed-forward matrices.

    rows: of the batch; None: all.
    through_attention: if false, the gradient goes through each layer by the residual path and the feed-forward part
    alone; the attention of the layer, with its norm, gets no gradient from these rows.
    rank: the gradients of the feed-forward matrices are projected on the span of the leading `rank` singular vectors of
    the matrix, on its smaller side, at this step; None, or at least that side: exact. Norms and biases are exact.
    """

    stage: int
    rows: tuple[int, ...] | None = None
    through_attention: bool = False
    rank: int | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a training."""
        object.__setattr__(self, "rows", ascending(self.rows))
        if self.rows == ():
            raise ValueError(f"recipe: backward of stage {self.stage} is of at least one row, found none")
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"recipe: the rank of a gradient is at least 1, found {self.rank}")

    def is_exact(self, model: ModelSpec) -> bool:
        """Whether the gradient is that of backpropagation."""
        smallest_side = min(model.dim, model.width_of_feed_forward)
        return self.through_attention and (self.rank is None or self.rank >= smallest_side)

    def as_text(self) -> str:
        """Stable text, for hashes."""
        parts = [f"stage {int(self.stage)}"]
        parts += [] if self.rows is None else [f"rows {self.rows}"]
        parts += ["through attention"] if self.through_attention else []
        parts += [] if self.rank is None else [f"rank {int(self.rank)}"]
        return " ".join(parts)


@dataclass(frozen=True)
class Recipe:
    """How steps are trained until another recipe is entered; the default is the training of the spec itself.

    rows: rows (sequences) of each batch that count, in ascending order; None: all. The training loss is their mean.
    Without rows, the line rests: steps pass without an update, and there is no training loss.
    average_over: the gradient is the mean over the rows that count (`counted`), or their sum divided by the number of
    rows of the whole batch (`batch`: the rows left out count as zero gradients).
    routes: in place of those of the spec: row r is of microbatch j, as ever, and takes `routes[j % len(routes)]`. A
    route may leave out stages. A stage that no counted row visits gets no update: its weights, Adam's moments and step
    count and its last gradient norm stay; the norm in the `StepResult` is 0.
    backward: stages whose gradient is approximated for some rows; each row at most once in a stage.
    rate_factor: on the learning rate of all stages, beside the factors of edits.
    validate_on_routes: whether the validation loss is the mean over the routes, weighted by the rows that take them;
    if not, it is the loss of the whole model, stages in plain order.
    """

    rows: tuple[int, ...] | None = None
    average_over: Literal["counted", "batch"] = "counted"
    routes: Routes | None = None
    backward: tuple[ApproximateBackward, ...] = ()
    rate_factor: float = 1.0
    validate_on_routes: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without a training."""
        object.__setattr__(self, "rows", ascending(self.rows))
        if self.average_over not in ("counted", "batch"):
            raise ValueError(f"recipe: average_over is 'counted' or 'batch', not '{self.average_over}'")
        if self.routes is not None:
            object.__setattr__(self, "routes", tuple(tuple(int(stage) for stage in route) for route in self.routes))
            if not self.routes or any(len(set(route)) < len(route) for route in self.routes):
                raise ValueError(f"recipe: at least one route, no stage twice in one, found {self.routes}")
        if not (math.isfinite(self.rate_factor) and self.rate_factor > 0):
            raise ValueError(f"recipe: rate_factor is finite and above 0, found {self.rate_factor}")

    @property
    def is_rest(self) -> bool:
        """Whether steps pass without an update."""
        return self.rows == ()

    def num_rows(self, spec: TrainingSpec) -> int:
        """Number of rows of each batch that count."""
        return spec.sequences_per_batch if self.rows is None else len(self.rows)

    def as_text(self) -> str:
        """Stable text of this recipe, for hashes and logs: fields at their defaults are left out."""
        parts = ["recipe"]
        if self.rows is not None:
            parts.append(f"rows {self.rows}")
        if self.average_over != "counted":
            parts.append(f"over {self.average_over}")
        if self.routes is not None:
            parts.append(f"routes {self.routes}")
        if self.backward:
            parts.append(f"backward {', '.join(each.as_text() for each in self.backward)}")
        if self.rate_factor != 1:
            parts.append(f"rate {float(self.rate_factor)!r}")
        if self.validate_on_routes:
            parts.append("validated on routes")
        return ":".join(parts)

    def of_training(self, spec: TrainingSpec) -> Recipe:
        """This recipe without what changes nothing in a training, such as rows that are the whole batch.

        ValueError for a row or a stage that the training does not have.
        """
        batch, stages = range(spec.sequences_per_batch), range(EMBEDDING_STAGE + 1, spec.model.num_stages + 1)
        rows = {row for some in (self.rows, *(each.rows for each in self.backward)) for row in some or ()}
        if wrong := rows.difference(batch):
            raise ValueError(f"recipe: a batch has rows 0 to {batch[-1]}, found {min(wrong)}")
        if wrong := {stage for route in self.routes or () for stage in route}.difference(stages):
            raise ValueError(f"recipe: routes visit stages 1 to {stages[-1]}, found {min(wrong)}")
        if wrong := {each.stage for each in self.backward}.difference(stages):
            raise ValueError(f"recipe: backward is of stages 1 to {stages[-1]}, found {min(wrong)}")
        twice = Counter(
            (each.stage, row) for each in self.backward for row in (batch if each.rows is None else each.rows)
        )
        if wrong := {stage for (stage, _), count in twice.items() if count > 1}:
            raise ValueError(f"recipe: backward has a row of stage {min(wrong)} twice")
        if self.is_rest:
            return REST
        plain = replace(self, backward=tuple(each for each in self.backward if not each.is_exact(spec.model)))
        if self.rows is not None and len(self.rows) == spec.sequences_per_batch:
            plain = replace(plain, rows=None)
        if plain.rows is None:
            plain = replace(plain, average_over="counted")
        if self.routes == spec.routes:
            plain = replace(plain, routes=None)
        if (plain.routes or spec.routes) == plain_routes(spec.model.num_stages):
            plain = replace(plain, validate_on_routes=False)
        return plain


PLAIN = Recipe()
"""The recipe in force where none was entered."""

REST = Recipe(rows=())
"""Steps pass without an update."""


def rows_by_route(spec: TrainingSpec, recipe: Recipe = PLAIN) -> dict[Route, Rows]:
    """Rows of the batch that count on each route: microbatch j (equal, contiguous) takes routes[j mod n]."""
    routes = recipe.routes or spec.routes
    rows = np.arange(spec.sequences_per_batch) if recipe.rows is None else np.array(recipe.rows, dtype=np.int64)
    route_of_row = rows * spec.num_microbatches // spec.sequences_per_batch % len(routes)
    groups: dict[Route, list[Rows]] = {}
    for index, route in enumerate(routes):
        groups.setdefault(route, []).append(rows[route_of_row == index])  # routes may be equal
    found = {route: np.sort(np.concatenate(parts)) for route, parts in groups.items()}
    return {route: rows for route, rows in found.items() if len(rows)}


class Pass(NamedTuple):
    """How rows go through the model: their route, and the stages on it whose backward pass is approximated for them."""

    route: Route
    backward: tuple[ApproximateBackward, ...] = ()


def rows_by_pass(spec: TrainingSpec, recipe: Recipe = PLAIN) -> dict[Pass, Rows]:
    """Rows of the batch that count on each route, apart where other stages' backward passes are approximated."""
    found: dict[Pass, list[int]] = {}
    for route, rows in rows_by_route(spec, recipe).items():
        for row in rows.tolist():
            found.setdefault(Pass(route, approximations(recipe, route, row)), []).append(row)
    return {way: np.array(rows) for way, rows in found.items()}


def approximations(recipe: Recipe, route: Route, row: int) -> tuple[ApproximateBackward, ...]:
    """The approximations for a row, without the rows of each."""
    of_row = (each for each in recipe.backward if each.stage in route and (each.rows is None or row in each.rows))
    return tuple(replace(each, rows=None) for each in of_row)


def visited_stages(passes: Collection[Pass]) -> set[int]:
    """Stages that rows visit in these passes: the ends always."""
    return {EMBEDDING_STAGE, *(stage for each in passes for stage in each.route)}


def rows_of_parts(parts: Collection[int], num_parts: int, num_rows: int) -> tuple[int, ...]:
    """Rows of a batch that lie in some of `num_parts` equal, contiguous parts of it, such as the shares of pipelines.

    A row belongs to the part that holds its middle, so that each part has about its share of the rows.
    """
    return tuple(row for row in range(num_rows) if (2 * row + 1) * num_parts // (2 * num_rows) in parts)
