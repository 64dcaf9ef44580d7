"""What a file of churn says of a failure process: rate, law of uptimes, bulk sizes, downtimes, hours of the day."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from sim.core.text import shortened, suggestion
from sim.core.units import HOURS_PER_DAY, SECONDS_PER_HOUR
from sim.failures.fitting import Durations, Estimate, LawFit, fit_laws, rate_per_hour
from sim.failures.history import Floats, History, TraceRow, fleet_counts, node_seconds
from sim.failures.trace_files import Trace, TraceFile, TraceFiles, read_files
from sim.failures.trace_formats import Churn, FileFormat, Polarity, read_churn
from sim.failures.trace_tables import ColumnsConfig, TimeUnit
from sim.failures.trace_text import TraceError

FEWEST_LOSSES = 10
"""Losses below which no law is told from another."""

CLEAR = 2.0
"""By how much Akaike's criterion of a law with two parameters must be below the exponential one's."""

TOGETHER_SECONDS = 60.0
"""Losses at most so long after the one before count as one event."""

MANY_TOGETHER = 0.25
"""Share of losses in events of two or more from which on a process of bulk losses describes them."""

DAYS_NEEDED = 2


@dataclass(frozen=True)
class Bulk:
    """How many nodes were lost at once: sizes of events with their numbers, and the share of losses not alone.

    mean_present: nodes present on average at a loss, of which an event of some size took its part.
    """

    sizes: Mapping[int, int]
    share_together: float
    expected_share: float
    within_regions: bool
    mean_present: float

    @property
    def mean_size(self) -> float:
        """Losses by event."""
        return sum(size * number for size, number in self.sizes.items()) / sum(self.sizes.values())

    def mean_size_of(self, num_nodes: int) -> float:
        """The mean size of events that take any of so many nodes, if these are a sample of those of the trace."""
        present = max(round(self.mean_present), *self.sizes)
        if num_nodes >= present:
            return self.mean_size
        lost = sum(number * size * num_nodes / present for size, number in self.sizes.items())
        spared = {size: float(scipy.stats.hypergeom(present, num_nodes, size).pmf(0)) for size in self.sizes}
        hit = sum(number * (1.0 - spared[size]) for size, number in self.sizes.items())
        return max(1.0, lost / hit)

    @property
    def is_bulk(self) -> bool:
        """Whether many nodes are lost together, and clearly more than by chance."""
        return self.share_together >= max(MANY_TOGETHER, 2.0 * self.expected_share)


@dataclass(frozen=True, eq=False)
class ByHour:
    """Losses and hours of presence in each hour of the day, from the trace's first instant; and a test of equality."""

    losses: Floats
    presence_hours: Floats
    p_value: float

    @property
    def weights(self) -> list[float]:
        """Relative rates of the 24 hours, with mean 1."""
        # Half a loss at the overall rate is added to each hour: an hour without losses or presence has no rate of 0.
        mean_rate = self.losses.sum() / self.presence_hours.sum()
        rates = (self.losses + 0.5) / (self.presence_hours + 0.5 / mean_rate)
        return [round(float(weight), 2) for weight in rates / rates.mean()]

    @property
    def varies(self) -> bool:
        """Whether rates differ by more than chance."""
        return self.p_value < 0.01


@dataclass(frozen=True, eq=False)
class ChurnFit:
    """Fit of a file of churn. uptimes: None if the file only counts nodes; laws: best first.

    num_nodes: of the system whose failure times are listed; then uptimes are times between failures of all of them.
    num_gone: nodes that were away at the end for longer than any that returned; they are no downtimes.
    """

    name: str
    format: str
    notes: tuple[str, ...]
    num_lost: int
    presence_hours: float
    rate: Estimate
    uptimes: Durations | None
    laws: tuple[LawFit, ...] = ()
    bulk: Bulk | None = None
    downtimes: Durations | None = None
    downtime_laws: tuple[LawFit, ...] = ()
    by_hour: ByHour | None = None
    num_nodes: int = 1
    num_gone: int = 0
    rows: tuple[TraceRow, ...] = ()

    @property
    def chosen(self) -> LawFit | None:
        """The law of the section: the best one, exponential unless another is clearly better; None with few losses."""
        if self.num_lost < FEWEST_LOSSES or not self.laws or self.num_nodes > 1:
            return None
        by_law = {fit.law: fit for fit in self.laws}
        best = self.laws[0]
        return best if best.aic + CLEAR < by_law["exponential"].aic else by_law["exponential"]

    @property
    def mean_uptime_hours(self) -> float:
        """Mean uptime of a node: of the law, or hours of presence over losses."""
        return self.chosen.mean_hours.value if self.chosen else 1.0 / self.rate.value

    def section(self, num_nodes: int | None = None) -> dict[str, Any]:
        """The `failures:` section for a cluster of `num_nodes`; default: the number in the trace."""
        downtime = self.downtime_section()
        about = {"downtime": downtime} if downtime else {}
        if self.bulk and self.bulk.is_bulk:
            scope = {"scope": "region"} if self.bulk.within_regions else {}
            mean_size = self.bulk.mean_size_of(num_nodes) if num_nodes else self.bulk.mean_size
            sizes = {"mean_size": rounded(mean_size), "max_size": max(self.bulk.sizes)}
            return {"kind": "bulk", "mean_uptime_hours": rounded(1.0 / self.rate.value), **scope, **sizes, **about}
        fitted = self.chosen
        if fitted is None or fitted.spread is None:
            mean = 1.0 / self.rate.value if fitted is None else fitted.mean_hours.value
            return {"kind": "exponential", "mean_uptime_hours": rounded(mean), "scope": "node", **about}
        spread = {"shape" if fitted.law == "weibull" else "sigma": rounded(fitted.spread.value)}
        return {
            "kind": fitted.law,
            "mean_uptime_hours": rounded(fitted.mean_hours.value),
            **spread,
            "scope": "node",
            **about,
        }

    def downtime_section(self) -> dict[str, Any] | None:
        """The option `downtime`; None where most lost nodes do not return, so that others are ordered."""
        if self.downtimes is None or not self.downtime_laws:
            return None
        if 2 * self.downtimes.num_ended < len(self.downtimes.seconds) + self.num_gone:
            return None
        best = self.downtime_laws[0]
        spread = {"spread": rounded(min(max(best.spread.value, 0.05), 10.0))} if best.spread else {}
        return {"mean_hours": rounded(best.mean_hours.value), "distribution": best.law, **spread}


def rounded(value: float) -> float:
    """A number to four significant digits."""
    return float(f"{value:.4g}")


def fit_churn(
    *files: str | Path,
    format: FileFormat = "auto",
    columns: Mapping[str, str | int] | None = None,
    unit: TimeUnit | None = None,
    polarity: Polarity = "available",
    num_nodes: int = 1,
    together_seconds: float = TOGETHER_SECONDS,
) -> ChurnFit:
    """Fit a failure process to files of churn: traces in any format, lifetimes, or times of failures.

    columns, unit, polarity: as of a trace in a scenario. num_nodes: of the system whose failure times are listed.
    together_seconds: losses that follow each other within it count as one event. Raises TraceError for a file that
    cannot be read or has no losses.
    """
    about = files_read(files, format, columns, unit, polarity)
    name = ", ".join(Path(file).name for file in files)
    if len(files) == 1:
        churn = read_churn(Path(files[0]), about.format, about.polarity, about.columns, about.unit)
        if churn.lifetimes:
            return fit_lifetimes(name, churn)
        if churn.failures is not None:
            return fit_failure_times(name, churn, num_nodes)
        return fit_trace(name, churn.format, read_files(Path(), about), together_seconds)
    return fit_trace(name, "several files", read_files(Path(), about), together_seconds)


def files_read(
    files: Sequence[str | Path],
    format: FileFormat,
    columns: Mapping[str, str | int] | None,
    unit: TimeUnit | None,
    polarity: Polarity,
) -> TraceFiles:
    """The files, and how they are read. ValueError for a column that there is not."""
    for role in columns or ():
        if role not in ColumnsConfig.model_fields:
            raise ValueError(f"columns: found '{shortened(role)}'{suggestion(role, ColumnsConfig.model_fields)}")
    named = ColumnsConfig(**columns) if columns else None
    each = tuple(TraceFile(file=str(file), region=Path(file).stem if len(files) > 1 else None) for file in files)
    return TraceFiles(each, format, named, unit, polarity)


def fit_trace(name: str, form: str, trace: Trace, together_seconds: float = TOGETHER_SECONDS) -> ChurnFit:
    """Fit what a trace says. Raises TraceError without any loss."""
    rows, history = trace.rows, trace.history
    num_lost = sum(row[2] for row in rows)
    hours = (history.node_seconds if history else node_seconds(rows)) / SECONDS_PER_HOUR
    if not num_lost:
        raise TraceError("", f"{name}: no node is lost in {hours:.4g} h of presence; a fit needs losses")
    uptimes = downtimes = None
    num_gone = 0
    if history:
        known = history.is_begun
        uptimes = Durations(history.uptimes[known], history.is_lost[known])
        downtimes, num_gone = downtimes_of(history)
    return ChurnFit(
        name=name,
        format=form,
        notes=trace.notes,
        num_lost=num_lost,
        presence_hours=hours,
        rate=rate_per_hour(num_lost, hours),
        uptimes=uptimes,
        laws=fit_laws(uptimes) if uptimes else (),
        bulk=bulk_of(rows, history, together_seconds),
        downtimes=downtimes,
        downtime_laws=fit_laws(downtimes) if downtimes and downtimes.num_ended > 1 else (),
        by_hour=by_hour_of(rows),
        num_gone=num_gone,
        rows=rows,
    )


def fit_lifetimes(name: str, churn: Churn) -> ChurnFit:
    """Fit a list of lifetimes. Raises TraceError without any loss."""
    assert churn.lifetimes
    uptimes = Durations(churn.lifetimes.seconds, churn.lifetimes.is_lost)
    hours = float(uptimes.seconds.sum()) / SECONDS_PER_HOUR
    if not uptimes.num_ended:
        raise TraceError("", f"{name}: all lifetimes are censored; a fit needs losses")
    rate = rate_per_hour(uptimes.num_ended, hours)
    return ChurnFit(name, churn.format, churn.notes, uptimes.num_ended, hours, rate, uptimes, fit_laws(uptimes))


def fit_failure_times(name: str, churn: Churn, num_nodes: int = 1) -> ChurnFit:
    """Fit the times of failures of a system of some nodes, observed from time 0 (dates: from the first failure)."""
    assert churn.failures is not None
    times, notes = churn.failures, list(churn.notes)
    if times[0] > SECONDS_PER_HOUR * HOURS_PER_DAY * 365 * 10:  # seconds since 1970
        notes.append("the observation is taken to begin at the first failure, which is not counted")
        times = times[1:] - times[0]
    elif times[0] < 0:
        raise TraceError(
            "", f"{name}: found the time {times[0]:g} s; allowed: at least 0, where the observation begins"
        )
    gaps = np.diff(times, prepend=0.0)
    if not (gaps > 0).any():
        raise TraceError("", f"{name}: no two failures lie apart; a fit needs the times of several")
    hours = num_nodes * float(times[-1]) / SECONDS_PER_HOUR
    uptimes = Durations(gaps[gaps > 0], np.ones(int((gaps > 0).sum()), bool))
    bulk = None
    if num_nodes > 1:
        bulk = bulk_from(times, None, TOGETHER_SECONDS, len(times) / max(float(times[-1]), 1.0), float(num_nodes))
    rate = rate_per_hour(len(times), hours)
    return ChurnFit(
        name, churn.format, tuple(notes), len(times), hours, rate, uptimes, fit_laws(uptimes), bulk, num_nodes=num_nodes
    )


def downtimes_of(history: History) -> tuple[Durations | None, int]:
    """Absences after losses, ended by the return of the node or censored at the end; and the number of nodes gone.

    A node that is away at the end for longer than any that returned is gone for good. None if no node returns.
    """
    returned = history.downtimes()
    returned = returned[returned > 0]
    if not len(returned):
        return None, 0
    order = np.lexsort((history.start, history.node))
    node, end, lost = history.node[order], history.end[order], history.is_lost[order]
    is_last = np.append(node[1:] != node[:-1], True)
    away = history.seconds - end[is_last & lost]
    is_gone = away > returned.max()
    away = away[(away > 0) & ~is_gone]
    ended = np.concatenate((np.ones(len(returned), bool), np.zeros(len(away), bool)))
    return Durations(np.concatenate((returned, away)), ended), int(is_gone.sum())


def bulk_of(rows: tuple[TraceRow, ...], history: History | None, together_seconds: float) -> Bulk:
    """How many nodes a trace loses at once."""
    instants = np.repeat([row[0] for row in rows], [row[2] for row in rows])
    regions = None
    if history is not None and len(history.regions) > 1:
        lost = np.flatnonzero(history.is_lost)
        lost = lost[np.argsort(history.end[lost], kind="stable")]
        regions = history.region[lost]
    present = [num + row[2] - row[1] for num, row in zip(fleet_counts(rows)[1], rows, strict=True) if row[2]]
    mean_present = float(np.average(present, weights=[row[2] for row in rows if row[2]]))
    return bulk_from(instants, regions, together_seconds, len(instants) / max(rows[-1][0], 1.0), mean_present)


def bulk_from(instants: Floats, regions: Any, together_seconds: float, per_second: float, mean_present: float) -> Bulk:
    """Events of losses that follow each other within some seconds. per_second: losses, for what chance would give."""
    event = np.cumsum(np.diff(instants, prepend=instants[0]) > together_seconds)
    sizes = np.bincount(event)
    share = float((sizes[event] > 1).mean())
    within = False
    if regions is not None and (sizes > 1).any():
        several = [len(set(regions[event == index].tolist())) == 1 for index in np.flatnonzero(sizes > 1)]
        within = float(np.mean(several)) >= 0.8
    # Of independent losses, one is alone if none lies within the window on either side.
    expected = 1.0 - math.exp(-2.0 * per_second * together_seconds)
    return Bulk(dict(sorted(Counter(sizes.tolist()).items())), share, expected, within, mean_present)


def by_hour_of(rows: tuple[TraceRow, ...]) -> ByHour | None:
    """Rates by hour of the day; None where the trace is shorter than two days."""
    end_hours = rows[-1][0] / SECONDS_PER_HOUR
    if end_hours < DAYS_NEEDED * HOURS_PER_DAY:
        return None
    instants, present = fleet_counts(rows)
    at = np.array(instants) / SECONDS_PER_HOUR
    edges = np.unique(np.concatenate((at, np.arange(math.ceil(end_hours) + 1.0))))
    edges = edges[edges <= end_hours]
    nodes = np.array(present)[np.searchsorted(at, edges[:-1], side="right") - 1]
    hour_of = np.floor(edges[:-1]).astype(int) % HOURS_PER_DAY
    presence = np.bincount(hour_of, weights=nodes * np.diff(edges), minlength=HOURS_PER_DAY)
    lost = np.array([row[2] for row in rows], float)
    losses = np.bincount(np.floor(at).astype(int) % HOURS_PER_DAY, weights=lost, minlength=HOURS_PER_DAY)
    cells = np.floor(edges[:-1]).astype(int)
    exposure = np.bincount(cells, weights=nodes * np.diff(edges))
    counts = np.bincount(np.floor(at).astype(int), weights=lost, minlength=len(exposure))[: len(exposure)]
    return ByHour(
        losses.astype(float), presence.astype(float), hours_differ(counts.astype(float), exposure.astype(float))
    )


def hours_differ(counts: Floats, exposure: Floats) -> float:
    """The p-value of equal rates in all hours of the day, from losses and hours of presence in each hour of the trace.

    Losses may come in bursts, as those of young nodes do: an F-test divides by their scatter within an hour of the day.
    """
    watched = exposure > 0
    counts, exposure, hour = counts[watched], exposure[watched], np.flatnonzero(watched) % HOURS_PER_DAY
    by_hour = [np.bincount(hour, weights=each, minlength=HOURS_PER_DAY) for each in (counts, exposure)]
    equal = exposure * counts.sum() / exposure.sum()
    own = exposure * (by_hour[0] / np.maximum(by_hour[1], 1e-9))[hour]
    between = np.bincount(hour, weights=equal, minlength=HOURS_PER_DAY)
    num_hours, some = int((between > 0).sum()), own > 0
    if len(counts) <= num_hours or num_hours < 2:
        return 1.0
    statistic = float(((by_hour[0] - between)[between > 0] ** 2 / between[between > 0]).sum()) / (num_hours - 1)
    scatter = float(((counts - own)[some] ** 2 / own[some]).sum()) / max(1, int(some.sum()) - num_hours)
    return float(scipy.stats.f.sf(statistic / max(1.0, scatter), num_hours - 1, len(counts) - num_hours))
