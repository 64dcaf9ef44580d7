"""What figures draw, as tables: against the records that they come from, and against values known by hand."""

import numpy as np
import pandas as pd
import pytest

from sim.core.units import SECONDS_PER_HOUR
from sim.results import storage as results
from sim.results.loss_curves import failure_marks, interpolated, loss_curves, loss_over_time, over_time, run_curves
from sim.results.outcome_tables import (
    checkpoint_intervals,
    ledger_hours,
    money_to_loss,
    nodes_over_time,
    time_to_end,
    time_to_loss,
)
from sim.results.recovery_tables import excesses, half_lives, spikes, swapping_cost
from sim.results.selection import MissingError, comparable, swept_fields
from sim.results.storage import load_run
from support.pictured import INTERVAL, RATE, SCENARIO, of, of_scenario, of_sweep, run_all


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    return of_scenario(tmp_path_factory.mktemp("dry"))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    return of_sweep(tmp_path_factory.mktemp("swept"))


def test_a_curve_by_iteration_has_the_last_loss_of_each(dry):
    curves = run_curves(dry, "iteration")
    assert list(curves.columns) == [
        "run", "strategy", "kind", "failure_seed", "training_seed", "iteration", "loss_nats",
    ]  # fmt: skip
    for name, curve in curves.groupby("run"):
        records = load_run(dry.folder / name).iterations.dropna(subset=["validation_loss"])
        assert curve["iteration"].tolist() == list(range(20, 601, 20))
        last = records.groupby("iteration")["validation_loss"].last()
        assert curve["loss_nats"].tolist() == last.tolist()


def test_against_time_rollbacks_break_a_single_runs_curve(dry):
    curves = run_curves(dry, "time")
    for name, curve in of(curves, kind="checkpoint").groupby("run"):
        run = load_run(dry.folder / name)
        assert curve["loss_nats"].isna().sum() == run.summary["num_rollbacks"] > 0
        validated = run.iterations.dropna(subset=["validation_loss"])
        measured = set(zip(validated["ended_seconds"] / SECONDS_PER_HOUR, validated["validation_loss"], strict=True))
        assert measured <= set(zip(curve["hours"], curve["loss_nats"], strict=True))
    alone = results.load(dry.folder / curve["run"].iloc[0])
    found = loss_curves(alone, "time")
    assert found["loss_nats"].equals(curve["loss_nats"].reset_index(drop=True))
    assert found["low_loss_nats"].isna().all()
    assert found["num_runs"].unique() == [1]


@pytest.mark.parametrize(("back_to", "loss"), [(75, 2.25), (80, 2.0), (40, 4.0), (90, 2.0), (30, None)])
def test_a_rollback_goes_back_to_the_loss_at_its_iteration(back_to, loss):
    points = pd.DataFrame(
        {"iteration": [40, 80, 120], "ended_seconds": [3600.0, 7200.0, 18000.0], "validation_loss": [4.0, 2.0, 1.0]}
    )
    at = {"time_seconds": [9000.0, 9000.0], "iteration": [95, back_to]}
    hours, losses = loss_over_time(points, pd.DataFrame({"kind": ["rolled_back", "recovered"], **at}))
    assert hours.tolist() == [1.0, 2.0, *([2.5] if loss is None else [2.5, 2.5]), 5.0]
    assert losses[:2].tolist() == [4.0, 2.0]
    assert np.isnan(losses[2])
    assert losses[3:].tolist() == ([1.0] if loss is None else [loss, 1.0])


def test_several_runs_are_a_mean_in_a_range_while_all_train(dry):
    runs, means = run_curves(dry, "iteration"), loss_curves(dry, "iteration")
    assert list(means["strategy"].unique()) == ["none", "checkpoint", "checkfree", "checkfree_plus"]
    own = of(runs, strategy="checkfree").pivot(index="iteration", columns="failure_seed", values="loss_nats")
    found = of(means, strategy="checkfree").set_index("iteration")
    assert found["loss_nats"].to_numpy() == pytest.approx(own.mean(axis=1).to_numpy())
    assert found["low_loss_nats"].tolist() == own.min(axis=1).tolist()
    assert found["high_loss_nats"].tolist() == own.max(axis=1).tolist()
    assert (found["high_loss_nats"] > found["low_loss_nats"]).any()
    assert found["num_runs"].unique() == [2]
    found = of(loss_curves(dry, "time"), strategy="checkpoint")
    ends = of(dry.runs, strategy="checkpoint")["wall_clock_seconds"] / SECONDS_PER_HOUR
    assert ends.nunique() == 2
    assert found["hours"].max() == pytest.approx(ends.min())
    assert (found["low_loss_nats"] <= found["loss_nats"]).all()


def test_a_rollback_restores_the_older_loss():
    x = np.array([1.0, 2.0, 3.0, 3.0, 5.0])
    losses = np.array([4.0, 2.0, np.nan, 4.0, 2.0])
    at = np.array([1.5, 2.5, 3.0, 4.0, 5.0])
    assert interpolated(x, losses, at).tolist() == [3.0, 2.0, 4.0, 3.0, 2.0]
    no_older = np.array([4.0, 2.0, np.nan]), np.array([1.0, 2.0, 3.0])
    assert interpolated(no_older[1], no_older[0], np.array([2.9])).tolist() == [2.0]
    hours, found = over_time([(x, losses), (np.array([2.0, 4.0]), np.array([1.0, 1.0]))])
    assert (hours[0], hours[-1], found.shape) == (2.0, 4.0, (2, 400))
    assert found[1].tolist() == [1.0] * 400


def test_marks_are_where_stages_were_lost(dry):
    marks = failure_marks(dry, "time")
    assert set(marks["kind"]) == {"checkpoint", "checkfree", "checkfree_plus"}
    for name, own in marks.groupby("run"):
        run = load_run(dry.folder / name)
        failures = run.events[run.events["kind"] == "failure"]
        first = run.iterations.dropna(subset=["validation_loss"])["ended_seconds"].iloc[0]
        expected = failures[failures["time_seconds"] >= first]
        assert own["hours"].tolist() == (expected["time_seconds"] / SECONDS_PER_HOUR).tolist()
        assert own["stage"].tolist() == expected["stage"].tolist()
        assert own["loss_nats"].between(1.2, 5.5).all()
    assert failure_marks(dry, "iteration")["iteration"].between(20, 600).all()


def test_hours_and_money_to_the_target(dry, swept):
    found, money = time_to_loss(dry), money_to_loss(dry)
    own = of(dry.runs, strategy="checkpoint")
    row, paid = of(found, strategy="checkpoint").iloc[0], of(money, strategy="checkpoint").iloc[0]
    assert row["mean_hours"] == pytest.approx(own["target_reached_seconds"].mean() / 3600)
    assert row["low_hours"] < row["mean_hours"] < row["high_hours"]
    assert (row["num_runs"], row["num_reached"]) == (2, 2)
    # five nodes, none away for longer than no time, at the price of an l4
    assert paid["mean_usd"] == pytest.approx(0.25 * 5 * row["mean_hours"])
    of_sweep = time_to_loss(swept)
    assert list(of_sweep.columns[:4]) == ["strategy", "kind", RATE, INTERVAL]
    assert of_sweep.groupby("strategy", sort=False).size().to_dict() == {
        "none": 2, "checkpoint": 4, "checkfree": 2, "checkfree_plus": 2,
    }  # fmt: skip
    assert of_sweep[of_sweep["kind"] != "checkpoint"][INTERVAL].isna().all()


def test_a_missing_target_price_or_loss_is_named(dry, tmp_path):
    def changed(**columns):
        return results.Results(dry.folder, dry.runs.assign(**columns))

    with pytest.raises(MissingError, match=r"set training\.target_validation_loss"):
        time_to_loss(changed(target_validation_loss=None))
    with pytest.raises(MissingError, match="device has no price"):
        money_to_loss(changed(cost_usd=None))
    with pytest.raises(MissingError, match="run the scenario again"):
        money_to_loss(results.Results(dry.folder, dry.runs.drop(columns="target_reached_usd")))
    with pytest.raises(MissingError, match=r"only one checkpoint interval"):
        checkpoint_intervals(dry)
    with pytest.raises(MissingError, match=r"scenarios/swapping\.yaml"):
        swapping_cost(dry)
    time_only = run_all(tmp_path, SCENARIO.replace("learner: curve", "learner: none").replace("  target_val", "  # "))
    for table in (lambda found: loss_curves(found, "time"), spikes):
        with pytest.raises(MissingError, match=r"training\.learner: torch"):
            table(comparable(results.load(time_only)))


def test_hours_in_buckets_add_up_and_are_the_same_of_a_sweep(dry, swept):
    for found in (ledger_hours(dry), ledger_hours(swept)):
        buckets = [name for name in found if name.endswith("_hours") and name != "all_hours"]
        assert len(buckets) == 9
        assert found[buckets].sum(axis=1).to_numpy() == pytest.approx(found["all_hours"].to_numpy())
    ours, theirs = of(ledger_hours(dry), kind="checkpoint"), of(ledger_hours(swept), **{RATE: 0.9, INTERVAL: 40})
    assert ours["lost_work_hours"].tolist() == theirs["lost_work_hours"].tolist() != [0.0]


def test_nodes_over_time_are_what_is_paid_for(tmp_path):
    cluster = "cluster: {device: l4, num_spares: 1, provisioning_seconds: 600}\n"
    found = comparable(results.load(run_all(tmp_path, SCENARIO + cluster)))
    nodes = nodes_over_time(found)
    assert nodes["num_nodes"].min() < 6 == nodes["num_nodes"].max()
    for name, own in nodes.groupby("run"):
        summary = of(found.runs, run=name).iloc[0]
        assert own["hours"].is_monotonic_increasing
        assert own["hours"].iloc[-1] == pytest.approx(summary["wall_clock_seconds"] / SECONDS_PER_HOUR)
        paid = (own["hours"].diff().iloc[1:] * own["num_nodes"].shift().iloc[1:]).sum()
        assert paid == pytest.approx(summary["node_hours"])
    assert of(nodes, kind="none")["num_nodes"].unique() == [6]


def test_intervals_of_checkpoints_are_beside_the_other_fields(swept, dry):
    found = checkpoint_intervals(swept)
    of_interval = found.dropna(subset=["interval_iterations"])
    assert set(of_interval["strategy"]) == {"checkpoint"}
    assert (of_interval["interval_iterations"] == of_interval[INTERVAL]).all()
    ends, targets = time_to_end(swept), time_to_loss(swept)
    for row in of_interval.to_dict("records"):
        at = {RATE: row[RATE], INTERVAL: row[INTERVAL]}
        assert row["mean_end_hours"] == of(ends, **at)["mean_hours"].iloc[0]
        assert row["high_target_hours"] == of(targets, **at)["high_hours"].iloc[0]
    assert swept_fields(dry) == []
    assert swept_fields(swept) == [RATE, INTERVAL]
    assert len(of(loss_curves(swept, "iteration"), iteration=600)) == 2 + 4 + 2 + 2


# ---- recoveries: with `learner: curve` the loss is known in closed form --------------------------------------------
def test_the_excess_after_a_recovery_is_what_the_edit_did(dry):
    found = excesses(dry)
    assert set(found["kind"]) == {"checkfree", "checkfree_plus"}
    assert set(found["baseline"]) == {"failure-free run"}
    assert (found["iterations_since_recovery"] % 2 == 0).all()
    first = of(found, strategy="checkfree", failure_seed=0)
    first = of(first, recovery=first["recovery"].min())
    run = load_run(dry.folder / first["run"].iloc[0])
    recovery = run.events[run.events["kind"] == "recovered"].iloc[first["recovery"].iloc[0]]
    assert first["recovered_hours"].iloc[0] == recovery["time_seconds"] / SECONDS_PER_HOUR
    plain = load_run(dry.folder / of(dry.runs, kind="none", failure_seed=0)["run"].iloc[0]).iterations
    step = recovery["iteration"] // 2 + 1
    of_step = [frame[frame["step"] == step]["train_loss"].dropna().iloc[0] for frame in (run.iterations, plain)]
    assert first["excess_nats"].iloc[0] == pytest.approx(of_step[0] - of_step[1])
    assert first["excess_nats"].iloc[0] > 0.0


def test_spikes_and_half_lives_are_of_these_excesses(dry):
    found, curves, halves = excesses(dry), spikes(dry), half_lives(dry)
    own = of(found, strategy="checkfree")
    num_recoveries = len(own[["run", "recovery"]].drop_duplicates())
    at_first = own[own["iterations_since_recovery"] == 2]["excess_nats"]
    curve = of(curves, strategy="checkfree").iloc[0]
    assert curve["num_recoveries"] == len(at_first) == num_recoveries
    assert curve["mean_excess_nats"] == pytest.approx(at_first.mean())
    assert (curve["low_excess_nats"], curve["high_excess_nats"]) == (at_first.quantile(0.25), at_first.quantile(0.75))
    row = of(halves, strategy="checkfree").iloc[0]
    assert row["num_recoveries"] == num_recoveries
    assert row["low_iterations"] <= row["median_iterations"] <= row["high_iterations"]
    alone = results.Results(dry.folder, dry.runs[dry.runs["kind"] == "checkfree"])
    assert set(excesses(alone)["baseline"]) == {"before the failure"}


def test_half_lives_by_hand(dry, monkeypatch):
    def spike(recovery, *values):
        since = [2 * (place + 1) for place in range(len(values))]
        about = {"run": "a", "strategy": "s", "kind": "checkfree", "recovery": recovery, "baseline": "failure-free run"}
        return pd.DataFrame({**about, "iterations_since_recovery": since, "excess_nats": values})

    given = [spike(0, 1.0, 0.6, 0.5, 0.9), spike(1, 0.2, 0.8, 0.3), spike(2, 1.0, 0.9), spike(3, -0.1, -0.2)]
    monkeypatch.setattr("sim.results.recovery_tables.excesses", lambda _: pd.concat(given))
    row = half_lives(dry).iloc[0]
    assert (row["num_recoveries"], row["num_never"], row["num_without_spike"]) == (4, 1, 1)
    assert (row["low_iterations"], row["median_iterations"]) == (6, 6)
    assert row["high_iterations"] == np.inf
    assert row["median_peak_nats"] == 1.0
    curve = spikes(dry)
    assert curve["num_recoveries"].tolist() == [4, 4, 2]
    assert curve["mean_excess_nats"].tolist() == pytest.approx([(1.0 + 0.2 + 1.0 - 0.1) / 4, 2.1 / 4, 0.4])


def test_the_cost_of_swapping_is_between_failure_free_runs(tmp_path):
    found = comparable(results.load(run_all(tmp_path, SCENARIO, "failures={kind: never}", "seeds.training=[0, 1]")))
    costs = swapping_cost(found)
    assert set(costs["strategy"]) == {"checkfree_plus"}
    assert costs["iteration"].tolist() == list(range(20, 601, 20))
    assert costs["num_pairs"].unique() == [2]  # one for each training seed: failure seeds change nothing

    def loss(progress):
        return 1.2 + 4.3 * (1.0 + progress / 20.0) ** -0.5

    steps = costs["iteration"].to_numpy() / 2
    assert costs["difference_nats"].to_numpy() == pytest.approx(loss(0.95 * steps) - loss(steps))
    assert costs["low_difference_nats"].to_numpy() == pytest.approx(costs["high_difference_nats"].to_numpy())


def test_of_several_commands_the_last_ones_runs_are_compared(tmp_path):
    run_all(tmp_path, SCENARIO)
    out = run_all(tmp_path, SCENARIO, "failures.rate_per_hour=0.1", "strategies=[checkfree_plus, none]")
    assert len(results.load(out).runs) == 8 + 4
    found = comparable(results.load(out))
    assert found.runs["strategy"].tolist() == ["checkfree_plus", "none"] * 2
    (out / "comparison.csv").unlink()
    with pytest.raises(ValueError, match="agree in strategy and seeds but not in their scenario"):
        comparable(results.load(out))
