"""Compiled steps: losses of the eager step within rounding, and the same bits however and wherever they are trained."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from models.compiled import FOLDER_VARIABLE, compiler_name
from models.recipe import PLAIN, ApproximateBackward, Recipe
from models.segment import train_segments
from models.spec import swapped_routes
from models.trainer import Trainer
from models.training_plan import Segment
from models.training_state import Edit, GradientNormWeights, Lineage
from models.trajectory import Trajectory, environment_of
from models.trajectory_store import TrajectoryStore
from support.trainings import AROUND_3, spec_for


def reason_to_skip() -> str | None:
    try:
        compiler_name()
    except ValueError as error:
        return str(error)
    return None


pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def compiler(monkeypatch, tmp_path):
    if reason := reason_to_skip():
        pytest.skip(reason)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "compiled"))


def test_bits_do_not_depend_on_process_resumption_or_forks(corpus, tmp_path):
    """Straight = resumed = forked = trained in another process that finds the compiled code on disk."""
    spec = spec_for(corpus, compile="on", routes=swapped_routes(4))
    straight, store = Trajectory(spec, corpus, None), TrajectoryStore(tmp_path)
    root = straight.root(spec.routes)
    losses = [straight.train_loss(root.after(step)) for step in range(1, 9)]
    Trajectory(spec, corpus, store, keyframe_interval_steps=3).train_loss(root.after(4))
    resumed = Trajectory(spec, corpus, store, keyframe_interval_steps=3)
    assert [resumed.train_loss(root.after(step)) for step in range(1, 9)] == losses
    edit = Edit(2, "average", (1, 3), GradientNormWeights(), learning_rate_factor=1.1)
    fork = root.after(5).edited(edit)
    expected = Trajectory(spec, corpus, None).train_loss(fork.after(8))
    assert resumed.train_loss(fork.after(8)) == expected != losses[-1]
    smaller = root.after(5).entered(Recipe(rows=(0, 2, 3), routes=((1, 2, 4), (1, 2, 3, 4))))
    expected = Trajectory(spec, corpus, None).train_loss(smaller.after(8))
    assert resumed.train_loss(smaller.after(8)) == expected != losses[-1]
    segment = Segment(Lineage(spec), 0, 8, None)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        (done,) = pool.submit(train_segments, [(segment, None, {})], corpus, environment_of(spec)).result()
    assert [done.results.steps[step].train_loss for step in range(1, 9)] == losses


@pytest.mark.parametrize("family", ["llama", "gpt"])
def test_losses_are_those_of_the_eager_step(corpus, family):
    spec = spec_for(corpus)
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"family": family})})
    eager, compiled = (Trainer(spec.model_copy(update={"compile": how}), corpus) for how in ("off", "on"))
    approximate = Recipe(backward=(ApproximateBackward(2, rank=4),))
    recipes = [PLAIN, Recipe(rows=(0, 3), average_over="batch"), AROUND_3, approximate]
    for step in range(12):
        for trainer in (eager, compiled) if step % 3 == 0 else ():
            trainer.enter(recipes[step // 3])
        expected, found = eager.train_step(), compiled.train_step()
        assert found.train_loss == pytest.approx(expected.train_loss, rel=1e-4)
        assert found.gradient_norms == pytest.approx(expected.gradient_norms, rel=1e-3)
    assert compiled.validation_loss() == pytest.approx(eager.validation_loss(), rel=1e-4)


def test_a_compiler_that_builds_nothing_is_none(monkeypatch):
    monkeypatch.setattr("torch._inductor.cpu_vec_isa.pick_vec_isa", lambda: None)
    with pytest.raises(ValueError, match="cannot build vectorised code"):
        compiler_name.__wrapped__()
