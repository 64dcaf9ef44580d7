"""The paper's claims beside the results here, each with a verdict in words, by one rule; docs/paper.md states it.

A difference of two strategies holds, or is the opposite, where the 95 % interval of its mean excludes that there is
none. Elsewhere it is undecided, with the number of independent pairs that would decide it. Seconds do not depend on
seeds: they hold within 10 %. What follows from definitions is by construction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.paper.published import HIGHEST, LOWEST, RATES, RECOVERY_SECONDS, Span, quotient, row_of
from benchmarks.paper.tables import (
    EXECUTED,
    FINAL,
    RATE,
    REBUILDING,
    SECONDS,
    StudyTables,
    difference,
    name_of,
    paper_extra_nats,
    percent,
    ratio,
    ratios,
    row_at,
    seconds_by_network,
)
from sim.results.crossed_design import SEEDS
from sim.results.statistics import Values
from sim.results.variance_components import Components

HOLDS, FAILS, UNTOLD, BUILT_IN, NOT_CLAIMED = (
    *("holds", "the opposite", "undecided", "by construction"),
    "no order published",
)

SECONDS_TOLERANCE = 0.1

POWER, MOST_PAIRS = 0.8, 1000

TIMES, TABLE_1, TABLE_2, TABLE_3, FIGURE_2, FIGURE_4C = (
    "[times](paper-times.md)",
    "[Table 1](#table-1-costs-without-failures)",
    "[Table 2](#table-2-time-to-a-loss)",
    "[Table 3](#table-3-perplexity-at-the-end)",
    "[Fig. 2](#figure-2-what-a-lost-stage-is-filled-with)",
    "[Fig. 4c](#figure-4c-cost-of-swapping)",
)


class Claim(NamedTuple):
    """A row of the page: a claim of the paper, the verdict, the paper's number, ours, and a link."""

    claim: str
    verdict: str
    paper: str
    here: str
    where: str


def claims(tables: StudyTables) -> Iterator[Claim]:
    """All claims with their verdicts."""
    yield from claims_on_seconds(tables)
    yield from claims_on_table_2(tables)
    yield from claims_on_losses(tables)
    yield from claims_on_perplexity(tables)
    yield Claim(
        "Table 1: what each strategy stores, sends, computes and recovers without failures",
        BUILT_IN,
        "in orders of magnitude",
        "as there, since the model is made of it; end stages of CheckFree by option",
        TABLE_1,
    )


# ---- two strategies under equal seeds --------------------------------------------------------------------


@dataclass(frozen=True)
class Contrast:
    """A metric of a strategy against a reference's, over pairs of runs with equal seeds. is_ratio: of means."""

    runs: pd.DataFrame
    metric: str
    strategy: str
    reference: str
    is_ratio: bool = True

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """A row a pair of seeds, a column a strategy; a target not reached is infinite."""
        return self.runs.pivot(index=SEEDS, columns="strategy", values=self.metric).fillna(np.inf)

    def count(self, is_below: bool) -> tuple[int, int]:
        """The number of pairs in which the strategy is below the reference (or above it), and of all."""
        own, other = self.pairs[self.strategy], self.pairs[self.reference]
        return int(((own < other) if is_below else (own > other)).sum()), len(own)

    @cached_property
    def row(self) -> Mapping[str, float]:
        """Mean, ratio and difference with their intervals."""
        return row_at(ratios(self.runs, (), self.metric, self.reference), {"strategy": self.strategy})

    def here(self, is_below: bool) -> str:
        """The result with its interval, and the pairs on the paper's side."""
        agree, total = self.count(is_below)
        found = ratio(dict(self.row)) if self.is_ratio else f"{difference(dict(self.row))} nats per byte"
        return f"{found}; {agree} of {total}"

    @property
    def all_reach(self) -> bool:
        """Whether every run has a value."""
        return bool(np.isfinite(self.pairs).all(axis=None))

    def verdict(self, is_below: bool) -> str:
        """Whether the interval excludes that there is no difference, and on which side; else what would decide it."""
        low, high = ("low_ratio", "high_ratio") if self.is_ratio else ("difference_low", "difference_high")
        none = float(self.is_ratio)
        if self.all_reach and (self.row[low] > none or self.row[high] < none):
            return HOLDS if (self.row[high] < none) == is_below else FAILS
        return f"{UNTOLD}: {self.needed}"

    @cached_property
    def needed(self) -> str:
        """The number of independent pairs that would tell a difference as large as the one found."""
        if not self.all_reach:
            return "a longer training"
        own, other = self.pairs[self.strategy], self.pairs[self.reference]
        own, other = (np.log(own), np.log(other)) if self.is_ratio else (own, other)
        found = Values(np.array(self.pairs.index.tolist()), (own - other).to_numpy(float))
        number = pairs_needed(float(found.values.mean()), math.sqrt(sum(Components.of(found).possible[0])))
        return f"{number} pairs" if number else f"more than {MOST_PAIRS:,} pairs"


def pairs_needed(mean: float, deviation: float) -> int | None:
    """The number of independent pairs with which a t test at 5 % finds a difference in 80 %; None: too many."""
    for number in range(2, MOST_PAIRS + 1):
        bound = stats.t.ppf(0.975, number - 1)
        if stats.nct.sf(bound, number - 1, abs(mean) / deviation * math.sqrt(number)) >= POWER:
            return number
    return None


# ---- Table 2 ---------------------------------------------------------------------------------------------


def claims_on_table_2(tables: StudyTables) -> Iterator[Claim]:
    """Times and iterations to the target, by rate."""
    runs = tables.extract("table2").to_target()
    words = {"redundant": "redundant computation's", "checkpoint": "checkpointing's"}
    for strategy in REBUILDING:
        for reference, whose in words.items():
            yield by_rate(runs, f"time of {name_of(strategy)} ÷ {whose}", SECONDS, strategy, reference)
    for strategy in (*REBUILDING, "checkpoint"):
        yield by_rate(runs, f"iterations of {name_of(strategy)} ÷ failure-free", EXECUTED, strategy, "none")
    plain, plus = REBUILDING
    yield by_rate(runs, "iterations of CheckFree+ ÷ CheckFree's", EXECUTED, plus, plain)
    for strategy in (*REBUILDING, "checkpoint"):
        high, low = percent(HIGHEST), percent(LOWEST)
        paper = quotient(row_of(strategy, HIGHEST), row_of(strategy, LOWEST), in_hours=False)
        found = Contrast(rates_of(runs, strategy), EXECUTED, high, low)
        yield Claim(f"iterations of {name_of(strategy)} at {high} ÷ at {low}", *compared(found, paper), TABLE_2)


def compared(found: Contrast, paper: Span) -> tuple[str, str, str]:
    """Verdict, the paper's ratio, and ours."""
    is_below, row = paper.is_below_1, found.row
    words = NOT_CLAIMED if is_below is None else found.verdict(is_below)
    if row["high_ratio"] < paper.low or row["low_ratio"] > paper.high:
        words += f"; {'smaller' if row['ratio'] < paper.value else 'larger'} here"
    return words, f"{paper.value:.2f}", found.here(paper.value < 1)


def by_rate(runs: pd.DataFrame, claim: str, metric: str, strategy: str, reference: str) -> Claim:
    """A row with a line for each rate; redundant computation stands for the paper's failure-free training."""
    lines = []
    for rate in RATES:
        other = row_of("redundant" if reference == "none" else reference, rate)
        paper = quotient(row_of(strategy, rate), other, in_hours=metric == SECONDS)
        found = Contrast(runs[runs[RATE] == rate], metric, strategy, reference)
        lines.append([f"{percent(rate)}: {cell}" for cell in compared(found, paper)])
    words, published, here = ("<br>".join(column) for column in zip(*lines, strict=True))
    return Claim(claim, words, published, here, TABLE_2)


def rates_of(runs: pd.DataFrame, strategy: str) -> pd.DataFrame:
    """A strategy's runs, with the rates in place of strategy names."""
    own = runs[runs["strategy"] == strategy]
    return own.assign(strategy=own[RATE].map(percent))


# ---- seconds, which do not depend on seeds ---------------------------------------------------------------


def claims_on_seconds(tables: StudyTables) -> Iterator[Claim]:
    """Iteration and recovery times."""
    plain, (plus, *others) = tables.iteration_seconds("none"), seconds_by_network().items()
    yield timed("an iteration of checkpointing and CheckFree", row_of("checkfree", LOWEST).iteration_seconds, plain)
    published = row_of("redundant", LOWEST).iteration_seconds
    yield timed("an iteration of redundant computation", published, tables.iteration_seconds("redundant"))
    yield timed("a recovery of a stage between two others", RECOVERY_SECONDS, tables.inner_recovery_seconds())
    yield Claim("CheckFree adds nothing to an iteration", BUILT_IN, "0 s", "0 s", TIMES)
    here = "; ".join(f"{name}: {100 * (own / without - 1):+.1f} %" for name, (without, own) in (plus, *others))
    yield Claim("CheckFree+ adds nothing to an iteration", "depends on the placement", "0 s", here, TIMES)


def timed(claim: str, paper: float, own: float) -> Claim:
    """A row that compares seconds."""
    found = HOLDS if abs(own / paper - 1) < SECONDS_TOLERANCE else f"{'shorter' if own < paper else 'longer'} here"
    return Claim(claim, found, f"{paper:.1f} s", f"{own:.1f} s ({100 * (own / paper - 1):+.1f} %)", TIMES)


# ---- losses ----------------------------------------------------------------------------------------------


def claims_on_losses(tables: StudyTables) -> Iterator[Claim]:
    """Losses at the end: Figures 2, 4a and 4c."""
    runs = tables.final("figure2")
    pairs = {
        "random weights end at a higher loss than a copy": ("random", "copy"),
        "a copy ends at a higher loss than the average": ("copy", "average"),
        "the plain average ends at a higher loss than the one weighted by gradient norms": ("average", "checkfree"),
    }
    for claim, (worse, better) in pairs.items():
        yield higher(claim, "Fig. 2", Contrast(runs, FINAL, worse, better, is_ratio=False), FIGURE_2)
    final, high, low = tables.final("table2"), percent(HIGHEST), percent(LOWEST)
    for strategy in REBUILDING:
        claim = f"{name_of(strategy)} ends at a higher loss at {high} than at {low}"
        yield higher(claim, "Fig. 4a", Contrast(rates_of(final, strategy), FINAL, high, low, is_ratio=False), TABLE_2)
    swapped = Contrast(tables.final("figure4c"), FINAL, "checkfree_plus", "none", is_ratio=False)
    yield higher("swapping slows convergence without failures", "Fig. 4c", swapped, FIGURE_4C)


def higher(claim: str, paper: str, found: Contrast, where: str) -> Claim:
    """A row on a claim of a higher loss at the end, without a number."""
    return Claim(claim, found.verdict(is_below=False), paper, found.here(is_below=False), where)


def claims_on_perplexity(tables: StudyTables) -> Iterator[Claim]:
    """Perplexities: Table 3, on the first text; the second one is in its table."""
    runs = tables.perplexity_runs().assign(outcome="finished")
    runs = runs[runs["text"] == runs["text"].iloc[0]]
    for strategy in REBUILDING:
        found = Contrast(runs, "loss_nats", strategy, "none", is_ratio=False)
        extra = paper_extra_nats(strategy)
        papers = f"{min(extra):.3f} to {max(extra):.3f} nats per byte"
        yield higher(f"failures increase perplexity with {name_of(strategy)}", papers, found, TABLE_3)
    plain, plus = REBUILDING
    found = Contrast(runs, "loss_nats", plain, plus, is_ratio=False)
    yield higher("CheckFree has a higher perplexity than CheckFree+", "all texts", found, TABLE_3)
