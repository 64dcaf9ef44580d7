"""The paper reproduced: its published figures, the rule of the target, what is kept, and that it comes again."""

import json
import math
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.paper import __main__ as main
from benchmarks.paper import jobs, kept, perplexity
from benchmarks.paper.answers import EXECUTED, HIGHEST, RATE, REBUILDING, SECONDS, Answers
from benchmarks.paper.extract import OTHER_TEXT_TOLERANCE, TOLERANCE, Extract, differences
from benchmarks.paper.jobs import JOBS, SCENARIOS
from benchmarks.paper.kept import KEPT, compared, made_on
from benchmarks.paper.learning import (
    NUM_LAST,
    final_losses,
    iterations_behind,
    rollback_factor,
    smoothed,
    target_iteration,
    target_loss,
    with_target,
)
from benchmarks.paper.page import PAGE, page
from benchmarks.paper.page_costs import cost_verdicts, table_1
from benchmarks.paper.page_numbers import Numbers
from benchmarks.paper.published import (
    FAILURE_FREE_ITERATIONS,
    RATES,
    RELEASED_PROBABILITIES,
    TABLE_2,
    Span,
    published,
    quotient,
)
from benchmarks.paper.sides import Side, side
from benchmarks.paper.verdicts import Verdicts, beside, size
from sim.cli.sweep import sweep
from sim.results.storage import load, read_json
from sim.scenario.loading import load_scenario
from sim.scenario.sweep_points import load_points
from support.sweeps import TINY, do_sweep, write_scenario

# ---- what is published -----------------------------------------------------------------------------


def test_implied_iterations_are_multiples_of_the_validation_interval():
    for strategy, rows in TABLE_2.items():
        for row in rows:
            if strategy != "checkpoint":
                assert row.iterations % 500 == pytest.approx(0, abs=4) or row.iterations % 500 > 496
    assert [round(row.iterations, -2) for row in TABLE_2["checkfree"]] == [14_500, 16_000, 22_000]
    assert [round(row.iterations, -2) for row in TABLE_2["checkfree_plus"]] == [14_000, 14_500, 18_000]


def test_headlines_follow_from_the_table():
    checkpoint, redundant, checkfree, plus = (TABLE_2[name][0].train_hours for name in TABLE_2)
    assert 1 - checkfree / redundant == pytest.approx(0.12, abs=0.005)
    assert checkpoint / plus == pytest.approx(1.6, abs=0.05)
    assert redundant * 3600 / TABLE_2["redundant"][0].iteration_seconds == pytest.approx(FAILURE_FREE_ITERATIONS, abs=1)


def test_both_presets_of_redundant_computation_answer_to_one_row():
    assert published("redundant_text", 0.05) == published("redundant_table2", 0.05) == TABLE_2["redundant"][0]
    assert published("none", 0.05) is None
    assert published("checkfree", 0.07) is None


def test_rollback_arithmetic_of_the_released_probabilities():
    found = [rollback_factor(probability, 100, 6) for probability in RELEASED_PROBABILITIES]
    assert found == pytest.approx([1.33, 1.93, 4.18], abs=0.01)


@given(st.floats(1e-6, 0.01), st.integers(1, 200), st.integers(1, 12))
def test_rollbacks_cost_more_the_more_failures_come_between_checkpoints(probability, interval, num_stages):
    factor = rollback_factor(probability, interval, num_stages)
    assert 1 < factor < rollback_factor(probability, interval + 1, num_stages)


# ---- the target, and being behind --------------------------------------------------------------------


def curve(losses: list[float], every: int = 10, run: str = "a", kind: str = "none", training_seed: int = 0):
    iterations = [every * (number + 1) for number in range(len(losses))]
    about = {"run": run, "kind": kind, "strategy": kind, "failure_seed": 0, "training_seed": training_seed}
    columns = {"iteration": iterations, "executed": iterations, "ended_seconds": [2.0 * it for it in iterations]}
    return pd.DataFrame({**columns, "validation_loss": losses}).assign(**about)


def test_the_target_is_what_failure_free_runs_have_on_average_after_5_of_12_of_the_steps():
    plain = [
        curve([5, 4, 3, 2.5, 2.2, 2.1, 2, 2, 2, 2, 2, 2]),
        curve([5, 4, 3, 2.5, 2.4, 2.1, 2, 2, 2, 2, 2, 2], run="b", training_seed=1),
    ]
    other = curve([1.0] * 12, run="c", kind="checkfree")
    losses = pd.concat([*plain, other])
    assert target_iteration(losses) == 50
    assert target_loss(losses, 50) == pytest.approx(2.3)
    assert target_loss(losses.assign(validation_loss=2.30001), 50) == 2.301
    with pytest.raises(ValueError, match="iteration 55"):
        target_loss(losses, 55)


def test_a_target_is_reached_at_the_first_validation_that_low_repeated_iterations_counted():
    rolled_back = curve([5.0, 4.0, 3.0, 4.0, 2.0])
    rolled_back["iteration"] = [10, 20, 30, 20, 30]
    runs = pd.DataFrame({"run": ["a", "b"]})
    losses = pd.concat([rolled_back, curve([5.0], run="b")])
    found = with_target(runs, losses, 2.5)
    assert found["target_reached_iteration"].tolist()[0] == 30
    assert found["target_reached_executed"].tolist()[0] == 50
    assert found["target_reached_seconds"].tolist()[0] == 100.0
    assert found.iloc[1][["target_reached_iteration", "target_reached_seconds"]].isna().all()


@given(st.integers(0, 15), st.integers(30, 60), st.floats(0.05, 2.0))
def test_a_curve_that_is_shifted_is_as_far_behind_as_it_was_shifted(shift, num_validations, slope):
    def ideal(number: int) -> float:
        return 9.0 - slope * math.log(10 * number)

    numbers = range(1, num_validations + 1)
    own = curve([9.0 if number <= shift else ideal(number - shift) for number in numbers])
    reference = curve([ideal(number) for number in numbers])
    assert iterations_behind(own, reference) == pytest.approx(10 * shift, abs=1e-4)


@given(st.lists(st.floats(0.0, 0.05), min_size=20, max_size=20))
def test_a_run_is_not_behind_itself_where_its_loss_goes_up_and_down(noise):
    noisy = curve([5 / (number + 1) + one for number, one in enumerate(noise)])
    assert iterations_behind(noisy, noisy) == 0


def test_the_loss_at_the_end_is_of_the_last_iterations_each_once():
    ended = curve([9.0, *[2.0] * (NUM_LAST - 1), 3.0], run="a")
    rolled_back = curve([9.0] * NUM_LAST + [1.0] * NUM_LAST, run="b")
    rolled_back["iteration"] = [10 * number for number in (*range(1, NUM_LAST + 1), *range(1, NUM_LAST + 1))]
    found = final_losses(pd.concat([rolled_back, ended]))
    assert found["a"] == pytest.approx(2.0 + 1 / NUM_LAST)
    assert found["b"] == 1.0


def test_running_means_stay_within_a_run():
    found = smoothed(pd.concat([curve([1.0, 4.0, 1.0], run="a"), curve([7.0, 7.0], run="b")]), 3)
    assert found["validation_loss"].tolist() == [2.5, 2.0, 2.5, 7.0, 7.0]


# ---- verdicts -----------------------------------------------------------------------------------------


def pairs(own: list[float], other: list[float]) -> pd.DataFrame:
    """Runs of two strategies, three failure seeds x two training seeds."""
    seeds = list(product(range(3), range(2)))
    rows = [
        {"strategy": name, "outcome": "finished", "failure_seed": a, "training_seed": b, "x": value}
        for name, values in (("own", own), ("other", other))
        for (a, b), value in zip(seeds, values, strict=True)
    ]
    return pd.DataFrame(rows)


def test_an_order_is_told_where_every_pair_of_seeds_has_it():
    assert side(pairs([1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6, 7]), "x", "own", "other") == Side(6, 0, 0)
    assert Side(6, 0, 0).order(is_below=True) == "R"
    assert Side(6, 0, 0).order(is_below=False) == "N"
    assert Side(5, 1, 0).order(is_below=True) == Side(5, 1, 0).order(is_below=False) == "?"
    assert Side(1, 1, 4).count(is_below=True) == "1 of 6, 1 equal"


def test_what_was_not_reached_is_above_all_that_was():
    nothing = math.nan
    found = side(pairs([1, nothing, 3, 4, 5, nothing], [2, 3, 4, 5, nothing, nothing]), "x", "own", "other")
    assert found == Side(4, 1, 1)


@pytest.mark.parametrize(
    ("paper", "low", "high", "expected"),
    [
        *((0.7, 0.6, 0.9, "R"), (0.7, 0.6, 1.2, "?"), (0.7, 0.8, 0.9, "N"), (0.7, 0.8, 1.2, "N"), (0.7, 1.1, 1.2, "N")),
        *((1.5, 1.2, 1.6, "R"), (1.5, 0.6, 1.6, "?"), (1.5, 1.2, 1.4, "N"), (1.5, 0.6, 1.2, "N")),
        *((1.5, 1.2, 1.47, "R"), (1.5, 1.53, 1.6, "R"), (1.5, math.nan, math.nan, "?")),
    ],
)
def test_a_size_is_told_where_the_interval_meets_the_papers_range_and_not_1(paper, low, high, expected):
    span = Span(paper, paper - 0.05, paper + 0.05)
    assert size(span, {"low_ratio": low, "high_ratio": high}) == expected


def test_validations_leave_a_published_ratio_within_a_range():
    redundant, checkfree = (TABLE_2[name][0] for name in ("redundant", "checkfree"))
    iterations = quotient(checkfree, redundant, in_hours=False)
    assert (iterations.value, iterations.low, iterations.high) == pytest.approx((1.45, 1.40, 1.526), abs=1e-3)
    hours = quotient(checkfree, redundant, in_hours=True)
    assert hours.value == pytest.approx(checkfree.train_hours / redundant.train_hours)
    assert hours.is_below_1
    assert quotient(TABLE_2["checkfree"][1], redundant, in_hours=True).is_below_1 is None
    assert quotient(TABLE_2["checkfree_plus"][0], checkfree, in_hours=False).is_below_1 is None


def test_a_ratio_is_set_beside_the_papers():
    own, other = [2.0, 2.1, 2.0, 2.1, 2.0, 2.1], [1.0, 1.05, 1.0, 1.05, 1.0, 1.05]
    runs = pairs(own, other)
    found = beside([runs], "x", "own", "other", Span(2.2, 2.1, 2.3))
    assert found.here == "2.00; 6 of 6"
    assert (found.order, found.size) == ("R", "N")
    assert beside([runs], "x", "own", "other", Span(0.5, 0.4, 0.6)).order == "N"
    assert beside([runs], "x", "own", "other", Span(0.99, 0.9, 1.1)).order == "?"


def test_a_letter_that_two_readings_give_differently_is_not_given():
    one, another = pairs([2.0] * 6, [1.0] * 6), pairs([2.0] * 5 + [0.9], [1.0] * 6)
    found = beside([one, another], "x", "own", "other", Span(2.0, 1.9, 2.1))
    assert found.here.startswith("2.00; 6 of 6, by running means 1.82 (")
    assert found.here.endswith("; 5 of 6")
    assert found.order == "?"


def test_few_pairs_tell_no_order():
    assert Side(2, 0, 0).order(is_below=True) == "?"


# ---- what is kept -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small sweep that really trains, and what is kept of it."""
    folder = tmp_path_factory.mktemp("paper")
    path = write_scenario(folder)
    do_sweep(path, folder / "results", folder / "cache")
    return folder, path, Extract.of(load(folder / "results" / "tiny"))


def test_an_extract_has_every_run_and_every_validation(tiny):
    folder, _, extract = tiny
    results = load(folder / "results" / "tiny")
    assert extract.fields == ("failures.rate_per_hour",)
    assert len(extract.runs) == len(results.runs) == 12
    assert len(extract.losses) == results.iterations["validation_loss"].notna().sum()
    counts = extract.losses.groupby("run")["executed"].max()
    run = extract.runs.set_index("run")["num_iterations_run"]
    assert (counts <= run[counts.index]).all()
    for name, own in extract.losses.groupby("run"):
        assert own["ended_seconds"].is_monotonic_increasing, name
        assert own["executed"].is_monotonic_increasing, name


def test_an_extract_is_read_as_it_was_written(tiny, tmp_path):
    _, _, extract = tiny
    extract.write(tmp_path, "tiny")
    again = Extract.read(tmp_path, "tiny")
    assert again.fields == extract.fields
    assert differences(again.runs, extract.runs) == differences(again.losses, extract.losses) == {}


def test_the_part_at_a_point_has_that_points_rows(tiny):
    _, _, extract = tiny
    part = extract.at({RATE: 0.3, "strategy": "checkfree"})
    assert len(part.runs) == 2
    assert set(part.losses["run"]) == set(part.runs["run"])
    assert part.fields == ()


def test_swept_lists_are_kept_as_text(tmp_path):
    text = TINY.replace("grid: {failures.rate_per_hour: [0.1, 0.3]}", "grid: {failures.immune_stages: [[0], [0, 1]]}")
    path = write_scenario(tmp_path, text.replace("training:\n", "training:\n  learner: curve\n"))
    sweep(path, None, tmp_path / "results", tmp_path / "cache", jobs=1)
    extract = Extract.of(load(tmp_path / "results" / "tiny"))
    assert list(extract.runs["failures.immune_stages"].unique()) == ["[0]", "[0, 1]"]


def test_differences_are_told_by_column():
    old = pd.DataFrame({"a": [1.0, 2.0, np.nan], "b": ["x", "y", "z"]})
    assert differences(old.copy(), old) == {}
    assert differences(old.assign(a=[1.0, 2.02, np.nan]), old) == {"a": pytest.approx(0.01)}
    assert math.isnan(differences(old.assign(b=["x", "y", "q"]), old)["b"])
    assert differences(old.iloc[:2], old) == {"rows or columns": math.inf}
    assert differences(old[["b", "a"]], old) == {"rows or columns": math.inf}


@pytest.fixture
def two_folders(tiny, tmp_path):
    """What is kept, and the same made anew."""
    _, _, extract = tiny
    for name in ("new", "old"):
        extract.write(tmp_path / name, "tiny")
        (tmp_path / name / "made_on.json").write_text(json.dumps(made_on()))
    return tmp_path / "new", tmp_path / "old"


def scaled(folder: Path, file: str, column: str, factor: float) -> None:
    table = pd.read_parquet(folder / file)
    table.assign(**{column: table[column] * factor}).to_parquet(folder / file, index=False)


def test_equal_numbers_agree_to_the_bit(two_folders):
    lines, agrees = compared(*two_folders)
    assert agrees
    assert lines == [f"2 of 2 tables agree with {two_folders[1]} to the bit."]


def test_other_losses_do_not_agree_where_text_torch_and_cpu_are_the_same(two_folders):
    scaled(two_folders[0], "tiny_losses.parquet", "validation_loss", 1 + 1e-12)
    lines, agrees = compared(*two_folders)
    assert not agrees
    assert "validation_loss differs" in lines[0]
    assert lines[0].endswith("too much")


def test_other_losses_agree_within_the_tolerance_on_another_machine(two_folders):
    new, old = two_folders
    made = read_json(old / "made_on.json")
    (old / "made_on.json").write_text(json.dumps(made | {"cpu": "another"}))
    scaled(new, "tiny_losses.parquet", "validation_loss", 1 + 0.9 * TOLERANCE)
    lines, agrees = compared(new, old)
    assert agrees
    assert lines[0].startswith("Made here with cpu ")
    scaled(new, "tiny_losses.parquet", "validation_loss", 1 + TOLERANCE)
    assert not compared(new, old)[1]


def test_other_losses_may_differ_more_on_another_text(two_folders):
    new, old = two_folders
    made = read_json(old / "made_on.json")
    (old / "made_on.json").write_text(json.dumps(made | {"text": "another"}))
    scaled(new, "tiny_losses.parquet", "validation_loss", 1 + 0.9 * OTHER_TEXT_TOLERANCE)
    assert compared(new, old)[1]


@pytest.mark.parametrize("folder", [0, 1])
def test_tables_that_only_one_folder_has_do_not_agree(two_folders, folder):
    (two_folders[folder] / "tiny_losses.parquet").unlink()
    lines, agrees = compared(*two_folders)
    assert not agrees
    assert lines[0].startswith("tiny_losses.parquet: ")


def test_nothing_kept_is_no_agreement(two_folders):
    for path in [*two_folders[0].glob("*.parquet"), *two_folders[1].glob("*.parquet")]:
        path.unlink()
    assert not compared(*two_folders)[1]


def test_other_seconds_never_agree(two_folders):
    new, old = two_folders
    made = read_json(old / "made_on.json")
    (old / "made_on.json").write_text(json.dumps(made | {"cpu": "another"}))
    scaled(new, "tiny_runs.parquet", "wall_clock_seconds", 1.001)
    assert not compared(new, old)[1]


def test_perplexity_is_of_the_state_at_the_end(tiny, monkeypatch):
    folder, path, extract = tiny
    monkeypatch.setattr(perplexity, "RATE_PER_HOUR", 0.3)
    monkeypatch.setattr(perplexity, "NUM_SEQUENCES", 8)
    found = perplexity.perplexities(load_points(path), path.parent, folder / "results", folder / "cache", 10**9)
    held_out = found[found["text"] == "held-out files"].set_index(["strategy", "failure_seed"])["loss_nats"]
    at_end = extract.at({RATE: 0.3}).runs.set_index(["strategy", "failure_seed"])
    for strategy, seed in product(("none", "checkfree"), (0, 1)):
        expected = at_end.loc[(strategy, seed), "final_validation_loss"]
        assert held_out[strategy, seed] == pytest.approx(expected, rel=1e-6)
    assert set(found["text"]) == {"held-out files", "NumPy's sources"}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """The command, with a small sweep as its only job."""
    folder = tmp_path / "scenarios" / "paper"
    folder.mkdir(parents=True)
    write_scenario(folder, TINY)
    monkeypatch.setattr(jobs, "SCENARIOS", folder)
    monkeypatch.setattr(main, "SCENARIOS", folder)
    monkeypatch.setattr(main, "JOBS", (jobs.Job("tiny", ("training.steps=12",)),))
    monkeypatch.setattr(main, "RUNS", tmp_path / "results")
    monkeypatch.setattr(main, "KEPT", tmp_path / "results" / "paper")
    monkeypatch.setattr(perplexity, "RATE_PER_HOUR", 0.3)
    monkeypatch.setattr(perplexity, "NUM_SEQUENCES", 8)
    return tmp_path


def test_the_quick_run_says_that_its_numbers_are_those_that_are_kept(workplace, capsys):
    main.paper(quick=True, keep=True, cache=workplace / "cache")
    kept_there = workplace / "results" / "paper" / "quick"
    assert {path.name for path in kept_there.iterdir()} == {
        *("tiny_runs.parquet", "tiny_losses.parquet", "perplexity.parquet", "made_on.json")
    }
    for leftover in (workplace / "results").glob("paper-quick-runs"):
        shutil.rmtree(leftover)
    capsys.readouterr()
    main.paper(quick=True, cache=workplace / "another_cache")
    assert f"3 of 3 tables agree with {kept_there} to the bit." in capsys.readouterr().out
    scaled(kept_there, "tiny_losses.parquet", "validation_loss", 1.001)
    with pytest.raises(typer.Exit) as exit_:
        main.paper(quick=True, cache=workplace / "cache")
    assert exit_.value.exit_code == 1


def test_only_the_quick_run_can_be_kept_on_demand(workplace):
    with pytest.raises(typer.BadParameter, match="--quick"):
        main.paper(keep=True, cache=workplace / "cache")


# ---- the scenarios, the page, and that the numbers come again -------------------------------------------


@pytest.mark.parametrize("name", [path.stem for path in sorted(SCENARIOS.glob("*.yaml"))])
def test_scenarios_of_the_paper_are_jobs_and_valid_full_and_quick(name):
    (job,) = (job for job in JOBS if job.name == name)
    full, quick = load_points(job.scenario), load_points(job.scenario, job.quick)
    assert len(full) == len(quick)
    assert full[0].scenario.name == name
    assert all(a.scenario.training.steps > 2 * b.scenario.training.steps for a, b in zip(full, quick, strict=True))


def test_the_seconds_of_the_papers_scenarios_are_those_of_the_throughput_test():
    reference = load_scenario(SCENARIOS.parent / "paper_throughput.yaml")
    for job in JOBS:
        scenario = load_points(job.scenario)[0].scenario
        assert scenario.workload == reference.workload, job.name
        assert scenario.network == reference.network, job.name
        if job.name != "correlated":
            assert scenario.cluster == reference.cluster, job.name


def test_rates_of_table_2_are_the_papers():
    assert [point.parameters["failures.rate_per_hour"] for point in load_points(JOBS[0].scenario)] == list(RATES)


def test_the_page_is_what_the_numbers_make_of_it():
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m benchmarks.paper.page writes it anew"


def test_every_claim_has_a_verdict():
    rows = [*Verdicts(Numbers(KEPT / "full")).rows(), *cost_verdicts(list(table_1()))]
    assert len(rows) > 30
    for claim, paper, here, order, size_, where in rows:
        letters = {line.split(": ")[-1] for cell in (order, size_) if cell for line in cell.split("<br>")}
        assert letters, claim
        assert letters <= set("RN?"), claim
        assert paper, claim
        assert here, claim
        assert where.startswith("["), claim


def test_the_readme_has_the_pages_numbers():
    answers = Answers(KEPT / "full")
    table = answers.against("table2", EXECUTED, "none").set_index(["strategy", RATE])
    iterations, widest = table["ratio"], table.loc[("checkfree", HIGHEST)]
    readme = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    in_words = [" / ".join(f"{iterations[name, rate]:.2f}" for rate in RATES) for name in REBUILDING]
    assert " and ".join(in_words) in readme
    assert "({ratio:.2f} is {low_ratio:.2f} to {high_ratio:.2f})".format(**widest) in readme
    for reference in ("redundant_table2", "redundant_text"):
        times = answers.against("table2", SECONDS, reference).set_index(["strategy", RATE])["ratio"]
        for name in REBUILDING:
            assert " / ".join(f"{times[name, rate]:.2f}" for rate in RATES) in readme


def test_quick_numbers_come_again(tmp_path):
    """The beginning of the quick run of Figure 4c, whose every loss is in the quick run as well."""
    (job,) = (job for job in JOBS if job.name == "figure4c")
    overrides = [*(job.quick), "training.steps=75"]
    sweep(job.scenario, overrides, tmp_path / "results", tmp_path / "cache", jobs=1)
    new = Extract.of(load(tmp_path / "results" / "figure4c")).losses
    old = Extract.read(KEPT / "quick", "figure4c").losses
    old = old[old["iteration"] <= 75].reset_index(drop=True)
    there = read_json(KEPT / "quick" / "made_on.json")
    same = all(there[name] == value for name, value in made_on().items())
    assert len(new) == 6
    found = differences(new.reset_index(drop=True), old)
    assert set(found) <= (set() if same else set(kept.LEARNT))
    assert all(difference <= TOLERANCE for difference in found.values())
