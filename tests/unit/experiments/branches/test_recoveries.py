"""What strategies make of one lost stage."""

from __future__ import annotations

import math

import pytest

from models.spec import plain_routes, swapped_routes
from models.training_state import Edit
from sim.experiments.branches.design import BranchDesign, default_steps, stages_that_fail
from sim.experiments.branches.recoveries import trunk_of
from sim.failures import PROCESSES
from sim.failures.registry import ComposeConfig
from sim.scenario.scenario import BranchesConfig
from support.builders import a_scenario

STRATEGIES = ({"kind": "checkpoint", "interval_iterations": 5}, {"kind": "checkfree"}, {"kind": "checkfree_plus"})
CHECKFREE, CHECKFREE_PLUS = 1, 2


def scenario(**options):
    """Four stages under three strategies."""
    return a_scenario(STRATEGIES, **options)


def test_checkfree_rebuilds_the_stage_at_the_step_of_the_failure():
    trunk = trunk_of(scenario(), CHECKFREE, [(2, 3), (3, 7)], 4)
    assert trunk.routes == plain_routes(4)
    assert [(step, edit.stage, edit.rule, edit.sources) for one in trunk.recoveries for step, edit in one.edits] == [
        (3, 2, "average", (1, 3)),
        (7, 3, "average", (2, 4)),
    ]


def test_the_trunk_has_the_routes_of_its_strategy():
    trunk = trunk_of(scenario(), CHECKFREE_PLUS, [(1, 3)], 4)
    assert trunk.routes == swapped_routes(4)
    assert [edit.sources for _, edit in trunk.recoveries[0].edits] == [(2,)]


def test_a_rollback_changes_no_weights_and_repeats_iterations():
    early, late = trunk_of(scenario(), 0, [(2, 11), (2, 14)], 4).recoveries
    assert early.edits == late.edits == ()
    assert late.seconds > early.seconds > 0.0  # 4 iterations are lost, and 1
    iteration = trunk_of(scenario(), 0, [], 20)
    assert iteration.recoveries == ()


@pytest.mark.parametrize("iterations_per_step", [1, 5])
def test_a_rollback_costs_the_iterations_since_the_checkpoint(iterations_per_step):
    config = scenario(iterations_per_step=iterations_per_step)
    one, other = trunk_of(config, 0, [(2, 11), (2, 12)], 4).recoveries
    per_step = other.seconds - one.seconds
    assert per_step > 0.0 if iterations_per_step == 1 else per_step == pytest.approx(0.0)  # saved at each step


def test_an_unrecoverable_stage_goes_to_the_fallback_or_ends_the_run():
    restarted = trunk_of(scenario(fallback="restart"), CHECKFREE, [(1, 3)], 4).recoveries[0]
    assert (restarted.edits, restarted.stopped) == ((), None)
    stopped = trunk_of(scenario(fallback="stop"), CHECKFREE, [(1, 3)], 4).recoveries[0]
    assert "has only one neighbour" in str(stopped.stopped)
    assert math.isnan(stopped.seconds)


def test_the_design_is_of_all_stages_that_can_be_lost():
    config = scenario(steps=100)
    never = PROCESSES["never"].Config(kind="never", immune_stages=(0, 4))
    config = config.model_copy(
        update={"failures": never, "branches": BranchesConfig(after_steps=(20, 0), replicates=2)}
    )
    design = BranchDesign.of(config)
    assert design.after_steps == (0, 20)
    assert list(design.failures) == [0, 1]
    assert design.all_failures == tuple((stage, step) for step in (25, 50, 75) for stage in (1, 2, 3))


@pytest.mark.parametrize(
    ("immune", "failing"),
    [
        ([(0, 4)], (1, 2, 3)),
        ([(0,), (0,)], (1, 2, 3, 4)),
        ([(0, 1), (1, 4)], (0, 2, 3, 4)),
        ([(0,), ()], (0, 1, 2, 3, 4)),
    ],
)
def test_a_stage_that_any_process_takes_is_one_that_fails(immune, failing):
    parts = tuple({"kind": "exponential", "immune_stages": stages} for stages in immune)
    failures = ComposeConfig(processes=parts)
    assert stages_that_fail(scenario().model_copy(update={"failures": failures})) == failing


def test_default_steps_leave_room_for_the_branches():
    assert default_steps(800, 60) == (200, 400, 600)
    assert default_steps(100, 60) == (25,)
    assert default_steps(3, 2) == (1,)
    assert default_steps(10, 9) == (1,)
    assert default_steps(10, 10) == ()


def test_a_branch_is_a_line_of_its_own_only_where_weights_change():
    trunk = trunk_of(scenario(), CHECKFREE, [(2, 3)], 4)
    spec = scenario().training.spec("text", 256, 0, 0, plain_routes(4))
    (recovery,) = trunk.recoveries
    branch = trunk.branch(spec, recovery)
    assert branch.parent() == trunk.line(spec)
    assert isinstance(branch.edits[0][1], Edit)
    plain = trunk_of(scenario(), 0, [(2, 3)], 4)
    assert plain.branch(spec, plain.recoveries[0]) == plain.line(spec)


def test_one_failure_takes_consecutive_stages():
    (rebuilt,) = trunk_of(scenario(fallback="restart"), CHECKFREE, [(2, 3)], 4, lost_at_once=2).recoveries
    assert rebuilt.edits == ()  # a stage without a neighbour on one side: the fallback goes back
    (alone,) = trunk_of(scenario(fallback="restart"), CHECKFREE, [(2, 3)], 4).recoveries
    assert [edit.stage for _, edit in alone.edits] == [2]


def test_training_seeds_take_turns_with_the_stages():
    design = BranchDesign.rotated(range(4), range(1, 7), (160, 320, 480), (10, 20), (20, 40))
    assert all(len(failures) == 3 for failures in design.failures.values())
    for stage in range(1, 7):
        steps = [step for failures in design.failures.values() for each, step in failures if each == stage]
        assert len(steps) == len(set(steps)) == 2
    alone = BranchDesign.rotated([7], range(1, 7), (160, 320, 480), (10, 20), (20, 40))
    assert [stage for stage, _ in alone.failures[7]] == [1, 2, 3, 4, 5, 6]
