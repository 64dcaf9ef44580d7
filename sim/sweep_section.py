"""The `sweep:` section of a scenario: which fields take which values, and how many replicates each point gets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from models.lineage import Config

Values = Annotated[tuple[Any, ...], Field(min_length=1)]
"""What a field takes in turn: whatever the field itself may hold."""


class SweepConfig(Config):
    """Points of a sweep: each of `list`, with each of `zip`, with every combination of `grid`.

    Fields are named as for `--set`: `failures.rate_per_hour`, `strategies[checkpoint].interval_iterations`.
    """

    grid: dict[str, Values] = Field(
        default_factory=dict, description="values for each field: every combination is a point; the last varies fastest"
    )
    zip: dict[str, Values] = Field(
        default_factory=dict, description="values for each field, equally many: the first of each together, and so on"
    )
    list: tuple[dict[str, Any], ...] = Field((), description="points by hand, each a mapping of fields to values")
    replicates: int | None = Field(
        None, ge=1, le=10**6, description="failure seeds, counted up from the one of seeds.failures"
    )
    training_replicates: int | None = Field(
        None, ge=1, le=10**6, description="training seeds, counted up from the one of seeds.training"
    )
    keep: Literal["records", "outcomes"] = Field(
        "records",
        description="records: every iteration and event of each run; outcomes: summaries alone, for thousands of runs",
    )
