"""The paper's claims beside the results here, with verdicts by one rule for all; docs/paper.md states it.

Order: R if every pair of seeds is on the paper's side of 1, N if every pair is on the other, ? otherwise. Size: N if
the paper's range is outside our 95 % interval; else R, or ? if the interval contains 1. A verdict read from a first
crossing must be the same with running means, or it is ?. Seconds, which do not depend on seeds: R within 10 %, or
within 1 % of plain training where the paper claims that nothing is added. Costs of Table 1: R if they are as published.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.paper.published import HIGHEST, LOWEST, RATES, RECOVERY_SECONDS, Span, quotient, row_of
from benchmarks.paper.tables import (
    EXECUTED,
    FINAL,
    LAYERS,
    RATE,
    REBUILDING,
    SECONDS,
    CostRow,
    Found,
    StudyTables,
    difference,
    name_of,
    paper_extra_nats,
    percent,
    ratio,
    ratios,
    row_at,
    share,
)
from sim.cli.tables import in_models
from sim.results.crossed_design import SEEDS

REPRODUCED, NOT_REPRODUCED, CANNOT_TELL, NOT_CLAIMED = "R", "N", "?", ""

LEAST_PAIRS = 6

SECONDS_TOLERANCE = 0.1

SHALLOW_AT = (2500, 4000)
"""Failure-free iterations of the shallow proxy at which CheckFree+ is compared with CheckFree once more."""

TIMES, TABLE_1, TABLE_2, TABLE_3, FIGURE_2, FIGURE_4C, PROXY = (
    "[times](paper-times.md)",
    "[Table 1](#table-1-costs-without-failures)",
    "[Table 2](#table-2-time-to-a-loss)",
    "[Table 3](#table-3-perplexity-at-the-end)",
    "[Fig. 2](#figure-2-what-a-lost-stage-is-filled-with)",
    "[Fig. 4c](#figure-4c-cost-of-swapping)",
    "[proxy](#how-much-depends-on-the-proxy)",
)


class Verdict(NamedTuple):
    """A row of the page: a claim, the paper's number, ours, whether order and size are reproduced, and a link."""

    claim: str
    paper: str
    here: str
    order: str
    size: str
    where: str


def verdicts(tables: StudyTables, costs: Sequence[CostRow]) -> Iterator[Verdict]:
    """Verdicts on all claims."""
    readings = [extract.to_target() for extract in (tables.extract("table2"), tables.smooth("table2"))]
    yield from seconds_verdicts(tables)
    yield from time_verdicts(readings)
    yield from iteration_verdicts(readings)
    yield longer_verdict(tables)
    yield from growth_verdicts(readings)
    yield from loss_verdicts(tables)
    yield from perplexity_verdicts(tables)
    yield from cost_verdicts(costs)


# ---- pairs of runs with equal seeds --------------------------------------------------------------------


@dataclass(frozen=True)
class PairCounts:
    """Number of pairs of equal seeds in which a metric is below the reference's, equal to it, and above it."""

    num_below: int
    num_equal: int
    num_above: int

    @property
    def num_pairs(self) -> int:
        """Number of all pairs."""
        return self.num_below + self.num_equal + self.num_above

    def order(self, is_below: bool) -> str:
        """Whether a claim that the metric is below, or above, holds in every pair; ? with too few pairs."""
        if self.num_pairs < LEAST_PAIRS:
            return CANNOT_TELL
        agree, contradict = (self.num_below, self.num_above) if is_below else (self.num_above, self.num_below)
        return {agree: REPRODUCED, contradict: NOT_REPRODUCED}.get(self.num_pairs, CANNOT_TELL)

    def count(self, is_below: bool) -> str:
        """The number of pairs in which the claim holds, as text."""
        agree = self.num_below if is_below else self.num_above
        ties = f", {self.num_equal} equal" if self.num_equal else ""
        return f"{agree} of {self.num_pairs}{ties}"


def pair_counts(runs: pd.DataFrame, metric: str, strategy: str, reference: str) -> PairCounts:
    """Comparison of two strategies by pairs of equal seeds; a target not reached counts as infinite."""
    pairs = runs.pivot(index=SEEDS, columns="strategy", values=metric).fillna(np.inf)
    own, other = pairs[strategy], pairs[reference]
    return PairCounts(int((own < other).sum()), int((own == other).sum()), int((own > other).sum()))


def combined(letters: Sequence[str]) -> str:
    """The common verdict, or ? if they differ."""
    return letters[0] if len(set(letters)) == 1 else CANNOT_TELL


# ---- ratios --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClaimCheck:
    """A result, and whether order and size are the paper's."""

    here: str
    order: str
    size: str


def size(paper: Span, found: Found) -> str:
    """Whether our interval overlaps the paper's range, and excludes 1."""
    low, high = found["low_ratio"], found["high_ratio"]
    if math.isnan(low):
        return CANNOT_TELL
    if high < paper.low or low > paper.high:
        return NOT_REPRODUCED
    return CANNOT_TELL if low <= 1 <= high else REPRODUCED


def check(readings: Sequence[pd.DataFrame], metric: str, strategy: str, reference: str, paper: Span) -> ClaimCheck:
    """A ratio of two strategies' means by the first reading, and verdicts on which all readings agree."""
    found = [row_at(ratios(runs, (), metric, reference), {"strategy": strategy}) for runs in readings]
    pairs = [pair_counts(runs, metric, strategy, reference) for runs in readings]
    is_below, sizes = paper.is_below_1, [size(paper, row) for row in found]
    counts = [one.count(paper.value < 1) for one in pairs]
    texts = [f"{ratio(row)}; {count}" for row, count in zip(found, counts, strict=True)]
    alike = len(set(sizes)) == len(set(counts)) == 1
    return ClaimCheck(
        texts[0] if alike else ", by running means ".join(texts),
        CANNOT_TELL if is_below is None else combined([one.order(is_below) for one in pairs]),
        combined(sizes),
    )


def format_span(paper: Span) -> str:
    """A published ratio with its range."""
    return f"{paper.value:.2f} ({paper.low:.2f} to {paper.high:.2f})"


def lines(
    claim: str, places: Sequence[str], papers: Sequence[Span], found: Sequence[ClaimCheck], where: str
) -> Verdict:
    """A row with one line per place, labelled by it."""
    columns = [[format_span(paper) for paper in papers]]
    columns += [[getattr(one, name) for one in found] for name in ("here", "order", "size")]
    cells = ["<br>".join(f"{place}: {cell}" for place, cell in zip(places, own, strict=True)) for own in columns]
    return Verdict._make([claim, *cells, where])


def published_ratio(metric: str, strategy: str, reference: str, rate: float) -> Span:
    """The paper's ratio of times or iterations; redundant computation stands for failure-free training."""
    other = row_of("redundant" if reference == "none" else reference, rate)
    return quotient(row_of(strategy, rate), other, in_hours=metric == SECONDS)


def by_rate(readings: Sequence[pd.DataFrame], claim: str, metric: str, strategy: str, reference: str) -> Verdict:
    """A row with one line per rate of Table 2."""
    papers = [published_ratio(metric, strategy, reference, rate) for rate in RATES]
    found = [
        check([runs[runs[RATE] == rate] for runs in readings], metric, strategy, reference, paper)
        for rate, paper in zip(RATES, papers, strict=True)
    ]
    return lines(claim, list(map(percent, RATES)), papers, found, TABLE_2)


def rates_of(runs: pd.DataFrame, strategy: str) -> pd.DataFrame:
    """A strategy's runs, with the rates in place of strategy names."""
    own = runs[runs["strategy"] == strategy]
    return own.assign(strategy=own[RATE].map(percent))


def time_verdicts(readings: Sequence[pd.DataFrame]) -> Iterator[Verdict]:
    """Training times against redundant computation, by preset, and checkpointing."""
    for strategy in REBUILDING:
        for reference in ("redundant_table2", "redundant_text", "checkpoint"):
            claim = f"time of {name_of(strategy)} ÷ {name_of(reference)}"
            yield by_rate(readings, claim, SECONDS, strategy, reference)


def iteration_verdicts(readings: Sequence[pd.DataFrame]) -> Iterator[Verdict]:
    """Iterations, × failure-free, and those of CheckFree+ against CheckFree's."""
    for strategy in (*REBUILDING, "checkpoint"):
        yield by_rate(readings, f"iterations of {name_of(strategy)}, × failure-free", EXECUTED, strategy, "none")
    plain, plus = REBUILDING
    yield by_rate(readings, "iterations of CheckFree+ ÷ CheckFree", EXECUTED, plus, plain)


def longer_verdict(tables: StudyTables) -> Verdict:
    """CheckFree+ against CheckFree in the longest runs."""
    plain, plus = REBUILDING
    shallow, paper = tables.smooth("depth").at({LAYERS: 1}), published_ratio(EXECUTED, plus, plain, HIGHEST)
    found = [check([shallow.to_target(at)], EXECUTED, plus, plain, paper) for at in SHALLOW_AT]
    claim = f"the same at {percent(HIGHEST)} after more iterations, one layer a stage (running means)"
    return lines(claim, [f"{at:,}" for at in SHALLOW_AT], [paper] * len(found), found, PROXY)


def growth_verdicts(readings: Sequence[pd.DataFrame]) -> Iterator[Verdict]:
    """Iterations at the highest rate over those at the lowest."""
    high, low = percent(HIGHEST), percent(LOWEST)
    for strategy in (*REBUILDING, "checkpoint"):
        paper = quotient(row_of(strategy, HIGHEST), row_of(strategy, LOWEST), in_hours=False)
        found = check([rates_of(runs, strategy) for runs in readings], EXECUTED, high, low, paper)
        claim = f"iterations of {name_of(strategy)} at {high} ÷ at {low}"
        yield Verdict(claim, format_span(paper), found.here, found.order, found.size, TABLE_2)


# ---- seconds, which do not depend on seeds ---------------------------------------------------------------


def seconds_verdicts(tables: StudyTables) -> Iterator[Verdict]:
    """Iteration and recovery times."""
    plain = tables.iteration_seconds("none")
    for strategy in REBUILDING:
        own, paper = tables.iteration_seconds(strategy), row_of(strategy, LOWEST).iteration_seconds
        letter = REPRODUCED if own / plain - 1 < 0.01 else NOT_REPRODUCED
        here = f"{own:.1f} s; plain training {plain:.1f} s, {own / plain - 1:+.0%}"
        claim = f"{name_of(strategy)} adds nothing to an iteration"
        yield Verdict(claim, f"{paper:.1f} s", here, NOT_CLAIMED, letter, TIMES)
    claims = {
        "redundant_text": "an iteration of redundant computation, half-size microbatches",
        "redundant_table2": "the same with full-size ones, which is twice the work",
    }
    for strategy, claim in claims.items():
        yield timed(claim, row_of(strategy, LOWEST).iteration_seconds, tables.iteration_seconds(strategy))
    yield timed("a recovery of a stage between two others", RECOVERY_SECONDS, tables.inner_recovery_seconds())


def timed(claim: str, paper: float, own: float) -> Verdict:
    """A row that compares seconds."""
    letter = REPRODUCED if abs(own / paper - 1) < SECONDS_TOLERANCE else NOT_REPRODUCED
    return Verdict(claim, f"{paper:.1f} s", f"{own:.1f} s, {own / paper - 1:+.0%}", NOT_CLAIMED, letter, TIMES)


# ---- losses ----------------------------------------------------------------------------------------------


def loss_verdicts(tables: StudyTables) -> Iterator[Verdict]:
    """Losses at the end: Figures 2, 4a and 4c."""
    names = {
        "random": "random weights",
        "copy": "a copy",
        "average": "the average",
        "checkfree": "the average weighted by gradient norms",
    }
    for worse, better in zip(names, list(names)[1:], strict=False):
        claim = f"a lost stage filled with {names[worse]} ends at a higher loss than with {names[better]}"
        yield higher(claim, "Fig. 2", tables.final("figure2"), worse, better, FIGURE_2)
    final, high, low = tables.final("table2"), percent(HIGHEST), percent(LOWEST)
    for strategy in REBUILDING:
        claim = f"loss of {name_of(strategy)} at the end, higher at {high} than at {low}"
        yield higher(claim, "Fig. 4a", rates_of(final, strategy), high, low, TABLE_2)
    claim = "swapping slows convergence without failures"
    yield higher(claim, "Fig. 4c", tables.final("figure4c"), "checkfree_plus", "none", FIGURE_4C)


def higher(claim: str, paper: str, runs: pd.DataFrame, strategy: str, reference: str, where: str) -> Verdict:
    """A row on a claim of a higher loss at the end, without a number."""
    found = row_at(ratios(runs, (), FINAL, reference), {"strategy": strategy})
    pairs = pair_counts(runs, FINAL, strategy, reference)
    here = f"{difference(found)} nats a byte; {pairs.count(is_below=False)}"
    return Verdict(claim, paper, here, pairs.order(is_below=False), NOT_CLAIMED, where)


def perplexity_verdicts(tables: StudyTables) -> Iterator[Verdict]:
    """Perplexities: Table 3."""
    by_text = [runs for _, runs in tables.perplexity_runs().groupby("text", sort=False)]

    def compared(strategy: str, reference: str, is_below: bool) -> tuple[str, str]:
        pairs = [pair_counts(runs, "loss_nats", strategy, reference) for runs in by_text]
        return " and ".join(one.count(is_below) for one in pairs), combined([one.order(is_below) for one in pairs])

    for strategy in REBUILDING:
        own, paper = tables.extra_nats(strategy), paper_extra_nats(strategy)
        counts, order = compared(strategy, "none", is_below=False)
        claim = f"failures increase perplexity with {name_of(strategy)}: additional nats a byte, by text"
        here = f"{min(own):.3f} and {max(own):.3f}; {counts}"
        yield Verdict(claim, f"{min(paper):.3f} to {max(paper):.3f}", here, order, CANNOT_TELL, TABLE_3)
    plain, plus = REBUILDING
    counts, order = compared(plus, plain, is_below=True)
    claim = "perplexity of CheckFree+ is below CheckFree's"
    yield Verdict(claim, "all texts", f"lower in {counts}", order, NOT_CLAIMED, TABLE_3)


# ---- costs -----------------------------------------------------------------------------------------------


def cost_verdicts(rows: Sequence[CostRow]) -> Iterator[Verdict]:
    """Claims of Table 1 beside the measured costs."""
    cost = {row.strategy: row for row in rows}
    saved, text, table_2 = cost["checkpoint"], cost["redundant_text"], cost["redundant_table2"]
    plain, plus = (cost[name] for name in REBUILDING)
    sizes, ends = plain.models, plain.recovers
    claims = (
        ("checkpointing stores the model once", f"{in_models(saved.stored_models)} ×", is_one(saved.stored_models)),
        (
            "redundant computation computes one forward pass more",
            f"{share(text.passes_share)} of forward and backward as `paper_text`, {share(table_2.passes_share)} as "
            "`paper_table2`",
            abs(text.passes_share - 1 / 3) < 0.005,
        ),
        (
            "redundant computation sends the model in each iteration",
            f"{in_models(text.sent_models)} × as `paper_text`; {in_models(table_2.sent_models)} × as `paper_table2`, "
            "but activations",
            is_one(text.sent_models),
        ),
        (
            "CheckFree needs no memory, storage, messages or computation without failures",
            ", ".join([*map(in_models, sizes), share(plain.passes_share)]),
            max(map(abs, (*sizes, plain.passes_share))) < 1e-9,
        ),
        (
            "CheckFree+ holds and sends embedding and head: less than a model",
            f"{in_models(plus.device_models)} × and {in_models(plus.sent_models)} ×",
            max(plus.device_models, plus.sent_models) < 1,
        ),
        (
            "CheckFree cannot recover the first and last stage",
            "copies a neighbour",
            not (ends["first"] or ends["last"]),
        ),
    )
    for claim, here, agrees in claims:
        yield Verdict(claim, "Table 1", here, NOT_CLAIMED, REPRODUCED if agrees else NOT_REPRODUCED, TABLE_1)


def is_one(multiple: float) -> bool:
    """Whether a multiple is 1, to half a per cent."""
    return abs(multiple - 1) < 0.005
