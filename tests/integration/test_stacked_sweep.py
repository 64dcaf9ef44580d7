"""A sweep whose replicates are trained together: the same files whichever stacks are formed, and on a GPU's worker."""

from contextlib import closing
from itertools import count

import pytest

from models import device
from models.segment import train_segments
from sim.experiments import job as sweep_job
from sim.experiments import training_workers
from sim.experiments.executors import InProcess, ProcessPool
from sim.experiments.queue import WorkQueue
from sim.experiments.sweep import SweepOptions, run_sweep
from sim.experiments.training_workers import TrainingWorkers
from sim.scenario.sweep_points import load_points
from support import chores
from support.sweeps import do_sweep, files_of, write_scenario

SCENARIO = """
name: tiny
workload: {num_stages: 4, num_microbatches: 4}
training:
  model: {dim: 16, num_heads: 2, num_stages: 4}
  data: {source: text, files: ["text/*.txt"]}
  sequences_per_batch: 4
  sequence_length: 16
  steps: 9
  evaluation: {interval_steps: 4, num_sequences: 8}
  replicates_at_once: 3
cluster: {device: l4}
failures: {kind: script, losses: [{at_seconds: 20, stages: [2]}, {at_seconds: 400, stages: [3]}]}
strategies: [{kind: checkpoint, interval_iterations: 5}, checkfree]
seeds: {training: [0, 1]}
"""


@pytest.fixture(scope="module")
def scenario_path(tmp_path_factory):
    return write_scenario(tmp_path_factory.mktemp("tiny"), SCENARIO)


class Watched:
    """An executor that records the size of each stack, and treats some otherwise."""

    num_workers = 1

    def __init__(self, executor=None, spoil=None):
        self.executor, self.spoil = executor or InProcess(), spoil
        self.num_workers, self.sizes, self.close = self.executor.num_workers, [], self.executor.close

    def submit(self, task, *arguments):
        if task is train_segments:
            self.sizes.append(len(arguments[0]))
            task, *arguments = self.spoil(*arguments) if self.spoil else (task, *arguments)
        return self.executor.submit(task, *arguments)

    def share(self, value):
        return self.executor.share(value)


def swept(path, folder, executor, most_steps=4):
    job = do_sweep(path, folder / "results", folder / "cache", executor, most_steps=most_steps)
    assert not job.failures
    return files_of(job.folder.folder)


@pytest.fixture(scope="module")
def expected(scenario_path, tmp_path_factory):
    """Files of a sweep in which each replicate is trained in a stack of its own, in one piece."""
    alone = Watched()
    take_alike = WorkQueue.take_alike
    WorkQueue.take_alike = lambda *_, **__: []
    try:
        files = swept(scenario_path, tmp_path_factory.mktemp("alone"), alone, most_steps=50)
    finally:
        WorkQueue.take_alike = take_alike
    assert set(alone.sizes) == {1}
    assert len(alone.sizes) > 4, "there are edits"
    return files


def test_stacks_change_no_file(scenario_path, expected, tmp_path):
    together = Watched()
    assert swept(scenario_path, tmp_path, together) == expected
    assert max(together.sizes) == 3


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ((), "Trained on cpu, 3 replicates at once."),
        (("training.replicates_at_once=1",), None),
        (("training.replicates_at_once=1", "training.device=auto"), "Trained on cpu."),
        (("training.precision=bf16",), "Trained on cpu, bf16, 3 replicates at once."),
    ],
)
def test_the_device_is_stated_where_it_is_not_the_default(scenario_path, tmp_path, monkeypatch, changes, line):
    monkeypatch.setattr(device, "available_gpus", lambda: [])
    points = load_points(scenario_path, changes)
    outcome = run_sweep(
        points, tmp_path, scenario_path.parent, executor=InProcess(), options=SweepOptions(dry_run=True)
    )
    assert [found for found in outcome.outline.lines if found.startswith("Trained on")] == ([line] if line else [])


def fail_if_several(work, text, environment):
    if len(work) > 1:
        raise MemoryError("too large a stack")
    return train_segments(work, text, environment)


def test_a_stack_that_fails_is_tried_one_by_one(scenario_path, expected, tmp_path):
    fails = Watched(spoil=lambda *arguments: (fail_if_several, *arguments))
    assert swept(scenario_path, tmp_path, fails) == expected
    assert max(fails.sizes) > 1


@pytest.mark.slow
def test_a_gpu_has_one_worker_whose_death_costs_nothing(scenario_path, expected, tmp_path, monkeypatch):
    """A stacked recipe on the CPU stands for one on a GPU."""
    for module in (sweep_job, training_workers):
        monkeypatch.setattr(module, "on_gpu", lambda spec: spec.is_stacked)
    number, pools = count(1), []

    def deadly(*arguments):
        if next(number) == 3:
            return chores.die_once, tmp_path / "died", train_segments, *arguments
        return train_segments, *arguments

    def pool(num_workers):
        pools.append(Watched(ProcessPool(num_workers), deadly))
        return pools[-1]

    monkeypatch.setattr(training_workers, "ProcessPool", pool)
    with closing(ProcessPool(2)) as executor:
        assert swept(scenario_path, tmp_path, executor) == expected
    (on_gpu,) = pools
    on_gpu.close()
    assert on_gpu.num_workers == 1
    assert max(on_gpu.sizes) == 3
    assert (tmp_path / "died").exists()


def test_workers_of_the_cpu_are_those_of_the_sweep():
    class Spec:
        device, corpus = "cpu", "c"

    class Corpus:
        content_hash = "c"

    executor, corpus = InProcess(), Corpus()
    workers = TrainingWorkers(executor, [corpus])
    assert workers.of(Spec) == (executor, corpus)
    Spec.device = "cuda"
    assert workers.of(Spec) == (executor, corpus), "this process alone has no others"
    workers.close()
