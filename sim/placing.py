"""Problems of what a scenario names, found when that is read: where in the scenario's file they stand."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from sim.loading import Document, ScenarioError, read_scenario_text
from sim.yaml_text import Location

DATA: Location = ("training", "data")


class DataError(ValueError):
    """Text that cannot be learnt; field: where a scenario names it."""

    def __init__(self, message: str, field: Location) -> None:
        super().__init__(message)
        self.field = field


def with_places(command: Callable[..., None]) -> Callable[..., None]:
    """A command on a scenario whose DataError becomes a ScenarioError, with the line in the file."""

    @wraps(command)
    def placing(**options: Any) -> None:
        try:
            command(**options)
        except DataError as error:
            path = options["scenario_path"]
            document = Document(str(path), read_scenario_text(path))
            for override in options["overrides"] or ():
                document.override(override)
            problem = document.problem(swept_place(document, error.field), str(error))
            raise ScenarioError(str(path), [problem]) from None

    return placing


def swept_place(document: Document, field: Location) -> Location:
    """The field, or the sweep's values of it where a sweep has some."""
    names = {".".join(map(str, field[:length])) for length in range(2, len(field) + 1)}
    swept = (path for path in document.places if path[:1] == ("sweep",) and names.intersection(map(str, path)))
    return next(swept, field)
