"""The paper's claims beside what came out here, with verdicts by one rule for all; docs/paper.md states it.

Order: R where every pair of seeds is on the paper's side of 1, N where every pair is on the other, ? otherwise. Size: N
where the paper's range is outside our 95 % interval; else R, or ? where the interval holds 1. What is read from a first
crossing must come out alike from running means, or is ?. Seconds that no seed changes: R within 10 %, or within 1 % of
plain training where that is claimed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from benchmarks.paper.answers import (
    EXECUTED,
    FINAL,
    HIGHEST,
    LAYERS,
    RATE,
    REBUILDING,
    SECONDS,
    paper_extra_nats,
    ratios,
)
from benchmarks.paper.page_cells import Found, Row, difference, name_of, percent, ratio, row_at
from benchmarks.paper.page_numbers import Numbers
from benchmarks.paper.published import RATES, RECOVERY_SECONDS, Span, quotient, row_of
from benchmarks.paper.sides import CANNOT_TELL, NOT_REPRODUCED, REPRODUCED, combined, side

NOT_CLAIMED = ""

SECONDS_TOLERANCE = 0.1

LOWEST = RATES[0]

SHALLOW_AT = (2500, 4000)
"""Failure-free iterations of the shallow proxy at which CheckFree+ is set beside CheckFree once more."""

TIMES, TABLE_2, PROXY = (
    "[times](paper-times.md)",
    "[Table 2](#table-2-time-to-a-loss)",
    "[proxy](#how-much-depends-on-the-proxy)",
)


@dataclass(frozen=True)
class ClaimCheck:
    """What came out, and whether order and size are the paper's."""

    here: str
    order: str
    size: str


def size(paper: Span, found: Found) -> str:
    """Whether our interval meets the paper's range, and is narrow enough to tell it from 1."""
    low, high = found["low_ratio"], found["high_ratio"]
    if math.isnan(low):
        return CANNOT_TELL
    if high < paper.low or low > paper.high:
        return NOT_REPRODUCED
    return CANNOT_TELL if low <= 1 <= high else REPRODUCED


def beside(readings: Sequence[pd.DataFrame], metric: str, strategy: str, reference: str, paper: Span) -> ClaimCheck:
    """A ratio of two strategies' means beside the paper's, as the first reading has it; letters in which all agree."""
    found = [row_at(ratios(runs, (), metric, reference), {"strategy": strategy}) for runs in readings]
    pairs = [side(runs, metric, strategy, reference) for runs in readings]
    is_below, sizes = paper.is_below_1, [size(paper, row) for row in found]
    counts = [one.count(paper.value < 1) for one in pairs]
    told = [f"{ratio(row)}; {count}" for row, count in zip(found, counts, strict=True)]
    alike = len(set(sizes)) == len(set(counts)) == 1
    return ClaimCheck(
        told[0] if alike else ", by running means ".join(told),
        CANNOT_TELL if is_below is None else combined([one.order(is_below) for one in pairs]),
        combined(sizes),
    )


def in_words(paper: Span) -> str:
    """A published ratio with its range."""
    return f"{paper.value:.2f} ({paper.low:.2f} to {paper.high:.2f})"


def lines(claim: str, places: Sequence[str], paper: Sequence[str], found: Sequence[ClaimCheck], where: str) -> Row:
    """A row with a line for each place, whose name begins it."""
    here, orders, sizes = ([getattr(verdict, name) for verdict in found] for name in ("here", "order", "size"))
    columns = [zip(places, cells, strict=True) for cells in (paper, here, orders, sizes)]
    return claim, *("<br>".join(f"{place}: {cell}" for place, cell in column) for column in columns), where


def iterations_of(strategy: str, rate: float, other: str) -> Span:
    """The paper's iterations over another strategy's; redundant computation's are the failure-free ones."""
    return quotient(row_of(strategy, rate), row_of(other, rate), in_hours=False)


def rates_of(runs: pd.DataFrame, strategy: str) -> pd.DataFrame:
    """A strategy's runs, with its rates in the place of strategies."""
    own = runs[runs["strategy"] == strategy]
    return own.assign(strategy=own[RATE].map(percent))


class Verdicts:
    """Rows: claim, paper, here, order, size, where more of it is."""

    def __init__(self, of: Numbers) -> None:
        self.of = of
        self.table_2 = [extract.to_target() for extract in (of.extract("table2"), of.smooth("table2"))]

    def rows(self) -> Iterator[Row]:
        """All of them."""
        yield from self.seconds()
        yield from self.times()
        yield from self.iterations()
        yield self.longer()
        yield from self.growth()
        yield from self.losses()
        yield from self.perplexities()

    def at(self, rate: float) -> list[pd.DataFrame]:
        """Runs of Table 2, as first crossings and running means have them."""
        return [runs[runs[RATE] == rate] for runs in self.table_2]

    # ---- seconds ----------------------------------------------------------------------------------

    def seconds(self) -> Iterator[Row]:
        """What no seed changes."""
        plain = float(self.of.seconds("none"))
        for strategy in REBUILDING:
            extra = float(self.of.seconds(strategy)) / plain - 1
            verdict = REPRODUCED if extra < 0.01 else NOT_REPRODUCED
            here = f"{self.of.seconds(strategy)} s; plain training {plain:.1f} s, {extra:+.0%}"
            claim = f"{name_of(strategy)} adds nothing to an iteration"
            yield claim, f"{row_of(strategy, LOWEST).iteration_seconds:.1f} s", here, NOT_CLAIMED, verdict, TIMES
        claims = {
            "redundant_text": "an iteration of redundant computation, half-size microbatches",
            "redundant_table2": "the same with full-size ones, which is twice the work",
        }
        for strategy, claim in claims.items():
            yield self.timed(claim, row_of(strategy, LOWEST).iteration_seconds, float(self.of.seconds(strategy)))
        yield self.timed("a recovery of a stage between two others", RECOVERY_SECONDS, self.of.inner_recovery_seconds())

    @staticmethod
    def timed(claim: str, paper: float, own: float) -> Row:
        """A row of seconds."""
        verdict = REPRODUCED if abs(own / paper - 1) < SECONDS_TOLERANCE else NOT_REPRODUCED
        return claim, f"{paper:.1f} s", f"{own:.1f} s, {own / paper - 1:+.0%}", NOT_CLAIMED, verdict, TIMES

    # ---- Table 2 ----------------------------------------------------------------------------------

    def times(self) -> Iterator[Row]:
        """Train times against redundant computation, by preset, and checkpointing."""
        for strategy in REBUILDING:
            for reference in ("redundant_table2", "redundant_text", "checkpoint"):
                papers = [quotient(row_of(strategy, rate), row_of(reference, rate), in_hours=True) for rate in RATES]
                claim = f"time of {name_of(strategy)} ÷ {name_of(reference)}"
                yield self.by_rate(claim, SECONDS, strategy, reference, papers)

    def iterations(self) -> Iterator[Row]:
        """Iterations, × failure-free, and those of CheckFree+ against CheckFree's."""
        for strategy in (*REBUILDING, "checkpoint"):
            papers = [iterations_of(strategy, rate, "redundant") for rate in RATES]
            claim = f"iterations of {name_of(strategy)}, × failure-free"
            yield self.by_rate(claim, EXECUTED, strategy, "none", papers)
        plain, plus = REBUILDING
        papers = [iterations_of(plus, rate, plain) for rate in RATES]
        yield self.by_rate("iterations of CheckFree+ ÷ CheckFree", EXECUTED, plus, plain, papers)

    def by_rate(self, claim: str, metric: str, strategy: str, reference: str, papers: Sequence[Span]) -> Row:
        """A row with a line for each rate."""
        found = [
            beside(self.at(rate), metric, strategy, reference, paper) for rate, paper in zip(RATES, papers, strict=True)
        ]
        return lines(claim, list(map(percent, RATES)), list(map(in_words, papers)), found, TABLE_2)

    def growth(self) -> Iterator[Row]:
        """Iterations at the highest rate over those at the lowest."""
        for strategy in (*REBUILDING, "checkpoint"):
            paper = quotient(row_of(strategy, HIGHEST), row_of(strategy, LOWEST), in_hours=False)
            by_rate = [rates_of(runs, strategy) for runs in self.table_2]
            found = beside(by_rate, EXECUTED, percent(HIGHEST), percent(LOWEST), paper)
            claim = f"iterations of {name_of(strategy)} at {percent(HIGHEST)} ÷ at {percent(LOWEST)}"
            yield claim, in_words(paper), found.here, found.order, found.size, TABLE_2

    def longer(self) -> Row:
        """CheckFree+ against CheckFree in the longest runs."""
        plain, plus = REBUILDING
        shallow, paper = self.of.smooth("depth").at({LAYERS: 1}), iterations_of(plus, HIGHEST, plain)
        found = [beside([shallow.to_target(at)], EXECUTED, plus, plain, paper) for at in SHALLOW_AT]
        claim = f"the same at {percent(HIGHEST)} after more iterations, one layer a stage (running means)"
        places = [f"{at:,}" for at in SHALLOW_AT]
        return lines(claim, places, [in_words(paper)] * len(places), found, PROXY)

    # ---- losses -----------------------------------------------------------------------------------

    def losses(self) -> Iterator[Row]:
        """Figures 2, 4a and 4c."""
        figure_2 = "[Fig. 2](#figure-2-what-a-lost-stage-is-filled-with)"
        names = {
            "random": "random weights",
            "copy": "a copy",
            "average": "the average",
            "checkfree": "the average weighted by gradient norms",
        }
        for worse, better in zip(names, list(names)[1:], strict=False):
            claim = f"a lost stage filled with {names[worse]} ends at a higher loss than with {names[better]}"
            yield self.higher(claim, self.of.final("figure2"), worse, better, figure_2)
        final = self.of.final("table2")
        for strategy in REBUILDING:
            claim = f"loss of {name_of(strategy)} at the end, higher at {percent(HIGHEST)} than at {percent(LOWEST)}"
            by_rate = rates_of(final, strategy)
            yield self.higher(claim, by_rate, percent(HIGHEST), percent(LOWEST), TABLE_2, paper="Fig. 4a")
        figure_4c = "[Fig. 4c](#figure-4c-what-swapping-costs)"
        swapped = self.of.final("figure4c")
        claim = "swapping costs convergence while nothing fails"
        yield self.higher(claim, swapped, "checkfree_plus", "none", figure_4c, paper="Fig. 4c")

    @staticmethod
    def higher(claim: str, runs: pd.DataFrame, strategy: str, reference: str, where: str, paper: str = "Fig. 2") -> Row:
        """A row that claims a higher loss at the end, without a number."""
        found = row_at(ratios(runs, (), FINAL, reference), {"strategy": strategy})
        pairs = side(runs, FINAL, strategy, reference)
        here = f"{difference(found)} nats a byte; {pairs.count(is_below=False)}"
        return claim, paper, here, pairs.order(is_below=False), NOT_CLAIMED, where

    def perplexities(self) -> Iterator[Row]:
        """Table 3."""
        where = "[Table 3](#table-3-perplexity-at-the-end)"
        found = self.of.perplexity_runs()
        texts = list(found["text"].unique())
        for strategy in REBUILDING:
            own, paper = self.of.extra_nats(strategy), paper_extra_nats(strategy)
            pairs = [side(found[found["text"] == text], "loss_nats", strategy, "none") for text in texts]
            here = f"{min(own):.3f} and {max(own):.3f}; " + " and ".join(one.count(is_below=False) for one in pairs)
            order = combined([one.order(is_below=False) for one in pairs])
            claim = f"failures cost perplexity with {name_of(strategy)}: nats a byte more, by text"
            theirs = f"{min(paper):.3f} to {max(paper):.3f}"
            yield claim, theirs, here, order, CANNOT_TELL, where
        plain, plus = REBUILDING
        pairs = [side(found[found["text"] == text], "loss_nats", plus, plain) for text in texts]
        here = "lower in " + " and ".join(one.count(is_below=True) for one in pairs)
        order = combined([one.order(is_below=True) for one in pairs])
        yield "perplexity of CheckFree+ is below CheckFree's", "all texts", here, order, NOT_CLAIMED, where
