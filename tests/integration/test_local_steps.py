"""Sweeps of replicas that train apart: the same bits one by one, in segments, resumed and from an emptied cache."""

from contextlib import closing
from pathlib import Path

import pytest

from models.trajectory_store import TrajectoryStore
from sim.results.storage import load
from sim.scenario.sweep_points import load_points
from support import chores
from support.sweeps import TINY, do_one_by_one, do_sweep, files_of, write_scenario

LOCAL_STEPS = (
    TINY.replace("iterations_per_step: 40\n", "fallback: {kind: checkpoint, interval_iterations: 8}\n")
    .replace("  grid: {failures.rate_per_hour: [0.1, 0.3]}\n", "")
    .replace("{device: a100}", "{device: a100, nodes_per_stage: 2, provisioning_seconds: 20, detection_seconds: 1}")
    .replace("rate_per_hour: 0.3, immune_stages: [0]", "mean_uptime_hours: 0.12, scope: node")
    .replace(
        "[none, {kind: checkpoint, interval_iterations: 40}, {kind: checkfree, end_stages: copy}]",
        "[none, {kind: diloco, inner_steps: 4}, "
        "{kind: diloco, inner_steps: 6, lost_stage: checkfree, weights: tokens, label: rebuilt}, "
        "{kind: diloco, inner_steps: 6, lost_stage: checkpoint, interval_iterations: 2, label: saved}, "
        "{kind: diloco, inner_steps: 6, lost_stage: neighbour_copy, label: copied}, "
        "{kind: diloco, inner_steps: 6, fragments: 2, overlap_iterations: 1, mixing: 0.5, label: streaming}]",
    )
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def done(folder):
    """A finished sweep: six strategies, two pairs of seeds."""
    return do_sweep(write_scenario(folder, LOCAL_STEPS), folder / "results", folder / "cache")


def test_a_sweep_leaves_what_its_runs_leave_one_by_one(done, folder, tmp_path):
    (point,) = load_points(folder / "tiny.yaml")
    assert do_one_by_one(point, folder, tmp_path) == len(done.runs) == 12
    assert files_of(done.folder.folder) == files_of(tmp_path / "tiny")


def test_nodes_are_lost_and_replicas_left_out(done):
    found = load(done.folder.folder)
    own = found.runs[found.runs["kind"] == "diloco"]
    assert (own["num_nodes_lost"] > 0).all()
    assert (own["num_synchronisations"] > 0).all()
    assert (own["batch_share"] < 1).any()
    assert own["final_validation_loss"].notna().all()


def test_segments_resumption_and_an_emptied_cache_change_no_bit(done, folder, tmp_path):
    path = folder / "tiny.yaml"
    do_sweep(path, tmp_path / "results", tmp_path / "cache", most_steps=3, runs=range(3))
    store = TrajectoryStore(tmp_path / "cache")
    store.prune(0)
    store.close()
    rest = do_sweep(path, tmp_path / "results", tmp_path / "cache", most_steps=5)
    assert files_of(rest.folder.folder) == files_of(done.folder.folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pool", "ray"])
def test_workers_and_a_ray_cluster_change_no_bit(done, folder, tmp_path, name):
    with closing(chores.EXECUTORS[name]()) as executor:
        job = do_sweep(folder / "tiny.yaml", tmp_path / "results", tmp_path / "cache", executor, most_steps=5)
    assert not job.failures
    assert files_of(job.folder.folder) == files_of(done.folder.folder)


def test_what_is_done_is_not_trained_again(done, folder, tmp_path):
    again = do_sweep(folder / "tiny.yaml", tmp_path / "results", folder / "cache")
    assert again.training.num_trained_steps == 0
    assert files_of(again.folder.folder) == files_of(done.folder.folder)
