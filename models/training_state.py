"""Identities of training states: a `Position` identifies weights without holding them. Does not load torch.

Equal Positions are equal training states to the bit, so runs that share a Position share the training up to it.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
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


SUM_TOLERANCE = 1e-12
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


@dataclass(frozen=True, repr=False)
class Merge:
    """A step of an outer optimizer: moves the weights of a line towards the mean of those of other lines.

    With own weights w and mean m = Σ share · source weights: g = w − m; v ← momentum · v + g; and then
    w ← (1 − rate) · w + rate · m − rate · momentum · v, which is SGD with Nesterov's momentum on g, as in DiLoCo.
    One source at rate 1 without momentum gives the weights of the source to the bit. Adam's state, gradient norms and
    learning-rate factors of the line stay; v is part of its states, and 0 before the first merge with momentum.

    sources: states of any lines of the same training, at or before the step of the merge.
    shares: of the sources, normalised to sum 1; empty: equal.
    stages: those that move, 0 being the ends; None: all.
    """

    sources: tuple[Position, ...]
    shares: tuple[float, ...] = ()
    rate: float = 1.0
    momentum: float = 0.0
    stages: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Bring equal merges to equal fields, and check what can be checked without a line."""
        sources = tuple(source.settled for source in self.sources)
        if not sources or any(source.replicas for source in self.sources):
            raise ValueError("merge: sources are at least one state of a single line, without replicas")
        shares = tuple(float(share) for share in self.shares)
        if shares and len(shares) != len(sources):
            raise ValueError(f"merge: one share for each of {len(sources)} sources, found {len(shares)}")
        if not all(math.isfinite(share) and share > 0 for share in shares):
            raise ValueError(f"merge: shares are finite and above 0, found {shares}")
        total = math.fsum(shares)
        if abs(total - 1) > SUM_TOLERANCE:  # so that normalised shares stay as they are, to the bit
            shares = tuple(share / total for share in shares)
        shares = shares if len(set(shares)) > 1 else ()
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise ValueError(f"merge: rate is finite and above 0, found {self.rate}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"merge: momentum is at least 0 and below 1, found {self.momentum}")
        stages = None if self.stages is None else tuple(sorted({int(stage) for stage in self.stages}))
        if stages is not None and (not stages or stages[0] < EMBEDDING_STAGE):
            raise ValueError(f"merge: stages are at least one number from {EMBEDDING_STAGE}, found {self.stages}")
        found = {"sources": sources, "shares": shares, "rate": float(self.rate), "momentum": float(self.momentum)}
        for name, value in {**found, "stages": stages}.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """Short text: that of all sources with their lines would double with every merge."""
        return f"Merge({self.as_text()})"

    def as_text(self) -> str:
        """Stable text of this merge, for hashes: fields at their defaults are left out."""
        parts = ["merge", ",".join(f"{source.lineage.key}@{source.step}" for source in self.sources)]
        parts += [f"shares {self.shares!r}"] if self.shares else []
        parts += [f"rate {self.rate!r}"] if self.rate != 1 else []
        parts += [f"momentum {self.momentum!r}"] if self.momentum else []
        parts += [f"stages {self.stages}"] if self.stages is not None else []
        return ":".join(parts)

    def require_fits(self, spec: TrainingSpec, step: int) -> None:
        """ValueError for what a training does not have, or not yet at a step."""
        for source in self.sources:
            if source.lineage.spec != spec:
                raise ValueError(f"merge at step {step}: a source is of another training")
            if source.step > step:
                raise ValueError(f"merge at step {step}: a source is of step {source.step}, which is later")
        if self.stages and self.stages[-1] > spec.model.num_stages:
            raise ValueError(f"merge: stages are 0 to {spec.model.num_stages}, found {self.stages[-1]}")


class DivergedError(ValueError):
    """A loss or a gradient is no longer finite."""


def digest(text: str) -> str:
    """First 32 hex digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


Entry = Edit | Recipe | Merge
Edits = tuple[tuple[int, Entry], ...]
"""(step, entry) pairs in the order they were made, an entry being an edit, a merge or a recipe.

An edit or merge at step n changes the state that n updates led to; a recipe at step n holds from the next update on."""


def edits_of_weights(edits: Edits) -> list[tuple[int, Edit]]:
    """The edits among these entries, with their steps: without the recipes and merges."""
    return [(step, edit) for step, edit in edits if isinstance(edit, Edit)]


def passes(edits: Edits, step: int, moment: Moment) -> bool:
    """Whether a line with these edits passes a moment on its way to `step`."""
    if not 0 <= moment.num_edits <= len(edits):
        return False
    first = edits[moment.num_edits - 1][0] if moment.num_edits else 0
    last = edits[moment.num_edits][0] if moment.num_edits < len(edits) else step
    return first <= moment.step <= min(last, step)


def key_after(key: str, edits: Edits, step: int, edit: Entry) -> str:
    """Key of a lineage with one more entry. ValueError if an edit refers to a moment that the line did not pass."""
    if isinstance(edit, Edit):
        for term in edit.terms:
            if term.moment is not None and not passes(edits, step, term.moment):
                raise ValueError(f"edit of stage {edit.stage} at step {step}: {term.moment} is not on the way here")
    return digest(f"{key}|{step}@{edit.as_text()}")


def rank_after(rank: int, edit: Entry) -> int:
    """Rank of a lineage with one more entry: above all that it is made of."""
    sources = edit.sources if isinstance(edit, Merge) else ()
    return 1 + max(rank, *(source.lineage.rank for source in sources), 0)


def terms_of(edit: Entry) -> tuple[Term, ...]:
    """Terms of an edit; other entries have none."""
    return edit.terms if isinstance(edit, Edit) else ()


def _bare(entry: Entry) -> Entry:
    """An equal entry whose sources have no history."""
    if not isinstance(entry, Merge):
        return entry
    return replace(entry, sources=tuple(source.outlined for source in entry.sources))


@dataclass(frozen=True, eq=False)
class Lineage:
    """A training spec and the entries on the way: a line of training states, one for each step.

    keys: hashes of the contents of the lineages with no entry, the first, the first two and so on up to its own;
    computed where not given, as are ranks. Lineages are equal where keys are. ranks: of the same lineages; a lineage
    has a higher rank than all that it is made of, and without merges its rank is its number of entries. ValueError
    when an edit refers to a moment that is not on the way to it, or an entry to what the training does not have.
    """

    spec: TrainingSpec
    edits: Edits = ()
    keys: tuple[str, ...] = field(default=(), repr=False)
    ranks: tuple[int, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Compute the keys: a hash of the spec, then of each key with the next entry."""
        if self.keys:
            return
        keys, ranks = [digest(self.spec.model_dump_json())], [0]
        for number, (step, edit) in enumerate(self.edits):
            if isinstance(edit, Recipe):
                edit.of_training(self.spec)
            elif isinstance(edit, Merge):
                edit.require_fits(self.spec, step)
            keys.append(key_after(keys[-1], self.edits[:number] if terms_of(edit) else (), step, edit))
            ranks.append(rank_after(ranks[-1], edit))
        object.__setattr__(self, "keys", tuple(keys))
        object.__setattr__(self, "ranks", tuple(ranks))

    @property
    def key(self) -> str:
        """Hash of its content."""
        return self.keys[-1]

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe in force: the last one entered."""
        return next((entry for _, entry in reversed(self.edits) if isinstance(entry, Recipe)), PLAIN)

    @property
    def rank(self) -> int:
        """Number of entries on the longest way here, over merges from other lines."""
        return self.ranks[-1]

    @property
    def is_at_rest(self) -> bool:
        """Whether steps pass on this line without an update, so that it has one state."""
        return self.recipe.is_rest

    def edited(self, step: int, edit: Entry) -> Lineage:
        """This lineage with one more entry; with none where a recipe is the one in force."""
        if isinstance(edit, Recipe):
            if edit == self.recipe:  # as before most iterations
                return self
            edit = edit.of_training(self.spec)
            if edit == self.recipe:
                return self
        elif isinstance(edit, Merge):
            edit.require_fits(self.spec, step)
        key, rank = key_after(self.key, self.edits, step, edit), rank_after(self.rank, edit)
        return Lineage(self.spec, (*self.edits, (step, edit)), (*self.keys, key), (*self.ranks, rank))

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
        if num_edits == len(self.edits):
            return self
        return Lineage(self.spec, self.edits[:num_edits], self.keys[: num_edits + 1], self.ranks[: num_edits + 1])

    @property
    def outlined(self) -> Lineage:
        """An equal lineage that has only its recipe and its last entry, or all entries where that refers to moments.

        For workers: states on the way to sources of merges, and else to this line, cannot be told from it.
        """
        if not self.edits:
            return self
        step, entry = self.edits[-1]
        if terms_of(entry):
            return Lineage(self.spec, tuple((at, _bare(each)) for at, each in self.edits), self.keys, self.ranks)
        edits = ((step, entry),) if isinstance(entry, Recipe) else ((step, self.recipe), (step, _bare(entry)))
        return Lineage(self.spec, edits, (self.key,), (self.rank,))

    def num_edits_before(self, step: int) -> int:
        """Number of entries before a step."""
        return bisect_left(self.edits, step, key=lambda entry: entry[0])


@dataclass(frozen=True, slots=True)
class Position:
    """Identity of one training state, reached after `iteration` iterations of the target model.

    One step of the proxy represents `iterations_per_step` iterations of the target.
    replicas: where several replicas train apart, the state of each, None for one that takes no part; `lineage` is then
    that of the global weights, at rest between merges. `models.replicas` makes such Positions.
    """

    lineage: Lineage
    iteration: int = 0
    iterations_per_step: int = 1
    replicas: tuple[Position | None, ...] = ()

    @property
    def step(self) -> int:
        """Updates made to the proxy's weights so far."""
        return self.iteration // self.iterations_per_step

    @property
    def outlined(self) -> Position:
        """An equal Position for workers, whose lineage has no history."""
        bare = Lineage(self.lineage.spec, ((self.lineage.first_step, self.lineage.recipe),), (self.lineage.key,), (0,))
        return replace(self, lineage=bare)

    @property
    def line_of_step(self) -> Lineage:
        """The line of the step that led here: before any entry at that step."""
        return self.lineage.first(self.lineage.num_edits_before(self.step))

    @property
    def settled(self) -> Position:
        """The one name of this state for training: of a line at rest, at the step since which it rests."""
        step = self.lineage.first_step if self.lineage.is_at_rest else self.step
        return Position(self.lineage, step)

    @property
    def moment(self) -> Moment:
        """Moment of this state in its lineage, to which later edits can refer."""
        return Moment(len(self.lineage.edits), self.step)

    def descends_from(self, older: Position) -> bool:
        """Whether this state is, or was reached through, an older one."""
        lineage, before = self.lineage, older.lineage
        same = lineage.keys[len(before.edits) : len(before.edits) + 1] == (before.key,)
        return same and passes(lineage.edits, self.step, older.moment)

    def moment_of(self, older: Position) -> Moment:
        """Moment of an older state, for an edit of this one. ValueError when this state does not descend from it."""
        if not self.descends_from(older):
            raise ValueError(f"{older.moment} of {older.lineage.key} is not on the way to {self.moment}")
        return older.moment

    def after(self, iteration: int) -> Position:
        """State of this lineage after `iteration` iterations, not before its last entry."""
        replicas = tuple(replica and replica.after(iteration) for replica in self.replicas)
        moved = replace(self, iteration=iteration, replicas=replicas)
        if moved.step < self.lineage.first_step:
            raise ValueError(
                f"iteration {iteration} lies before the last edit or recipe of this lineage "
                f"(step {self.lineage.first_step}): to roll back, keep the older Position"
            )
        return moved

    def edited(self, *edits: Edit) -> Position:
        """This state after edits."""
        self._require_single()
        lineage = self.lineage
        for edit in edits:
            lineage = lineage.edited(self.step, edit)
        return replace(self, lineage=lineage)

    def entered(self, recipe: Recipe) -> Position:
        """This state, trained by a recipe from here on; itself where the recipe is in force.

        What changes nothing in this training, such as rows that are the whole batch, is left out of the recipe first.
        """
        self._require_single()
        lineage = self.lineage.edited(self.step, recipe)
        return self if lineage is self.lineage else replace(self, lineage=lineage)

    def merged(self, merge: Merge) -> Position:
        """This state after a merge."""
        self._require_single()
        return replace(self, lineage=self.lineage.edited(self.step, merge))

    def _require_single(self) -> None:
        if self.replicas:
            raise ValueError("entries are made in the state of a replica, not in that of all: see models.replicas")


def root(spec: TrainingSpec, iterations_per_step: int = 1, routes: Routes | None = None) -> Position:
    """Initial state of `spec`, with other routes if given."""
    if routes is not None:
        spec = spec.model_copy(update={"routes": routes})
    return Position(Lineage(spec), 0, iterations_per_step)
