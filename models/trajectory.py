"""Trajectory: the losses of training states, from the store or by training what is missing.

One live trainer follows the simulation. A Position that is not in the store is trained from the nearest available
state. Older states that an edit refers to are kept as the trainer passes them, else reached by a second trainer.

Invariant, held by a test: straight = resumed = forked = recomputed without the store, bit for bit.
"""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load, save

from models.corpus import Corpus
from models.device import device_name
from models.recipe import Recipe
from models.spec import Device, TrainingSpec
from models.stacked import STACKED_CODE_HASH, LiveTrainer, open_trainer
from models.trainer import State, StepResult
from models.training import Training
from models.training_state import Lineage, Position, digest, older_states
from models.trajectory_store import Keyframe, LineResults, TrajectoryStore, require_equal

KEYFRAME_INTERVAL_STEPS = 50
NUM_OLDER_STATES_KEPT = 2  # in memory for the next edit, which often refers to the same checkpoint
TRAINING_CODE = ("approximate_backward", "corpus", "gpt", "llama", "recipe", "staged_model", "trainer")
TRAINING_CODE_HASH = hashlib.sha256(
    b"".join((Path(__file__).parent / f"{name}.py").read_bytes() for name in TRAINING_CODE)
).hexdigest()[:16]
"""Taken at import: later edits of the files do not run."""


class Trajectory(Training):
    """Losses of Positions of one training spec, trained where the store does not have them.

    `store=None` keeps everything in memory and no keyframes. `num_trained_steps` counts the steps this object has
    computed; `num_replayed_steps` those among them whose results were stored already (from a keyframe up to a fork).
    """

    def __init__(
        self,
        spec: TrainingSpec,
        corpus: Corpus,
        store: TrajectoryStore | None,
        iterations_per_step: int = 1,
        keyframe_interval_steps: int = KEYFRAME_INTERVAL_STEPS,
    ) -> None:
        if spec.corpus != corpus.content_hash:
            raise ValueError(f"the training spec names corpus {spec.corpus}, given is {corpus.content_hash}")
        super().__init__(spec, iterations_per_step)
        self.corpus, self.store, self.keyframe_interval_steps = corpus, store, keyframe_interval_steps
        self.environment = environment_of(spec)
        self.num_replayed_steps = 0
        self._results_by_line: dict[str, LineResults] = {}
        self._live: LiveTrainer | None = None
        self._live_lineage = Lineage(spec)
        self._pending = LineResults()  # of the live lineage: not yet in the store
        self._last_used: dict[Position, State] = {}  # older states, by when they were last used

    def train_loss(self, position: Position) -> float:
        """Loss of the batch of the step that led to this state, before its update, in nats per token."""
        return self._step_result(position).train_loss

    def gradient_norms(self, position: Position) -> tuple[float, ...]:
        """Gradient norm of each stage (0 = the ends) at the step that led here, before clipping."""
        return self._step_result(position).gradient_norms

    def validation_loss(self, position: Position) -> float:
        """Loss over the fixed validation windows at this state, in nats per token."""
        results = self._results(position.lineage).validations
        if position.step not in results:
            loss = self.state_at(position).validation_loss()
            results[position.step] = self._pending.validations[position.step] = loss
        return results[position.step]

    def flush(self) -> None:
        """Write all pending results to the store, with a keyframe at the live state."""
        if self._live and self._pending:
            self._commit(self._live)

    def state_at(self, position: Position) -> LiveTrainer:
        """The live trainer, moved to a Position from the nearest available state. Callers must not step it."""
        torch.set_num_threads(self.spec.num_threads)
        trainer = self._nearest(position.lineage, position.step)
        num_edits, num_made = len(position.lineage.edits), len(self._live_lineage.edits)
        path = [position.lineage.first(number) for number in range(num_made + 1, num_edits + 1)]
        on_the_way = StatesOnTheWay(path)
        for lineage in path:
            self._train_until(trainer, lineage.first_step, on_the_way)
            self._leave(trainer)
            _, entry = lineage.edits[-1]
            if isinstance(entry, Recipe):
                trainer.enter(entry)
            else:
                older = {moment: self._older(state, on_the_way) for moment, state in older_states(lineage).items()}
                trainer.apply(entry, older)
            self._live_lineage = lineage
        self._train_until(trainer, position.step, on_the_way)
        return trainer

    def _older(self, position: Position, on_the_way: StatesOnTheWay) -> State:
        """Older state that an edit refers to."""
        last_used = self._last_used.pop(position, None)
        state = on_the_way.take(position) or last_used or self._reached_apart(position)
        self._last_used[position] = state
        while len(self._last_used) > NUM_OLDER_STATES_KEPT:
            del self._last_used[next(iter(self._last_used))]
        return state

    def _reached_apart(self, position: Position) -> State:
        """State reached by a second trainer, with a keyframe; the live trainer stays where it is."""
        waiting = self._live, self._live_lineage, self._pending
        self._live, self._pending = None, LineResults()
        try:
            trainer = self.state_at(position)
            self._leave(trainer)
            return trainer.snapshot()
        finally:
            self._live, self._live_lineage, self._pending = waiting

    def _step_result(self, position: Position) -> StepResult:
        """Result of the step that led to a Position, before any edit at that step."""
        lineage = position.line_of_step
        if position.step == 0:
            raise ValueError("no step led to step 0: it has no training loss and no gradient")
        results = self._results(lineage).steps
        if position.step not in results:
            self.state_at(Position(lineage, position.step))
        return results[position.step]

    def _nearest(self, lineage: Lineage, step: int) -> LiveTrainer:
        """Make the latest available state on the way to (lineage, step) the live one."""
        last_step = step
        for number in range(len(lineage.edits), -1, -1):
            ancestor = lineage.first(number)
            stored_step = self._stored_step(ancestor, last_step)
            if self._live and self._live_lineage == ancestor and stored_step <= self._live.step <= last_step:
                return self._live
            if self.store and stored_step >= 0:
                state = self.store.read_keyframe(self._line(ancestor), stored_step)
                if state is None:  # the file was deleted or damaged, and is now forgotten
                    return self._nearest(lineage, step)
                return self._begin(ancestor, load(state))
            last_step = ancestor.first_step
        return self._begin(Lineage(lineage.spec))

    def _begin(self, lineage: Lineage, state: State | None = None) -> LiveTrainer:
        """Replace the live state by another."""
        if self._live:
            self._leave(self._live)
        self._live, self._live_lineage = open_trainer(lineage.spec, self.corpus), lineage
        self._live.enter(lineage.recipe)
        if state is not None and self.store:
            self._live.restore(state)
            results, stored = self._results(lineage), self.store.read(self._line(lineage))
            for step, result in stored.steps.items():  # another process may have stored more since
                require_equal(step, results.steps.setdefault(step, result), result)
            results.validations.update(stored.validations)
        return self._live

    def _train_until(self, trainer: LiveTrainer, step: int, on_the_way: StatesOnTheWay) -> None:
        results = self._results(self._live_lineage).steps
        on_the_way.keep(self._live_lineage, trainer)
        while trainer.step < step:
            result = trainer.train_step()
            self.num_trained_steps += 1
            if trainer.step not in results:
                results[trainer.step] = self._pending.steps[trainer.step] = result
            else:
                require_equal(trainer.step, result, results[trainer.step])
                self.num_replayed_steps += 1
            on_the_way.keep(self._live_lineage, trainer)
            if trainer.step % self.keyframe_interval_steps == 0:
                self._commit(trainer)

    def _leave(self, trainer: LiveTrainer) -> None:
        """Store the live state before it moves off its line, for others that fork here."""
        just_entered = self._live_lineage.edits and trainer.step == self._live_lineage.first_step
        if self._pending or (trainer.step > 0 and not just_entered):
            self._commit(trainer)

    def _commit(self, trainer: LiveTrainer) -> None:
        """Write the pending results to the store, with a keyframe at the live state unless it has one."""
        if self.store and (self._pending or self._stored_step(self._live_lineage, trainer.step) != trainer.step):
            keyframe = Keyframe(trainer.step, save(trainer.snapshot()), bool(self._live_lineage.edits))
            self.store.commit(self._line(self._live_lineage), self._pending, keyframe)
        self._pending = LineResults()

    def _stored_step(self, lineage: Lineage, last_step: int) -> int:
        """Last step up to `last_step` with a keyframe in this lineage, -1 if none."""
        return self.store.keyframe_at_or_before(self._line(lineage), last_step) if self.store else -1

    def _results(self, lineage: Lineage) -> LineResults:
        if lineage.key not in self._results_by_line:
            self._results_by_line[lineage.key] = self.store.read(self._line(lineage)) if self.store else LineResults()
        return self._results_by_line[lineage.key]

    def _line(self, lineage: Lineage) -> str:
        return line_name(self.environment, lineage)


class StatesOnTheWay:
    """States that edits on a path refer to and that the trainer passes before: kept until the last use."""

    def __init__(self, path: list[Lineage]) -> None:
        self.num_uses = Counter(state for lineage in path for state in older_states(lineage).values())
        self.states: dict[Position, State] = {}

    def keep(self, lineage: Lineage, trainer: LiveTrainer) -> None:
        """Keep the current state of the trainer if an edit refers to it."""
        if self.num_uses and self.num_uses[here := Position(lineage, trainer.step)]:
            self.states[here] = {name: tensor.clone() for name, tensor in trainer.snapshot().items()}

    def take(self, position: Position) -> State | None:
        """The state for one use, None if the trainer did not pass it."""
        self.num_uses[position] -= 1
        return self.states.get(position) if self.num_uses[position] else self.states.pop(position, None)


def line_name(environment: str, lineage: Lineage) -> str:
    """Name of a lineage in the store: a hash of its key and the environment that computes it."""
    return digest(f"{environment}|{lineage.key}")


def environment_of(spec: TrainingSpec) -> str:
    """All beside the spec that decides the last bits of its training on this machine."""
    found = environment_key(spec.device, spec.is_stacked)
    if spec.compile == "off":
        return found
    from models.compiled import COMPILED_CODE_HASH, compiler_name

    return f"{found}, compiled {COMPILED_CODE_HASH} by {compiler_name()}"


@lru_cache
def environment_key(device: Device = "cpu", is_stacked: bool = False) -> str:
    """Versions of libraries, hardware and hash of the training code."""
    found = (
        f"torch {torch.__version__}, numpy {version('numpy')}, {cpu_family()}, "
        f"{torch.backends.cpu.get_cpu_capability()}, training code {TRAINING_CODE_HASH}"
    )
    return f"{found}, stacked {STACKED_CODE_HASH}, {device_name(device)}" if is_stacked else found


def cpu_family() -> str:
    """Vendor, family and model of the CPU from /proc/cpuinfo, else the machine's architecture."""
    wanted = ("vendor_id", "cpu family", "model")
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".strip()
    pairs = (line.partition(":") for line in lines)
    found = {name.strip(): value.strip() for name, _, value in pairs}
    return " ".join([platform.machine(), *(found[name] for name in wanted if name in found)])
