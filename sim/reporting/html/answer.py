"""The table at the top of a report: every strategy at every point, the first one tinted, and ties named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sim.core.text import capitalized
from sim.core.units import SECONDS_PER_HOUR
from sim.reporting.html.data import ReportData, SweepPoint
from sim.reporting.notes import describe_target
from sim.reporting.tables import mean_and_spread
from sim.reporting.verdict import TO_END, TO_TARGET, MetricRanking, is_failure_free, lead
from sim.results.crossed_design import Estimate
from sim.results.statistics import estimate, points_of
from sim.strategies import legend_label

MOST_COLUMNS = 6
"""Points up to which each has a column; more points have a row each."""

Mark = Literal["", "first", "close", "reference"]


class AnswerCell(NamedTuple):
    """A strategy at a point: hours, half of their 95 % interval, and a remark."""

    hours: str
    spread: str = ""
    mark: Mark = ""
    words: str = ""


@dataclass(frozen=True)
class Answer:
    """The table: headings, and rows of a label and cells. has_verdicts: whether the last row or column is one."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, tuple[AnswerCell, ...]], ...]
    note: str


VERDICT = "first"


def answer(data: ReportData) -> Answer | None:
    """Return the table; None if there is one strategy alone, or no run with a time."""
    runs = data.results.runs
    is_to_target = bool(runs[TO_TARGET].notna().any())
    metric = TO_TARGET if is_to_target else TO_END
    if len(data.strategies) < 2 or runs[metric].isna().all():
        return None
    where = describe_target(runs) if is_to_target else "the end"
    found = [_cells(point, metric) for point in data.points]
    names = [name for name in data.strategies if any(name in cells for cells, _ in found)]
    columns = [[cells.get(name, AnswerCell("-")) for name in names] for cells, _ in found]
    verdicts = [AnswerCell(verdict) for _, verdict in found]
    labels, strategies = [point.label for point in data.points], [capitalized(legend_label(name)) for name in names]
    title = f"Simulated hours to {where}"
    rows: list[tuple[str, tuple[AnswerCell, ...]]]
    if len(labels) == 1:
        behind = [_behind(data.points[0], metric).get(name, AnswerCell("")) for name in names]
        rows = list(zip(strategies, zip(columns[0], behind, strict=True), strict=True))
        return Answer(title, ("strategy", f"hours to {where}", "behind the first"), tuple(rows), _note(found))
    if len(labels) <= MOST_COLUMNS:
        rows = list(zip(strategies, zip(*columns, strict=True), strict=True))
        rows += [(capitalized(VERDICT), tuple(verdicts))]
        return Answer(title, ("strategy", *labels), tuple(rows), _note(found))
    by_point = zip(labels, zip(*zip(*columns, strict=True), verdicts, strict=True), strict=True)
    return Answer(title, ("point", *strategies, VERDICT), tuple(by_point), _note(found))


def _note(found: Sequence[tuple[Mapping[str, AnswerCell], str]]) -> str:
    """Explain the intervals and tints that occur."""
    cells = [cell for own, _ in found for cell in own.values()]
    lines = ["Means over seeds, ± half of their 95 % interval."] if any(cell.spread for cell in cells) else []
    marks = {cell.mark for cell in cells}
    lines += ["Green: first."] if "first" in marks else []
    lines += ["Yellow: too close to call, within the uncertainty of the first."] if "close" in marks else []
    return " ".join(lines)


def _cells(point: SweepPoint, metric: str) -> tuple[dict[str, AnswerCell], str]:
    """The cell of each strategy, and the verdict in words."""
    groups = points_of(point.runs, ())
    ranked = MetricRanking.of(groups, metric)
    cells = {one.strategy: _cell(estimate(one.values(metric)), "reference") for one in groups if is_failure_free(one)}
    cells |= {one.strategy: _cell(one.takes) for one in ranked.standings}
    if not ranked.reaching:
        return cells, "no strategy reaches it" if ranked.standings else "-"
    first, *others = ranked.reaching
    name = legend_label(first.strategy)
    if not others:
        return cells, f"{name} alone"
    if not ranked.is_tested:
        return cells, "too few failures"
    if ranked.is_first_by_size:
        return cells, "decided by microbatch size"
    if ranked.has_one_sample:
        if others[0].behind <= 0.0:
            return cells, "equal"
        cells[first.strategy] = cells[first.strategy]._replace(mark="close", words="ahead, one seed")
        return cells, f"{name}, by one seed"
    if not ranked.contenders:
        cells[first.strategy] = cells[first.strategy]._replace(mark="first", words="first")
        return cells, name
    for one in (first, *ranked.contenders):
        cells[one.strategy] = cells[one.strategy]._replace(mark="close", words="too close")
    return cells, "too close to call"


def _cell(takes: Estimate, mark: Mark = "") -> AnswerCell:
    if math.isnan(takes.mean):
        return AnswerCell("-", words=f"0 of {takes.num_runs} runs", mark=mark)
    mean, spread = mean_and_spread(takes.mean / SECONDS_PER_HOUR, takes.half_width / SECONDS_PER_HOUR)
    missed = takes.num_reached < takes.num_runs
    return AnswerCell(mean, spread, mark, f"{takes.num_reached} of {takes.num_runs} runs" if missed else "")


def _behind(point: SweepPoint, metric: str) -> dict[str, AnswerCell]:
    """Lag of each strategy behind the first, in words."""
    first, *others = MetricRanking.of(points_of(point.runs, ()), metric).reaching or (None,)
    return {one.strategy: AnswerCell(lead(one, "later")) for one in others if one and first}
