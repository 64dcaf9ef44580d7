"""From a `sweep:` section to points: which values go together, for whom, and what is said of bad ones."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.results.storage import resolved_yaml, run_hash
from sim.scenario.loading import ScenarioError, build_scenario, load_scenario, parse_scenario, scenario_of_run
from sim.scenario.scenario import SweepConfig
from sim.scenario.sweep_points import combinations, load_points
from support.examples import examples

BASE = "name: demo\nstrategies: [none, {kind: checkpoint, interval_iterations: 10}]\n"


def points_of(tmp_path: Path, sweep: str, *overrides: str, rest: str = ""):
    path = tmp_path / "demo.yaml"
    path.write_text(f"{BASE}sweep: {sweep}\n{rest}")
    return load_points(path, overrides)


def problems_of(tmp_path: Path, sweep: str, *overrides: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        points_of(tmp_path, sweep, *overrides)
    return [str(problem) for problem in caught.value.problems]


def test_a_grid_varies_its_last_field_fastest(tmp_path):
    points = points_of(
        tmp_path, "{grid: {failures.rate_per_hour: [0.1, 0.2], cluster.detection_seconds: [5, 20]}, replicates: 2}"
    )
    assert [tuple(point.parameters.values()) for point in points] == [(0.1, 5), (0.1, 20), (0.2, 5), (0.2, 20)]
    assert [point.scenario.cluster.detection_seconds for point in points] == [5, 20, 5, 20]
    assert points[2].scenario.failures.rate_per_hour == 0.2
    assert points[0].scenario.seeds.failures == (0, 1)
    assert points[0].scenario.sweep is None
    points = points_of(
        tmp_path, "{grid: {failures: [{kind: never}, {kind: weibull, shape: 0.7, mean_uptime_hours: 5}]}}"
    )
    assert [point.scenario.failures.kind for point in points] == ["never", "weibull"]


def test_zipped_fields_vary_together_after_listed_points(tmp_path):
    points = points_of(
        tmp_path,
        "{zip: {workload.num_stages: [4, 6], training.model.num_stages: [4, 6]}, "
        "list: [{cluster.device: a100}, {cluster.device: h100, cluster.detection_seconds: 1}]}",
    )
    found = [(p.scenario.cluster.device.name, p.scenario.workload.num_stages) for p in points]
    assert found == [("a100", 4), ("a100", 6), ("h100", 4), ("h100", 6)]
    assert points[3].scenario.cluster.detection_seconds == 1
    assert "cluster.detection_seconds" not in points[0].parameters


def test_a_strategys_field_concerns_that_strategy_alone(tmp_path):
    points = points_of(
        tmp_path, '{grid: {"strategies[checkpoint].interval_iterations": [10, 50], failures.rate_per_hour: [0.1, 0.2]}}'
    )
    assert points[2].scenario.strategies[1].interval_iterations == 50
    assert points[2].parameters_of(1) == {
        "strategies[checkpoint].interval_iterations": 50,
        "failures.rate_per_hour": 0.1,
    }
    assert points[2].parameters_of(0) == {"failures.rate_per_hour": 0.1}
    points = points_of(tmp_path, '{grid: {"strategies[checkpoint].interval_iterations": [10, 50]}}')
    reference, checkpointing = ({run_hash(point.scenario, index, 0, 0, {}) for point in points} for index in (0, 1))
    assert len(reference) == 1
    assert len(checkpointing) == 2


def test_overrides_hold_at_every_point_unless_swept(tmp_path):
    sweep = "{grid: {failures.rate_per_hour: [0.1, 0.2]}}"
    points = points_of(tmp_path, sweep, "cluster.detection_seconds=7", "failures.rate_per_hour=0.5")
    assert [point.scenario.failures.rate_per_hour for point in points] == [0.1, 0.2]
    assert {point.scenario.cluster.detection_seconds for point in points} == {7}
    points = points_of(tmp_path, "{grid: {failures.rate_per_hour: [0.1]}, replicates: 9}", "sweep.replicates=1")
    assert points[0].scenario.seeds.failures == (0,)


def test_replicates_are_pairs_of_seeds_unless_crossing_is_named(tmp_path):
    """Number of replicates, rest of the file, failure seeds, training seeds, and those of one replicate more."""
    pairs, crossed = "{replicates: 3}", "{replicates: 3, training_replicates: 2}"
    listed = "seeds: {failures: [5], training: [7]}"
    (point,) = points_of(tmp_path, pairs, rest=listed)
    assert point.scenario.seeds.replicates == ((5, 7), (6, 8), (7, 9))
    assert point.with_more_replicates(1).scenario.seeds.replicates == ((5, 7), (6, 8), (7, 9), (8, 10))
    (point,) = points_of(tmp_path, crossed, rest=listed)
    assert point.scenario.seeds.replicates == ((5, 7), (6, 7), (7, 7), (5, 8), (6, 8), (7, 8))
    assert point.with_more_replicates(1).scenario.seeds.replicates == tuple(
        (f, t) for t in (7, 8) for f in (5, 6, 7, 8)
    )
    (point,) = points_of(tmp_path, pairs, rest="seeds: {training: [1, 2], design: crossed}")
    assert point.scenario.seeds.replicates == ((0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2))
    (point,) = points_of(tmp_path, "{training_replicates: 3}", rest="seeds: {failures: [1, 2]}")
    assert len(point.scenario.seeds.replicates) == 6
    (point,) = points_of(tmp_path, "{keep: records}", rest="seeds: {failures: [1, 2], training: [4, 9]}")
    assert point.scenario.seeds.replicates == ((1, 4), (2, 9))
    assert point.with_more_replicates(1).scenario.seeds.replicates[2:] == ((3, 10),)
    (point,) = points_of(tmp_path, "{keep: records}", rest="seeds: {training: [4, 9]}")
    assert point.scenario.seeds.replicates == ((0, 4), (0, 9))
    assert point.with_more_replicates(1).scenario.seeds.replicates == ((0, 4), (1, 4), (0, 9), (1, 9))


@settings(max_examples=examples(30, 100))
@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(0, 50), min_size=1, max_size=4, unique=True),
    st.sampled_from(["pairs", "crossed", None]),
    st.integers(1, 5),
)
def test_seeds_survive_a_round_trip_and_more_of_them_keep_the_old(failures, training, design, number):
    if design != "crossed" and len(failures) != len(training):
        training = training[:1]
    scenario = build_scenario(BASE, seeds={"failures": failures, "training": training, "design": design})
    assert parse_scenario(resolved_yaml(scenario)).seeds == scenario.seeds
    more = scenario.seeds.extended(number)
    assert set(scenario.seeds.replicates) < set(more.replicates)
    assert len(set(more.replicates)) == len(more.replicates)
    assert more.are_pairs == scenario.seeds.are_pairs
    assert parse_scenario(resolved_yaml(scenario.model_copy(update={"seeds": more}))).seeds == more


def test_a_runs_scenario_of_an_older_version_has_crossed_seeds(tmp_path):
    scenario = build_scenario(BASE, seeds={"failures": [0, 1, 2], "training": [0, 1], "design": "crossed"})
    text = resolved_yaml(scenario)
    assert "design: crossed" in text
    old = tmp_path / "scenario.yaml"
    old.write_text(text.replace("  design: crossed\n", ""))
    assert scenario_of_run(old).seeds == scenario.seeds
    with pytest.raises(ScenarioError, match=r"seeds.training: 2 seeds, but seeds.failures lists 3: .*design: crossed"):
        load_scenario(old)


@pytest.mark.parametrize(
    ("sweep", "seeds", "expected"),
    [
        (
            "{keep: records}",
            "{failures: [0, 1, 2], training: [0, 1]}",
            "line 4, seeds.training: 2 seeds, but seeds.failures lists 3: pairs need as many of both, "
            "or one of either; seeds.design: crossed combines each with each",
        ),
        (
            "{replicates: 3}",
            "{training: [0, 1]}",
            "line 3, sweep.replicates: each has a training seed of its own, but seeds.training lists 2: "
            "give one of the two, or seeds.design: crossed",
        ),
        (
            "{replicates: 3, training_replicates: 2}",
            "{design: pairs}",
            "line 3, sweep.training_replicates: crosses seeds, but seeds.design is pairs: leave out one of the two",
        ),
        (
            "{replicates: 3}",
            "{design: pair}",
            "line 4, seeds.design: found 'pair'; nearest: pairs; allowed: pairs, crossed",
        ),
    ],
    ids=["unequal lists", "counted and listed", "two designs", "unknown design"],
)
def test_designs_that_contradict_each_other_are_refused(tmp_path, sweep, seeds, expected):
    with pytest.raises(ScenarioError) as caught:
        points_of(tmp_path, sweep, rest=f"seeds: {seeds}\n")
    assert [str(problem) for problem in caught.value.problems] == [expected]


def test_without_a_sweep_there_is_one_point(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_text(BASE)
    (point,) = load_points(path)
    assert point.parameters == {}
    assert point.scenario == load_scenario(path)


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        (
            "{grid: {failures.rate_per_huor: [0.1, 0.2]}}",
            "line 3, failures.rate_per_huor: unknown key of 'exponential'; nearest: rate_per_hour; allowed: ",
        ),
        (
            '{grid: {"strategies[checkpont].interval_iterations": [10]}}',
            "line 3, sweep.grid.strategies[checkpont].interval_iterations: no entry 'checkpont' in 'strategies'; "
            "nearest: checkpoint; allowed: none, checkpoint; or number 0 to 1",
        ),
        (
            "{list: [{failures.rate_per_hour: 0.1}, {failures.rate_per_hour: 3}]}",
            "line 3, failures.rate_per_hour: found 3; allowed: a number, at least 0, below 1, or null",
        ),
        ("{grid: {cluster.device: [l4, t44]}}", "line 3, cluster.device: found 't44'; nearest: t4; allowed: "),
        (
            "{grid: {cluster.device: [t4, l4], cluster.detection_seconds: [1, 2, 3]}}",
            "line 2, strategies.0: 'none' needs 17.5 GiB on stage 1, 1.5 GiB more than the 16 GiB of device 't4' "
            "('checkpoint' does not fit either); would fit: max_in_flight 5, or recompute_activations true, or "
            "sequences_per_microbatch 4, or device l4, rtx4090, rtx3090, ... "
            "(at cluster.device: 't4', cluster.detection_seconds: 1, and 2 more points)",
        ),
    ],
)
def test_a_bad_value_is_reported_where_it_is(tmp_path, sweep, expected):
    (problem,) = problems_of(tmp_path, sweep)
    assert problem.startswith(expected)


def test_each_bad_value_is_reported_once(tmp_path):
    sweep = '{grid: {"strategies[checkpoint].interval_iterations": [10, -3, x], cluster.detection_seconds: [1, 2]}}'
    assert problems_of(tmp_path, sweep) == [
        "line 3, strategies.1.interval_iterations: found -3; allowed: a whole number, at least 1, or null",
        "line 3, strategies.1.interval_iterations: found 'x'; allowed: a whole number, at least 1, or null",
    ]


VALUES = st.lists(st.integers(), min_size=1, max_size=4).map(tuple)


@given(
    grid=st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3),
    by_hand=st.lists(st.dictionaries(st.sampled_from("xyz"), st.integers(), min_size=1), max_size=3).map(tuple),
)
def test_points_are_the_product_and_each_has_every_field(grid, by_hand):
    points = list(combinations(SweepConfig.model_validate({"grid": grid, "list": by_hand})))
    number = max(1, len(by_hand))
    for values in grid.values():
        number *= len(values)
    assert len(points) == number
    for point in points:
        assert {each.field for each in point}.issuperset(grid)
        assert all(each.value in grid[each.field] for each in point if each.field in grid)
