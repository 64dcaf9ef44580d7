"""What a report says of runs with given numbers, and that it says nothing that they do not show."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest

from sim.core.text import HOURS, USD, format_list, format_number, format_percent, format_percent_range
from sim.reporting.html.narrative import sentences_on

HOUR = 3600.0


def runs(target: float | None = 2.0, **hours: Sequence[float]) -> pd.DataFrame:
    """A row for each strategy and seed: hours to the target; a run takes twice as long, an hour costs $10."""
    rows: list[dict[str, Any]] = []
    for strategy, values in hours.items():
        for seed, value in enumerate(values):
            rows.append(
                {
                    "strategy": strategy,
                    "kind": strategy,
                    "failure_seed": seed,
                    "training_seed": 0,
                    "outcome": "finished",
                    "target_validation_loss": target,
                    "target_reached_seconds": math.nan if target is None else value * HOUR,
                    "target_reached_usd": math.nan if target is None else value * 10.0,
                    "wall_clock_seconds": 20 * HOUR if math.isnan(value) else 2 * value * HOUR,
                    "cost_usd": 20.0 * value,
                    "final_validation_loss": 1.8 if strategy == "none" else 1.9,
                    "overhead": 0.25,
                    "num_failures": 10,
                }
            )
    return pd.DataFrame(rows)


def test_a_clear_winner_has_spread_interval_cost_and_churn():
    told = sentences_on(runs(none=[10, 10, 10], redundant=[13, 13, 13.3], checkfree=[10.9, 11, 11.1]))
    assert told[0] == (
        "CheckFree reaches loss 2 first, after 11.0 h on average (10.9 to 11.1 h over 3 failure seeds); redundant "
        "comes 19 % later, 95 % interval +17 to +21 %."
    )
    assert told[1] == (
        "CheckFree is also cheapest to that loss: $110 on average ($109 to $111 over 3 failure seeds); next redundant, "
        "19 % more, 95 % interval +17 to +21 %."
    )
    assert told[2] == (
        "Against no failures, CheckFree takes 10 % more time (+7.5 to +12 %) to that loss, 10 % more time (+7.5 to +12 "
        "%) to the end and ends at a loss 0.100 higher."
    )
    assert len(told) == 3


def test_independent_pairs_are_counted_as_replicates():
    table = runs(none=[10, 10, 10], redundant=[13, 13, 13.3], checkfree=[10.9, 11, 11.1])
    told = sentences_on(table.assign(training_seed=table["failure_seed"]))
    assert "after 11.0 h on average (10.9 to 11.1 h over 3 replicates)" in told[0]


def test_scripted_failures_count_once_under_several_training_seeds():
    """Every run ends at the same time; the target comes earlier or later by the training seed alone."""
    table = runs(redundant=[13, 13, 13.3], checkfree=[10.9, 11, 11.1]).assign(num_failures=4)
    table["training_seed"] = table["failure_seed"]
    assert "comes 19 % later" in sentences_on(table)[0]  # 12 stages lost
    told = sentences_on(table.assign(wall_clock_seconds=20 * HOUR))
    assert told[0].startswith("Too few failures to choose: 4 stages were lost")


def test_close_results_and_single_seeds_give_no_verdict():
    told = sentences_on(runs(redundant=[12, 14, 13], checkfree=[13, 12, 13.5]))
    assert told[0].startswith(
        "Too close to call which strategy reaches loss 2 first: CheckFree does after 12.8 h on average"
    )
    assert "but redundant (1.3 % later, 95 % interval −" in told[0]
    assert told[0].endswith("may be as fast.")
    assert told[1].startswith("Cost follows time: CheckFree pays $128")
    told = sentences_on(runs(redundant=[13], checkfree=[11]))
    assert told[0] == ("One seed only. In it CheckFree reaches loss 2 first, after 11.0 h; redundant comes 18 % later.")
    assert "interval" not in " ".join(told)
    assert told[2] == (
        "Against the same iterations without failures or extra work, CheckFree takes 25 % more time."
    )  # nobody ran without failures


def test_strategies_that_miss_the_target_are_left_out():
    told = sentences_on(runs(redundant=[13, 13.1], checkfree=[9, math.nan]))
    assert told[0].startswith("Redundant reaches loss 2 after 13.1 h on average")
    assert told[1] == "CheckFree is left out: it reaches the target in 1 of 2 runs."
    told = sentences_on(runs(redundant=[math.nan, 13], checkfree=[9, math.nan]))
    assert told[0] == "No strategy reaches loss 2 in all of its runs."
    assert sum("left out" in sentence for sentence in told) == 2
    told = sentences_on(runs(redundant=[math.nan, math.nan], checkfree=[math.nan, math.nan]))
    assert told[0].startswith("Too close to call which strategy ends first")
    assert "No run reaches the target loss 2." in told


def test_ending_first_is_not_learning_most():
    table = runs(target=None, redundant=[13, 13], checkfree=[11, 11.1])
    table.loc[table["strategy"] == "redundant", "final_validation_loss"] = 1.85
    told = sentences_on(table)
    assert told[0].startswith("CheckFree ends first, after 22.1 h")
    assert told[1] == (
        "The first to finish does not have the lowest loss: the lowest loss at the end, 1.850, is that of redundant, "
        "the highest, 1.900, that of CheckFree."
    )


def test_runs_that_show_little_are_named_as_such():
    assert sentences_on(runs(none=[10])) == [
        "Without failures, training reaches loss 2 after 10.0 h; no other strategy was run."
    ]
    table = runs(target=None, none=[10]).assign(outcome="stopped")
    assert sentences_on(table) == ["No run finished."]
    few = runs(redundant=[13, 13], checkfree=[10.9, 11]).assign(num_failures=[2, 1, 2, 1])
    assert sentences_on(few)[0].startswith(
        "Too few failures to choose: 3 stages were lost before loss 2 in 2 simulated runs together, 10 are needed"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123456, "0.0123"), (0.5, "0.500"), (9.996, "10.00"), (12.34, "12.3"), (1234567, "1,234,567"),
     (-3.21, "−3.21"), (math.nan, "-")],
)  # fmt: skip
def test_numbers_have_three_digits_and_never_round_units(value, text):
    assert format_number(value) == text


def test_units_shares_and_lists():
    assert HOURS.of(45000) == "12.5 h"
    assert USD.between(99.96, 105) == "$100.0 to $105"
    assert format_percent(0.1234) == "12 %"
    assert format_percent(0.0005) == "0.05 %"
    assert format_percent_range(-0.041, 0.29) == "−4.1 to +29 %"
    assert [format_list(["a", "b", "c"][:number]) for number in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
