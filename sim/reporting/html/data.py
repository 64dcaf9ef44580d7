"""The data of a report: the comparable runs of a results folder, their points, and the rows of charts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sim.reporting.series import DASH_DOT_DOT, LONG_DASHES, LineStyle, styles_by_kind
from sim.reporting.words import format_value, words_of
from sim.results.selection import comparable, swept_fields
from sim.results.storage import TABLE, Results, load_comparison, read_about, read_plan
from sim.strategies import legend_label

Values = dict[str, Any]
Rows = list[dict[str, Any]]
Key = tuple[str, ...]
Working = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Context of some work with a number of parts, with a function to call after each part; shows progress."""

DASHES: dict[LineStyle, tuple[int, ...]] = {
    "-": (),
    "--": (6, 3),
    "-.": (7, 3, 2, 3),
    ":": (2, 3),
    LONG_DASHES: (12, 3),
    DASH_DOT_DOT: (7, 2, 2, 2, 2, 2),
}
"""Dashes in pixels of matplotlib's line styles."""


SHAPES = {
    **{"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross"},
    "X": "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z",
}
"""Shapes of matplotlib's markers."""


@contextmanager
def silently(what: str, num_parts: int) -> Iterator[Callable[[], None]]:  # noqa: ARG001
    """Context of work whose progress is not shown."""
    yield lambda: None


class LegendStyle(NamedTuple):
    """A strategy in the legend: display name, colour, dashes in pixels (none: a solid line), shape of its marks."""

    label: str
    colour: str
    dashes: tuple[int, ...]
    shape: str


@dataclass(frozen=True)
class SweepPoint:
    """A point of a sweep: the values of the swept fields, and the runs of every strategy there."""

    values: Values
    runs: pd.DataFrame

    @property
    def label(self) -> str:
        """The values in words; empty without a sweep."""
        return ", ".join(_with_value(field, value) for field, value in self.values.items())


class SweepAxis(NamedTuple):
    """An axis of a sweep: its field or fields, its values in words, and the place of every point on it.

    numbers: the values in the unit of the label; empty if they are no numbers, or of several fields.
    """

    label: str
    values: tuple[str, ...]
    places: tuple[int, ...]
    numbers: tuple[float, ...] = ()


class Group(NamedTuple):
    """A group of replicates: its number, that of its strategy, and those of the points that it belongs to."""

    number: int
    strategy: int
    points: list[int]


@dataclass(frozen=True)
class ReportData:
    """The runs of a report: results of finished and stopped ones, rows of failed ones."""

    results: Results
    failed: pd.DataFrame
    fields: tuple[str, ...]  # swept ones
    parameters: Mapping[str, Values]  # by run, the swept values that apply to it
    num_left_out: int  # runs of older versions of the scenario
    num_missing: int  # unfinished planned runs
    working: Working = silently  # shows the progress of long parts

    @property
    def name(self) -> str:
        """The scenario's name."""
        return str(self.results.runs["scenario"].iloc[0])

    @cached_property
    def points(self) -> list[SweepPoint]:
        """The points, in the order of their runs."""
        runs = self.results.runs
        parameters = [self.parameters.get(name, {}) for name in runs["run"]]
        return [
            SweepPoint(values, runs[[_agree(values, own) for own in parameters]]) for values in combinations(parameters)
        ]

    @cached_property
    def strategies(self) -> list[str]:
        """The names of the strategies, in the order of their runs."""
        return list(dict.fromkeys(self.results.runs["strategy"]))

    @cached_property
    def styles(self) -> list[LegendStyle]:
        """Each strategy's style, as in all figures."""
        runs = self.results.runs
        styles = styles_by_kind(dict(zip(runs["strategy"], runs["kind"], strict=True)))
        return [
            LegendStyle(legend_label(name), style.colour, DASHES[style.line], SHAPES[style.marker])
            for name, style in styles.items()
        ]

    @cached_property
    def groups(self) -> dict[Key, Group]:
        """The replicates of each strategy under each combination of its swept values, by `keys`."""
        keys = dict.fromkeys(self.keys(self.results.runs))
        found = {key: Group(number, self.strategies.index(key[0]), []) for number, key in enumerate(keys)}
        for number, point in enumerate(self.points):
            for key in dict.fromkeys(self.keys(point.runs)):
                found[key].points.append(number)
        return found

    @property
    def first_groups(self) -> list[int]:
        """The numbers of the groups at the first point."""
        return [group.number for group in self.groups.values() if 0 in group.points]

    def keys(self, rows: pd.DataFrame) -> list[Key]:
        """Return the key of the group of each row of a table."""
        in_words = lru_cache(None, typed=True)(format_value)  # tables of curves repeat a few values
        values = [rows[field].map(in_words, na_action="ignore").fillna("") for field in self.fields]
        return list(zip(rows["strategy"], *values, strict=True))

    @cached_property
    def axes(self) -> list[SweepAxis]:
        """The axes of the sweep: each swept field, those that vary together once; all points in a row if not a grid."""
        places: dict[tuple[int, ...], tuple[list[str], tuple[str, ...]]] = {}
        for field in self.fields:
            numbers, texts = pd.factorize(np.array([_value(field, p.values.get(field)) for p in self.points], object))
            if len(texts) > 1:
                places.setdefault(tuple(numbers.tolist()), ([], tuple(texts)))[0].append(field)
        if prod(len(texts) for _, texts in places.values()) != len(self.points):
            labels = tuple(point.label for point in self.points)
            return [SweepAxis("swept point", labels, tuple(range(len(labels))))]
        return [
            SweepAxis(" and ".join(words_of(field).label for field in fields), texts, where, self._numbers(fields))
            for where, (fields, texts) in places.items()
        ]

    def _numbers(self, fields: list[str]) -> tuple[float, ...]:
        """The values of a field that holds numbers alone, in the order of their points."""
        values = [point.values.get(fields[0]) for point in self.points]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(fields) > 1 or len(numbers) < len(values):
            return ()
        return tuple(rounded(words_of(fields[0]).factor * number) for number in dict.fromkeys(numbers))

    @cached_property
    def abouts(self) -> list[dict[str, Any]]:
        """The contents of run.json of each run whose folder exists."""
        return [read_about(folder) for folder in self.results.folders.values() if (folder / "run.json").is_file()]


def report_data(folder: Path, working: Working = silently) -> ReportData:
    """Load a sweep, the last `churnlab run` of a scenario, or one run. ValueError if there are no runs."""
    planned = read_plan(folder)
    if planned and not (folder / TABLE).is_file():
        remedy = f"`churnlab status {folder}` shows its progress, and the same `churnlab sweep` resumes it"
        raise ValueError(f"the sweep in {folder} is under way, or was killed before it wrote {TABLE}: {remedy}")
    runs = load_comparison(folder).runs
    is_done = runs["outcome"] != "failed"
    failed, done = runs[~is_done], Results(folder, runs[is_done].reset_index(drop=True))
    if done.runs.empty:
        raise ValueError(f"{folder}: all {len(failed)} runs failed, the first with: {failed['error'].iloc[0]}")
    found, fields = comparable(done), swept_fields(done)
    parameters = {
        str(row["run"]): {field: value for field, value in row["parameters"].items() if field in fields}
        for row in planned
    }
    num_left_out, num_missing = len(done.runs) - len(found.runs), len(set(parameters) - set(runs["run"]))
    with working("runs read", len(found.runs)) as run_done:
        found = found.read(("iterations", "events", "nodes"), run_done)
    return ReportData(found, failed, tuple(fields), parameters, num_left_out, num_missing, working)


def combinations(parameters: Iterable[Values]) -> list[Values]:
    """Return each combination of swept values that occurs; values of different strategies are joined."""
    groups: dict[tuple[str, ...], dict[str, Values]] = {}
    for values in parameters:
        groups.setdefault(tuple(values), {}).setdefault(json.dumps(values, default=str), values)
    points: list[Values] = [{}]
    for fields in sorted(groups, key=len, reverse=True):
        joined = []
        for point in points:
            agreeing = [values for values in groups[fields].values() if _agree(point, values)]
            joined += [point | values for values in agreeing or [{}]]
        points = joined
    return points


def _agree(point: Values, values: Values) -> bool:
    return all(point[field] == value for field, value in values.items() if field in point)


def _value(field: str, value: Any) -> str:
    """A swept value in the unit of its field in words; a long section in full, so that two of them differ."""
    if not isinstance(value, dict | list):
        return words_of(field).value(value)
    whole = json.dumps(value)
    text = words_of(field).value(whole)
    return whole if text.endswith("...") else text


def _with_value(field: str, value: Any) -> str:
    words = words_of(field)
    return " ".join(filter(None, (words.name, _value(field, value), words.unit)))


def thin(rows: pd.DataFrame, data: ReportData, most: int) -> pd.DataFrame:
    """Select at most so many rows of each group, evenly; the first, the last and those at a gap are kept."""
    kept = []
    for _, own in rows.groupby([data.groups[key].number for key in data.keys(rows)], sort=False):
        if len(own) > most:
            chosen = np.linspace(0, len(own) - 1, most).round().astype(int)
            gaps = np.flatnonzero(own["loss_nats"].isna()) if "loss_nats" in own else chosen[:0]
            if len(gaps) < most:
                chosen = np.concatenate([chosen, gaps - 1, gaps, gaps + 1])
            own = own.iloc[np.unique(chosen[(chosen >= 0) & (chosen < len(own))])]
        kept.append(own)
    return pd.concat(kept) if kept else rows


def rows_of(table: pd.DataFrame, data: ReportData, names: dict[str, str]) -> Rows:
    """Return a table as rows with renamed columns, and with group, strategy and, if there is none, `order`."""
    groups = [data.groups[key] for key in data.keys(table)]
    columns = {new: [plain(value) for value in table[old]] for old, new in names.items()}
    columns |= {"group": [group.number for group in groups], "strategy": [group.strategy for group in groups]}
    columns.setdefault("order", list(range(len(table))))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def plain(value: Any) -> Any:
    """Convert a value for JSON: NaN to null, numbers to a few digits."""
    if isinstance(value, str) or pd.isna(value):
        return value if isinstance(value, str) else None
    return int(value) if float(value).is_integer() else rounded(value)


def rounded(value: float) -> float:
    """Round to a few digits."""
    return float(f"{value:.6g}")
