"""What is said below the table of a run that may mislead."""

from pathlib import Path

import pandas as pd

from sim.reporting.notes import describe_seeds, worth_knowing
from sim.results.storage import RunFiles
from sim.scenario.exposed_ends import ends_that_fail
from support.builders import a_scenario

NONE = pd.DataFrame()
SCENARIO = a_scenario(failures={"kind": "exponential"})


def a_run(
    strategy: str, num_failures: int, waited_seconds: float = 0.0, blocking_share: float | None = None
) -> RunFiles:
    summary = {
        "strategy": strategy,
        "kind": strategy,
        "outcome": "finished",
        "num_failures": num_failures,
        "wall_clock_seconds": 1000.0,
        "ledger_seconds": {"checkpoint_save": waited_seconds},
    }
    options = {} if blocking_share is None else {"blocking_share": blocking_share}
    return RunFiles(Path(strategy), summary, {"strategy": options}, NONE, NONE, NONE)


def test_seeds_are_counted_as_pairs_where_none_is_shared():
    def described(*seeds: tuple[int, int]) -> str:
        return describe_seeds(pd.DataFrame([*seeds, *seeds], columns=["failure_seed", "training_seed"]))

    assert described((0, 0)) == "1 failure seed and 1 training seed"
    assert described((0, 5), (1, 6), (2, 7)) == "3 independent pairs of seeds"
    assert described((0, 0), (1, 0), (2, 0)) == "3 failure seeds and 1 training seed"
    assert described((0, 0), (1, 1), (0, 1)) == "2 failure seeds and 2 training seeds"


def test_slow_uploads_are_reported():
    (told,) = worth_knowing(SCENARIO, [a_run("checkpoint", 9, 300.0, 0.0)] * 2)
    assert told.startswith("checkpointing: training waited for uploads 30 % of the time")
    assert worth_knowing(SCENARIO, [a_run("checkpoint", 9, 300.0, 1.0), a_run("checkpoint", 9, 30.0, 0.0)]) == []


def test_the_first_commits_preset_goes_with_ends_that_never_fail():
    first = {"kind": "checkfree", "preset": "reference_code_first_commit"}
    failures = [{"kind": "exponential", "immune_stages": spared} for spared in ((0,), (0, 1), (0, 1, 6))]
    found = [ends_that_fail(a_scenario((first,), num_stages=6, failures=each)) for each in failures]
    assert [len(lines) for lines in found] == [1, 1, 0]
    assert "failures.immune_stages: [0, 1, 6]" in found[0][0]
    others = ({"kind": "checkfree", "preset": "reference_code"}, {**first, "kind": "checkfree_plus"})
    assert ends_that_fail(a_scenario(others, num_stages=6, failures=failures[0])) == []
    assert ends_that_fail(a_scenario((first,), num_stages=6, failures={"kind": "never"})) == []
