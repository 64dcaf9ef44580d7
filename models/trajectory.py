"""Trajectory: the losses of training states, from the store or by training what is missing.

One live trainer goes from state to state. A Position that is not in the store is trained from the nearest available
state, in memory or in the store. The last states that the trainer has left, and those that edits and merges refer to,
stay in memory, so that lines asked for in turn, such as those of several replicas, train each step once.

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
from models.entries import make_last_entry
from models.spec import Device, TrainingSpec
from models.stacked import STACKED_CODE_HASH, LiveTrainer, open_trainer
from models.state_graph import states_used
from models.trainer import State, StepResult
from models.training import Training
from models.training_state import Lineage, Merge, Position, digest
from models.trajectory_store import Keyframe, LineResults, TrajectoryStore, require_equal

KEYFRAME_INTERVAL_STEPS = 50
NUM_STATES_KEPT = 4  # in memory at least
STATES_KEPT_PER_LINE = 4  # its present state, its last ones before merges, and its share of the merged ones
TRAINING_CODE = (
    "approximate_backward",
    "corpus",
    "entries",
    "gpt",
    "llama",
    "llama_gradients",
    "recipe",
    "staged_model",
    "trainer",
)
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
        self._trainers: dict[TrainingSpec, tuple[LiveTrainer, State]] = {}  # with the initial state
        self._live: LiveTrainer | None = None
        self._live_lineage = Lineage(spec)
        self._pending: dict[Lineage, LineResults] = {}  # not yet in the store
        self._kept: dict[Position, State] = {}  # by when they were last used
        self._num_kept = NUM_STATES_KEPT

    def train_loss(self, position: Position) -> float | None:
        """Loss of the batch of the step that led to this state, before its update, in nats per token."""
        if position.replicas and position.step:
            self._keep_states_of(len(position.replicas))
            lines = [replica.line_of_step for replica in position.replicas if replica]
            is_known = all(line.is_at_rest or position.step in self._results(line).steps for line in lines)
            if not is_known and position.settled not in self._kept:
                self.state_at(position)  # before the replicas leave it: the next merge needs it
        return super().train_loss(position)

    def gradient_norms(self, position: Position) -> tuple[float, ...]:
        """Gradient norm of each stage (0 = the ends) at the step that led here, before clipping."""
        return self._step_result(position.line_of_step, position.step).gradient_norms

    def loss_of_step(self, lineage: Lineage, step: int) -> float:
        """Loss of the batch of a step, before its update, in nats per token."""
        return self._step_result(lineage, step).train_loss

    def validation_loss_of(self, state: Position) -> float:
        """Loss over the fixed validation windows at a state, in nats per token."""
        results = self._results(state.lineage).validations
        if state.step not in results:
            loss = self.state_at(state).validation_loss()
            results[state.step] = self._pending_of(state.lineage).validations[state.step] = loss
        return results[state.step]

    def flush(self) -> None:
        """Write all pending results to the store, with keyframes at the states in memory that they lead to."""
        if self._live and self._live_lineage in self._pending:
            self._commit(self._live_lineage, self._live.snapshot())
        for position, state in reversed(self._kept.items()):
            if position.lineage in self._pending:
                self._commit(position.lineage, state)

    def state_at(self, position: Position) -> LiveTrainer:
        """The live trainer, moved to a Position from the nearest available state. Callers must not step it."""
        torch.set_num_threads(self.spec.num_threads)
        position = position.settled
        trainer = self._nearest(position)
        num_edits, num_made = len(position.lineage.edits), len(self._live_lineage.edits)
        path = [position.lineage.first(number) for number in range(num_made + 1, num_edits + 1)]
        on_the_way = StatesOnTheWay(path)
        for lineage in path:
            self._train_until(trainer, lineage.first_step, on_the_way)
            used = states_used(lineage)
            self._keep_states_of(len(used))
            states = {state: self._state_used(state, on_the_way) for state in used}
            self._leave(trainer)
            make_last_entry(trainer, lineage, states)
            self._live_lineage = lineage
        self._train_until(trainer, position.step, on_the_way)
        return trainer

    def _state_used(self, position: Position, on_the_way: StatesOnTheWay) -> State:
        """State that an edit or a merge refers to."""
        state = on_the_way.take(position) or self._kept.get(position) or self._reached_apart(position)
        self._keep(position, state)
        return state

    def _reached_apart(self, position: Position) -> State:
        """State reached from elsewhere, with a keyframe; the live trainer returns to where it is."""
        assert self._live
        lineage, here = self._live_lineage, copy_of(self._live.snapshot())
        try:
            trainer = self.state_at(position)
            self._leave(trainer)
            return copy_of(trainer.snapshot())
        finally:
            self._begin(lineage, here)

    def _keep_states_of(self, num_lines: int) -> None:
        """Keep as many states as these lines need when they are asked for in turn, and merged at times."""
        self._num_kept = max(self._num_kept, STATES_KEPT_PER_LINE * num_lines)

    def _keep(self, position: Position, state: State) -> None:
        """Keep a state in memory as the one last used; drop those used the longest ago."""
        self._kept.pop(position, None)
        self._kept[position] = state
        while len(self._kept) > self._num_kept:
            oldest = next(iter(self._kept))
            dropped = self._kept.pop(oldest)
            if oldest.lineage in self._pending and oldest.lineage != self._live_lineage:
                self._commit(oldest.lineage, dropped)

    def _step_result(self, lineage: Lineage, step: int) -> StepResult:
        """Result of a step of a line. ValueError where there is none."""
        if step == 0 or lineage.is_at_rest:
            raise ValueError(f"no step led to step {step} of this line: it has no training loss and no gradient")
        results = self._results(lineage).steps
        if step not in results:
            self.state_at(Position(lineage, step))
        return results[step]

    def _nearest(self, position: Position) -> LiveTrainer:
        """Make the latest available state on the way to a Position the live one."""
        last_step = position.step
        for number in range(len(position.lineage.edits), -1, -1):
            ancestor = position.lineage.first(number)
            live = self._live.step if self._live and self._live_lineage == ancestor else -1
            live = live if live <= last_step else -1
            of_line = (state.step for state in self._kept if state.lineage == ancestor and state.step <= last_step)
            kept, stored = max(of_line, default=-1), self._stored_step(ancestor, last_step)
            if self._live and live >= max(kept, stored, 0):
                return self._live
            if kept >= max(stored, 0):
                here = Position(ancestor, kept)
                state = self._kept[here]
                if number == len(position.lineage.edits):  # the line is continued, so that this state is left behind
                    del self._kept[here]
                return self._begin(ancestor, state)
            if self.store and stored >= 0:
                data = self.store.read_keyframe(self._line(ancestor), stored)
                if data is None:  # the file was deleted or damaged, and is now forgotten
                    return self._nearest(position)
                self._read_anew(ancestor)
                return self._begin(ancestor, load(data))
            last_step = ancestor.first_step
        return self._begin(Lineage(position.lineage.spec))

    def _begin(self, lineage: Lineage, state: State | None = None) -> LiveTrainer:
        """Replace the live state, which is kept in memory, by another; None: the initial one."""
        if self._live:
            self._keep(Position(self._live_lineage, self._live.step), copy_of(self._live.snapshot()))
        if lineage.spec not in self._trainers:
            trainer = open_trainer(lineage.spec, self.corpus)
            self._trainers[lineage.spec] = trainer, copy_of(trainer.snapshot())
        self._live, initial = self._trainers[lineage.spec]
        self._live_lineage = lineage
        self._live.restore(initial if state is None else state)
        self._live.enter(lineage.recipe)
        return self._live

    def _read_anew(self, lineage: Lineage) -> None:
        """Read the results of a line from the store: another process may have stored more since."""
        assert self.store
        results, stored = self._results(lineage), self.store.read(self._line(lineage))
        for step, result in stored.steps.items():
            require_equal(step, results.steps.setdefault(step, result), result)
        results.validations.update(stored.validations)

    def _train_until(self, trainer: LiveTrainer, step: int, on_the_way: StatesOnTheWay) -> None:
        """Train the live line up to a step; a line at rest stays as it is."""
        results, rests = self._results(self._live_lineage).steps, self._live_lineage.is_at_rest
        on_the_way.keep(self._live_lineage, trainer)
        while trainer.step < step and not rests:
            result = trainer.train_step()
            self.num_trained_steps += 1
            if trainer.step not in results:
                results[trainer.step] = self._pending_of(self._live_lineage).steps[trainer.step] = result
            else:
                require_equal(trainer.step, result, results[trainer.step])
                self.num_replayed_steps += 1
            on_the_way.keep(self._live_lineage, trainer)
            if trainer.step % self.keyframe_interval_steps == 0:
                self._commit(self._live_lineage, trainer.snapshot())

    def _leave(self, trainer: LiveTrainer) -> None:
        """Store the live state, and keep it in memory, before it moves off its line, for others that fork here."""
        edits, state = self._live_lineage.edits, trainer.snapshot()
        self._keep(Position(self._live_lineage, trainer.step), copy_of(state))
        just_entered = edits and trainer.step == edits[-1][0] and not isinstance(edits[-1][1], Merge)
        if self._live_lineage in self._pending or (trainer.step > 0 and not just_entered):
            self._commit(self._live_lineage, state)

    def _commit(self, lineage: Lineage, state: State) -> None:
        """Write the pending results of a line to the store, with a keyframe at a state unless it has one."""
        pending, step = self._pending.pop(lineage, None) or LineResults(), int(state["step"])
        if self.store and (pending or self._stored_step(lineage, step) != step):
            self.store.commit(self._line(lineage), pending, Keyframe(step, save(state), bool(lineage.edits)))

    def _pending_of(self, lineage: Lineage) -> LineResults:
        return self._pending.setdefault(lineage, LineResults())

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
    """States that entries on a path refer to and that the trainer passes before: kept until the last use."""

    def __init__(self, path: list[Lineage]) -> None:
        self.num_uses = Counter(state for lineage in path for state in states_used(lineage))
        self.states: dict[Position, State] = {}

    def keep(self, lineage: Lineage, trainer: LiveTrainer) -> None:
        """Keep the current state of the trainer if an entry refers to it."""
        if self.num_uses and self.num_uses[here := Position(lineage, trainer.step)]:
            self.states[here] = copy_of(trainer.snapshot())

    def take(self, position: Position) -> State | None:
        """The state for one use, None if the trainer did not pass it."""
        self.num_uses[position] -= 1
        return self.states.get(position) if self.num_uses[position] else self.states.pop(position, None)


def copy_of(state: State) -> State:
    """A state that later steps do not change."""
    return {name: tensor.clone() for name, tensor in state.items()}


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
