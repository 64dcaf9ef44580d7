"""What a report is made from: the runs of a results folder that belong together, their points, what their files say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sim.reporting.html.vega import Rows
from sim.reporting.series import format_value
from sim.reporting.tables import headings
from sim.results.selection import comparable, swept_fields
from sim.results.storage import SWEEP, TABLE, Results, is_finished, load_comparison, read_json

Values = dict[str, Any]

Key = tuple[str, ...]


@dataclass(frozen=True)
class SweepPoint:
    """A point: the values of the swept fields, and the runs of every strategy there."""

    values: Values
    runs: pd.DataFrame

    @property
    def label(self) -> str:
        """The values in words; empty where nothing is swept."""
        names = (name.replace("\n", " ") for name in headings(list(self.values)))
        return ", ".join(f"{name} {told(value)}" for name, value in zip(names, self.values.values(), strict=True))


@dataclass(frozen=True)
class SweepAxis:
    """Points in a row: what varies along it, its values in words, and the place on it of every point."""

    label: str
    values: tuple[str, ...]
    places: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Replicates: their number, that of their strategy, and those of the points that they stand for."""

    number: int
    strategy: int
    points: list[int]


@dataclass(frozen=True)
class ReportData:
    """The runs that a report is about.

    results: of finished and stopped runs. failed: rows of those that could not be done. fields: the swept ones.
    parameters: by a run's name, the swept values that concern it; empty but for a sweep. num_left_out: older runs in
    the folder, of a scenario since changed; num_missing: those that the sweep has still to do.
    """

    results: Results
    failed: pd.DataFrame
    fields: tuple[str, ...]
    parameters: Mapping[str, Values]
    num_left_out: int
    num_missing: int

    @property
    def name(self) -> str:
        """The scenario's name."""
        return str(self.results.runs["scenario"].iloc[0])

    @property
    def is_sweep(self) -> bool:
        """Whether `churnlab sweep` made them."""
        return bool(self.parameters)

    @cached_property
    def points(self) -> list[SweepPoint]:
        """The points, in the order of their runs."""
        runs = self.results.runs
        parameters = [self.parameters.get(name, {}) for name in runs["run"]]
        found = []
        for values in combinations(parameters):
            is_here = [agree(values, own) for own in parameters]
            found.append(SweepPoint(values, runs[is_here]))
        return found

    @cached_property
    def strategies(self) -> list[str]:
        """Their names, in the order of their runs."""
        return list(dict.fromkeys(self.results.runs["strategy"]))

    @cached_property
    def groups(self) -> dict[Key, Group]:
        """The replicates of each strategy under each combination of the values that concern it, by `key`."""
        found: dict[Key, Group] = {}
        for key in dict.fromkeys(self.keys(self.results.runs)):
            found[key] = Group(len(found), self.strategies.index(key[0]), [])
        for number, point in enumerate(self.points):
            for key in dict.fromkeys(self.keys(point.runs)):
                found[key].points.append(number)
        return found

    @property
    def first_groups(self) -> list[int]:
        """Numbers of those at the first point."""
        return [group.number for group in self.groups.values() if 0 in group.points]

    def keys(self, rows: pd.DataFrame) -> list[Key]:
        """Of which group each row of a table is, by its strategy and swept values."""
        columns = [
            rows["strategy"],
            *(rows[field].map(format_value, na_action="ignore").fillna("") for field in self.fields),
        ]
        return list(zip(*columns, strict=True))

    @cached_property
    def axes(self) -> list[SweepAxis]:
        """Along what points differ: each swept field, those that vary together once; all points where it is no grid."""
        points = self.points
        places: dict[tuple[int, ...], list[str]] = {}
        for field in self.fields:
            texts = [told(point.values.get(field)) for point in points]
            order = list(dict.fromkeys(texts))
            places.setdefault(tuple(map(order.index, texts)), []).append(field)
        varying = {where: fields for where, fields in places.items() if max(where) > 0}
        if prod(max(where) + 1 for where in varying) != len(points):
            return [SweepAxis("swept point", tuple(point.label for point in points), tuple(range(len(points))))]
        return [
            SweepAxis(
                " and ".join(name.replace("\n", " ") for name in headings(fields)),
                tuple(told(points[where.index(place)].values.get(fields[0])) for place in range(max(where) + 1)),
                where,
            )
            for where, fields in varying.items()
        ]

    @cached_property
    def folders(self) -> list[Path]:
        """Of the runs."""
        folder = self.results.folder
        return [folder] if is_finished(folder) else [folder / name for name in self.results.runs["run"]]

    @cached_property
    def abouts(self) -> list[dict[str, Any]]:
        """What run.json says of each run whose folder is there."""
        return [read_json(folder / "run.json") for folder in self.folders if (folder / "run.json").is_file()]


def report_data(folder: Path) -> ReportData:
    """The runs of a sweep, of the last `churnlab run` of a scenario, or of one run. ValueError where there are none."""
    planned = read_json(folder / SWEEP)["runs"] if (folder / SWEEP).is_file() else []
    if planned and not (folder / TABLE).is_file():
        raise ValueError(
            f"the sweep in {folder} is under way, or was killed before it wrote {TABLE}: `churnlab status {folder}` "
            "tells how far it is, and the same `churnlab sweep` goes on"
        )
    runs = load_comparison(folder).runs
    is_done = runs["outcome"] != "failed"
    failed, done = runs[~is_done], Results(folder, runs[is_done].reset_index(drop=True))
    if done.runs.empty:
        raise ValueError(f"{folder}: all {len(failed)} runs failed, the first with: {failed['error'].iloc[0]}")
    found, fields = comparable(done), swept_fields(done)
    parameters = {str(row["run"]): known_values(row["parameters"], fields) for row in planned}
    num_left_out, num_missing = len(done.runs) - len(found.runs), len(set(parameters) - set(runs["run"]))
    return ReportData(found, failed, tuple(fields), parameters, num_left_out, num_missing)


def known_values(values: Values, fields: Sequence[str]) -> Values:
    """Those of the fields that the table of runs has."""
    return {field: value for field, value in values.items() if field in fields}


def combinations(parameters: Iterable[Values]) -> list[Values]:
    """The points: each combination of swept values that occurs; those that concern different strategies join."""
    groups: dict[tuple[str, ...], dict[str, Values]] = {}
    for values in parameters:
        groups.setdefault(tuple(values), {}).setdefault(json.dumps(values, default=str), values)
    points: list[Values] = [{}]
    for fields in sorted(groups, key=len, reverse=True):
        points = [joined for point in points for joined in joins(point, list(groups[fields].values()))]
    return points


def joins(point: Values, group: Sequence[Values]) -> list[Values]:
    """A point with each of the values that agree with it; by itself where none do."""
    return [point | values for values in group if agree(point, values)] or [point]


def agree(point: Values, values: Values) -> bool:
    """Whether a point and some values have the same in all fields of both."""
    return all(point[field] == value for field, value in values.items() if field in point)


def told(value: Any) -> str:
    """A swept value in words: a number or a name, or what a section says."""
    return json.dumps(value) if isinstance(value, dict | list) else format_value(value)


# Tables as the rows of charts: thinned, rounded, with the groups that the page's controls choose from.

SIGNIFICANT_DIGITS = 6


def thin(rows: pd.DataFrame, data: ReportData, most: int) -> pd.DataFrame:
    """No more rows than this of each group, evenly chosen; first and last, and those at a gap, stay."""
    numbers = np.array([data.groups[key].number for key in data.keys(rows)], dtype=int)
    kept = []
    for number in dict.fromkeys(numbers):
        own = rows[numbers == number]
        if len(own) > most:
            chosen = set(np.linspace(0, len(own) - 1, most).round().astype(int).tolist())
            gaps = np.flatnonzero(own["loss_nats"].isna()) if "loss_nats" in own else np.array([], dtype=int)
            if len(gaps) < most:
                chosen |= {place for gap in gaps.tolist() for place in (gap - 1, gap, gap + 1) if 0 <= place < len(own)}
            own = own.iloc[sorted(chosen)]
        kept.append(own)
    return pd.concat(kept) if kept else rows


def rows_of(table: pd.DataFrame, data: ReportData, names: dict[str, str]) -> Rows:
    """A table's columns under other names as rows, with group, strategy and, where they have none, `order`."""
    groups = [data.groups[key] for key in data.keys(table)]
    columns = {new: [plain(value) for value in table[old]] for old, new in names.items()}
    columns |= {"group": [group.number for group in groups], "strategy": [group.strategy for group in groups]}
    columns.setdefault("order", list(range(len(table))))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def plain(value: Any) -> Any:
    """A value as JSON has it: NaN is null, numbers no longer than anybody can see."""
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return None
    return int(value) if float(value).is_integer() else rounded(value)


def rounded(value: float) -> float:
    """To a few digits."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def in_columns(rows: Rows) -> dict[str, list[Any]]:
    """Rows that have the same fields as columns: a third of the bytes."""
    return {field: [row[field] for row in rows] for field in rows[0]} if rows else {}
