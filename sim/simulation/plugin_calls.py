"""Calls of strategies: errors of those from outside begin with the name of the strategy, and a forgotten `yield from`,
after which a loop would never end, is one of them."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import Any

from models.training_state import DivergedError, Position
from sim.core.plugins import PluginError, in_one_line
from sim.core.records import Failure
from sim.simulation.interruptible import GaveUpError
from sim.strategies import Strategy, UnrecoverableError
from sim.strategies.base import IterationPlan, Process, Recipe

ANSWERS: dict[str, type] = {
    "can_train": bool,
    "position_for": Position,
    "plan_for": IterationPlan,
    "recipe_for": Recipe,
    "completed": Position,
}
"""Methods that take no time, and what they return."""

EXPECTED = (UnrecoverableError, GaveUpError, DivergedError, PluginError)


class CheckedWorld:
    """The world as a strategy from outside sees it: a method that takes time must have begun before the next one."""

    def __init__(self, world: Any, name: str) -> None:
        self._world, self._name = world, name
        self._begun: Generator[Any, Any, Any] | None = None
        self._call = ""

    def __getattr__(self, name: str) -> Any:
        """The attribute of the world; a method that takes time is remembered when it is called."""
        found = getattr(self._world, name)
        if not inspect.isgeneratorfunction(found):
            return found

        def call(*arguments: Any, **options: Any) -> Generator[Any, Any, Any]:
            self.require_begun()
            frame = sys._getframe(1)
            self._call = f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}: world.{name}(...)"
            self._begun = found(*arguments, **options)
            return self._begun

        return call

    def require_begun(self) -> None:
        """Raise PluginError if the last method that takes time has not begun."""
        if self._begun is not None and inspect.getgeneratorstate(self._begun) == inspect.GEN_CREATED:
            raise PluginError(f"strategy '{self._name}': {self._call} takes time: write `yield from` before it")


def fault_in(strategy: Strategy, method: str, error: Exception) -> PluginError:
    """The error of a method of a strategy from outside, with the place at which it fails."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}, line {last.lineno}"
    return PluginError(f"strategy '{strategy.name}': {method} fails at {where}: {in_one_line(error)}")


def call_of(strategy: Strategy, method: str, world: Any, *arguments: Any) -> Process[Any]:
    """What a method of a strategy that takes time returns. Raises PluginError for a faulty strategy from outside."""
    if type(strategy).__module__.startswith("sim."):
        return (yield from getattr(strategy, method)(world, *arguments))
    checked = CheckedWorld(world, strategy.name)
    try:
        process = getattr(strategy, method)(checked, *arguments)
        if not isinstance(process, Generator):
            raise PluginError(f"strategy '{strategy.name}': {method} has no `yield`: begin it with `yield from ()`")
        result = yield from process
    except EXPECTED:
        raise
    except Exception as error:
        raise fault_in(strategy, method, error) from error
    checked.require_begun()
    return result


def answer_of(strategy: Strategy, method: str, *arguments: Any) -> Any:
    """What a method of a strategy that takes no time returns. Raises PluginError for a faulty one from outside."""
    if type(strategy).__module__.startswith("sim."):
        return getattr(strategy, method)(*arguments)
    try:
        found = getattr(strategy, method)(*arguments)
    except EXPECTED:
        raise
    except Exception as error:
        raise fault_in(strategy, method, error) from error
    if not isinstance(found, ANSWERS[method]):
        wanted = f"{method} returns {ANSWERS[method].__name__}, found {type(found).__name__}"
        raise PluginError(f"strategy '{strategy.name}': {wanted}")
    return found


def after_iteration(strategy: Strategy, world: Any, position: Position) -> Process[Failure | None]:
    """The routine work of a strategy after an iteration; the Failure that interrupts it, or None."""
    return (yield from interruptible_call(strategy, "after_iteration", world, position))


def gather(strategy: Strategy, world: Any) -> Process[Failure | None]:
    """The wait of a strategy for nodes at the start; the Failure that interrupts it, or None."""
    return (yield from interruptible_call(strategy, "gather", world))


def admit(strategy: Strategy, world: Any) -> Process[Failure | None]:
    """The joining of nodes under a strategy; the Failure that interrupts it, or None."""
    return (yield from interruptible_call(strategy, "admit", world))


def take_back(strategy: Strategy, world: Any, position: Position) -> Process[Position | Failure]:
    """The return of stages that were left out: the Position to continue from, or the Failure that interrupts it."""
    found: Position | Failure = yield from call_of(strategy, "take_back", world, position)
    if not isinstance(found, Failure) and (not isinstance(found, Position) or found.iteration != position.iteration):
        what = f"take_back returns a Position of this iteration or a Failure, found {found!r}"
        raise PluginError(f"strategy '{strategy.name}': {what}")
    return found


def regroup(strategy: Strategy, world: Any, position: Position) -> Process[Failure | None]:
    """The reaction of a strategy to lost nodes whose stages have others; the Failure that interrupts it, or None."""
    return (yield from interruptible_call(strategy, "regroup", world, position))


def interruptible_call(strategy: Strategy, method: str, world: Any, *arguments: Any) -> Process[Failure | None]:
    """The Failure or None that a method of a strategy returns. Raises PluginError for anything else."""
    failure: Failure | None = yield from call_of(strategy, method, world, *arguments)
    if not isinstance(failure, Failure | None):
        raise PluginError(f"strategy '{strategy.name}': {method} returns a Failure or None, found {failure!r}")
    return failure


def recover(strategy: Strategy, world: Any, failure: Failure, position: Position) -> Process[Position]:
    """Recovery by a strategy; the Position to continue from."""
    found: Position = yield from call_of(strategy, "recover", world, failure, position)
    if not isinstance(found, Position):
        what = f"recover returns the Position to continue from, found {type(found).__name__}"
        raise PluginError(f"strategy '{strategy.name}': {what}")
    if found.iteration > position.iteration:
        what = f"a recovery never goes ahead: from iteration {position.iteration} to {found.iteration}"
        raise PluginError(f"strategy '{strategy.name}': {what}")
    return found
