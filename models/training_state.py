"""Identities of training states: a `Position` identifies weights without holding them. Does not load torch.

Equal Positions are equal training states to the bit, so runs that share a Position share the training up to it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple

from pydantic import Field

from models.recipe import PLAIN, Recipe
from models.spec import EMBEDDING_STAGE, Config, Routes, TrainingSpec


class GradientNormWeights(Config):
    """Weights of a neighbour average: w_k = (‖g_k‖ [after clipping])^exponent + epsilon; 0: the uniform average."""

    exponent: float = Field(2.0, ge=0, description="power of the stage's last gradient norm")
    after_clip: bool = Field(False, description="take the norm after the per-stage clip, as the released code does")
    epsilon: float = Field(0.0, ge=0, description="added to each weight")


class Moment(NamedTuple):
    """A state of a lineage: at `step`, after the first `num_edits` entries, edits and recipes."""

    num_edits: int
    step: int


@dataclass(frozen=True)
class Term:
    """`share` × the weights of a stage at a moment of the edited lineage; None: just before the edit."""

    stage: int
    share: float
    moment: Moment | None = None

    def as_text(self) -> str:
        """Stable text of this term; equal for shares 1 and 1.0."""
        when = "" if self.moment is None else f"@{self.moment.num_edits},{self.moment.step}"
        return f"{float(self.share)!r}*{self.stage}{when}"


RULES = ("average", "copy", "fresh", "zeros", "sum")


@dataclass(frozen=True)
class Edit:
    """A rebuilt stage: its new weights, optimizer state and learning rate.

    rule: `average` of `sources` weighted by `weights`; `copy` of the one source; `fresh`, from another random stream;
    `zeros`: every tensor is zero; `sum` of `terms`, each a stage at some moment.
    zeroed: ends of the names of tensors that are zero after the rule; with `fresh`, ("output",) gives a stage of layers
    that at first passes on what it receives.
    optimizer: `fresh` resets Adam's moments and step count; `average` combines the sources' moments like the weights
    (`sum`: their mean by |share|, since a second moment cannot be negative); `older` restores the stage's own at the
    first term's moment.
    learning_rate_factor: on the schedule; its excess over 1 halves every `learning_rate_half_life_steps` (None: never).
    gradient_norm: until the next step: `sources`, their mean, weighted like the weights (by |share| in a `sum`; without
    sources the norm is kept), or `own`, the last one of the stage itself, as in CheckFree's released code.
    """

    stage: int
    rule: Literal["average", "copy", "fresh", "zeros", "sum"]
    sources: tuple[int, ...] = ()
    weights: GradientNormWeights | None = None
    optimizer: Literal["fresh", "average", "older"] = "fresh"
    learning_rate_factor: float = 1.0
    learning_rate_half_life_steps: float | None = None
    terms: tuple[Term, ...] = ()
    zeroed: tuple[str, ...] = ()
    gradient_norm: Literal["sources", "own"] = "sources"

    def __post_init__(self) -> None:
        """Check that the rule fits its sources, weights and terms."""
        if self.rule not in RULES:
            raise ValueError(f"edit of stage {self.stage}: no rule '{self.rule}'; allowed: {', '.join(RULES)}")
        if self.gradient_norm not in ("sources", "own"):
            raise ValueError(
                f"edit of stage {self.stage}: gradient_norm is 'sources' or 'own', not '{self.gradient_norm}'"
            )
        if isinstance(self.zeroed, str) or not all(self.zeroed):
            raise ValueError(f"edit of stage {self.stage}: zeroed is a tuple of ends of names, found {self.zeroed!r}")
        num_sources = {"copy": 1, "fresh": 0, "zeros": 0, "sum": 0}.get(self.rule, len(self.sources))
        if len(self.sources) != num_sources or (self.rule == "average" and not self.sources):
            raise ValueError(f"edit of stage {self.stage}: rule '{self.rule}' does not fit sources {self.sources}")
        if (self.rule == "average") != (self.weights is not None):
            raise ValueError(f"edit of stage {self.stage}: weights go with rule 'average' and only with it")
        if (self.rule == "sum") != bool(self.terms):
            raise ValueError(f"edit of stage {self.stage}: terms go with rule 'sum' and only with it")
        if any(not math.isfinite(term.share) or term.share == 0 for term in self.terms):
            raise ValueError(f"edit of stage {self.stage}: shares are finite and not 0, found {self.terms}")
        if any((term.stage == EMBEDDING_STAGE) != (self.stage == EMBEDDING_STAGE) for term in self.terms):
            raise ValueError(f"edit of stage {self.stage}: stage 0 and stages of layers hold different things")
        if self.optimizer == "older" and (not self.terms or self.terms[0].moment is None):
            raise ValueError(f"edit of stage {self.stage}: optimizer 'older' goes with a first term that has a moment")
        if self.stage in (*self.sources, *(term.stage for term in self.terms if term.moment is None)):
            raise ValueError(f"edit of stage {self.stage}: a lost stage cannot be its own source")

    @property
    def goes_back_to(self) -> Moment | None:
        """The moment from which the stage's own weights are restored; None for all other edits."""
        if len(self.terms) != 1:
            return None
        (term,) = self.terms
        return term.moment if (term.stage, term.share) == (self.stage, 1) else None

    def as_text(self) -> str:
        """Stable text of this edit, for hashes and logs."""
        weights = self.weights.model_dump_json() if self.weights else "-"
        terms = "".join(f":{term.as_text()}" for term in self.terms)
        terms += f":zeroed {self.zeroed}" if self.zeroed else ""
        terms += ":own norm" if self.gradient_norm == "own" else ""  # the default has the text that it always had
        return (
            f"{self.stage}:{self.rule}:{self.sources}:{weights}:{self.optimizer}"
            f":{self.learning_rate_factor!r}:{self.learning_rate_half_life_steps!r}{terms}"
        )


class DivergedError(ValueError):
    """A loss or a gradient is no longer finite."""


def digest(text: str) -> str:
    """First 32 hex digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


Edits = tuple[tuple[int, Edit | Recipe], ...]
"""(step, entry) pairs in the order they were made, an entry being an edit or a recipe.

An edit at step n changes the state that n updates led to; a recipe at step n holds from the next update on."""


def edits_of_weights(edits: Edits) -> list[tuple[int, Edit]]:
    """The edits among these entries, with their steps: without the recipes."""
    return [(step, edit) for step, edit in edits if isinstance(edit, Edit)]


def passes(edits: Edits, step: int, moment: Moment) -> bool:
    """Whether a line with these edits passes a moment on its way to `step`."""
    if not 0 <= moment.num_edits <= len(edits):
        return False
    first = edits[moment.num_edits - 1][0] if moment.num_edits else 0
    last = edits[moment.num_edits][0] if moment.num_edits < len(edits) else step
    return first <= moment.step <= min(last, step)


def key_after(key: str, edits: Edits, step: int, edit: Edit | Recipe) -> str:
    """Key of a lineage with one more entry. ValueError if an edit refers to a moment that the line did not pass."""
    if isinstance(edit, Edit):
        for term in edit.terms:
            if term.moment is not None and not passes(edits, step, term.moment):
                raise ValueError(f"edit of stage {edit.stage} at step {step}: {term.moment} is not on the way here")
    return digest(f"{key}|{step}@{edit.as_text()}")


def terms_of(edit: Edit | Recipe) -> tuple[Term, ...]:
    """Terms of an edit; a recipe has none."""
    return edit.terms if isinstance(edit, Edit) else ()


@dataclass(frozen=True, eq=False)
class Lineage:
    """A training spec and the entries on the way, edits and recipes: a line of training states, one for each step.

    keys: hashes of the contents of the lineages with no entry, the first, the first two and so on up to its own;
    computed where not given. Lineages are equal where keys are. ValueError when an edit refers to a moment that is not
    on the way to it, or a recipe to what the training does not have.
    """

    spec: TrainingSpec
    edits: Edits = ()
    keys: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Compute the keys: a hash of the spec, then of each key with the next entry."""
        if self.keys:
            return
        keys = [digest(self.spec.model_dump_json())]
        for number, (step, edit) in enumerate(self.edits):
            if isinstance(edit, Recipe):
                edit.of_training(self.spec)
            keys.append(key_after(keys[-1], self.edits[:number] if terms_of(edit) else (), step, edit))
        object.__setattr__(self, "keys", tuple(keys))

    @property
    def key(self) -> str:
        """Hash of its content."""
        return self.keys[-1]

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe in force: the last one entered."""
        return next((entry for _, entry in reversed(self.edits) if isinstance(entry, Recipe)), PLAIN)

    def edited(self, step: int, edit: Edit | Recipe) -> Lineage:
        """This lineage with one more entry; with none where a recipe is the one in force."""
        if isinstance(edit, Recipe):
            edit = edit.of_training(self.spec)
            if edit == self.recipe:
                return self
        key = key_after(self.key, self.edits, step, edit)
        return Lineage(self.spec, (*self.edits, (step, edit)), (*self.keys, key))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lineage) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def first_step(self) -> int:
        """The step of the last entry: at and after it, this lineage differs from its parent."""
        return self.edits[-1][0] if self.edits else 0

    def parent(self) -> Lineage | None:
        """The lineage without its last entry, or None at the root."""
        return self.first(len(self.edits) - 1) if self.edits else None

    def first(self, num_edits: int) -> Lineage:
        """The lineage with its first entries only."""
        return Lineage(self.spec, self.edits[:num_edits], self.keys[: num_edits + 1])


@dataclass(frozen=True, slots=True)
class Position:
    """Identity of one training state, reached after `iteration` iterations of the target model.

    One step of the proxy represents `iterations_per_step` iterations of the target.
    """

    lineage: Lineage
    iteration: int = 0
    iterations_per_step: int = 1

    @property
    def step(self) -> int:
        """Updates made to the proxy's weights so far."""
        return self.iteration // self.iterations_per_step

    @property
    def line_of_step(self) -> Lineage:
        """The line of the step that led here: before any entry at that step."""
        return self.lineage.first(sum(step < self.step for step, _ in self.lineage.edits))

    @property
    def moment(self) -> Moment:
        """Moment of this state in its lineage, to which later edits can refer."""
        return Moment(len(self.lineage.edits), self.step)

    def descends_from(self, older: Position) -> bool:
        """Whether this state is, or was reached through, an older one."""
        lineage, before = self.lineage, older.lineage
        same = lineage.spec == before.spec and lineage.edits[: len(before.edits)] == before.edits
        return same and passes(lineage.edits, self.step, older.moment)

    def moment_of(self, older: Position) -> Moment:
        """Moment of an older state, for an edit of this one. ValueError when this state does not descend from it."""
        if not self.descends_from(older):
            raise ValueError(f"{older.moment} of {older.lineage.key} is not on the way to {self.moment}")
        return older.moment

    def after(self, iteration: int) -> Position:
        """State of this lineage after `iteration` iterations, not before its last entry."""
        moved = replace(self, iteration=iteration)
        if moved.step < self.lineage.first_step:
            raise ValueError(
                f"iteration {iteration} lies before the last edit or recipe of this lineage "
                f"(step {self.lineage.first_step}): to roll back, keep the older Position"
            )
        return moved

    def edited(self, *edits: Edit) -> Position:
        """This state after edits."""
        lineage = self.lineage
        for edit in edits:
            lineage = lineage.edited(self.step, edit)
        return replace(self, lineage=lineage)

    def entered(self, recipe: Recipe) -> Position:
        """This state, trained by a recipe from here on; itself where the recipe is in force.

        What changes nothing in this training, such as rows that are the whole batch, is left out of the recipe first.
        """
        lineage = self.lineage.edited(self.step, recipe)
        return self if lineage is self.lineage else replace(self, lineage=lineage)


def root(spec: TrainingSpec, iterations_per_step: int = 1, routes: Routes | None = None) -> Position:
    """Initial state of `spec`, with other routes if given."""
    if routes is not None:
        spec = spec.model_copy(update={"routes": routes})
    return Position(Lineage(spec), 0, iterations_per_step)


def older_states(lineage: Lineage) -> dict[Moment | None, Position]:
    """Older states that the last entry of a lineage refers to, by moment."""
    _, edit = lineage.edits[-1]
    moments = {term.moment for term in terms_of(edit) if term.moment is not None}
    return {moment: Position(lineage.first(moment.num_edits), moment.step) for moment in sorted(moments)}
