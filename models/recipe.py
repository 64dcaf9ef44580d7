"""Recipes: how the steps from a training state on are trained. Does not load torch.

A recipe chooses which rows of each batch count, how the gradient is averaged, the routes and the learning rate. It
changes no weights; it is an entry of a line of training states beside the edits, and part of the states' names.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.spec import EMBEDDING_STAGE, Routes, TrainingSpec, plain_routes

Route = tuple[int, ...]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """How steps are trained until another recipe is entered; the default is the training of the spec itself.

    rows: rows (sequences) of each batch that count, in ascending order; None: all. The training loss is their mean.
    average_over: the gradient is the mean over the rows that count (`counted`), or their sum divided by the number of
    rows of the whole batch (`batch`: the rows left out count as zero gradients).
    routes: in place of those of the spec: row r is of microbatch j, as ever, and takes `routes[j % len(routes)]`. A
    route may leave out stages. A stage that no counted row visits gets no update: its weights, Adam's moments and step
    count and its last gradient norm stay; the norm in the `StepResult` is 0.
    rate_factor: on the learning rate of all stages, beside the factors of edits.
    validate_on_routes: whether the validation loss is the mean over the routes, weighted by the rows that take them;
    if not, it is the loss of the whole model, stages in plain order.
    """

    rows: tuple[int, ...] | None = None
    average_over: Literal["counted", "batch"] = "counted"
    routes: Routes | None = None
    rate_factor: float = 1.0
    validate_on_routes: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without a training."""
        if self.rows is not None:
            object.__setattr__(self, "rows", tuple(int(row) for row in self.rows))  # numpy's have other texts
            if not self.rows or self.rows[0] < 0 or list(self.rows) != sorted(set(self.rows)):
                raise ValueError(f"recipe: rows are at least one number from 0, ascending, found {self.rows}")
        if self.average_over not in ("counted", "batch"):
            raise ValueError(f"recipe: average_over is 'counted' or 'batch', not '{self.average_over}'")
        if self.routes is not None:
            object.__setattr__(self, "routes", tuple(tuple(int(stage) for stage in route) for route in self.routes))
            if not self.routes or any(len(set(route)) < len(route) for route in self.routes):
                raise ValueError(f"recipe: at least one route, no stage twice in one, found {self.routes}")
        if not (math.isfinite(self.rate_factor) and self.rate_factor > 0):
            raise ValueError(f"recipe: rate_factor is finite and above 0, found {self.rate_factor}")

    def as_text(self) -> str:
        """Stable text of this recipe, for hashes and logs: fields at their defaults are left out."""
        parts = ["recipe"]
        if self.rows is not None:
            parts.append(f"rows {self.rows}")
        if self.average_over != "counted":
            parts.append(f"over {self.average_over}")
        if self.routes is not None:
            parts.append(f"routes {self.routes}")
        if self.rate_factor != 1:
            parts.append(f"rate {float(self.rate_factor)!r}")
        if self.validate_on_routes:
            parts.append("validated on routes")
        return ":".join(parts)

    def of_training(self, spec: TrainingSpec) -> Recipe:
        """This recipe without what changes nothing in a training, such as rows that are the whole batch.

        ValueError for a row or a stage that the training does not have.
        """
        if self.rows and self.rows[-1] >= spec.sequences_per_batch:
            batch = f"a batch has rows 0 to {spec.sequences_per_batch - 1}"
            raise ValueError(f"recipe: {batch}, found {self.rows[-1]}")
        stages = range(EMBEDDING_STAGE + 1, spec.model.num_stages + 1)
        if wrong := {stage for route in self.routes or () for stage in route}.difference(stages):
            raise ValueError(f"recipe: routes visit stages 1 to {stages[-1]}, found {min(wrong)}")
        plain = self
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


def rows_by_route(spec: TrainingSpec, recipe: Recipe = PLAIN) -> dict[Route, Rows]:
    """Rows of the batch that count on each route: microbatch j (equal, contiguous) takes routes[j mod n]."""
    routes = recipe.routes or spec.routes
    rows = np.arange(spec.sequences_per_batch) if recipe.rows is None else np.array(recipe.rows)
    route_of_row = rows * spec.num_microbatches // spec.sequences_per_batch % len(routes)
    groups: dict[Route, list[Rows]] = {}
    for index, route in enumerate(routes):
        groups.setdefault(route, []).append(rows[route_of_row == index])  # routes may be equal
    found = {route: np.sort(np.concatenate(parts)) for route, parts in groups.items()}
    return {route: rows for route, rows in found.items() if len(rows)}


def visited_stages(groups: Collection[Route]) -> set[int]:
    """Stages that are trained by rows on these routes: the ends always."""
    return {EMBEDDING_STAGE, *(stage for route in groups for stage in route)}


def rows_of_parts(parts: Collection[int], num_parts: int, num_rows: int) -> tuple[int, ...]:
    """Rows of a batch that lie in some of `num_parts` equal, contiguous parts of it, such as the shares of pipelines.

    A row belongs to the part that holds its middle, so that each part has about its share of the rows.
    """
    return tuple(row for row in range(num_rows) if (2 * row + 1) * num_parts // (2 * num_rows) in parts)
