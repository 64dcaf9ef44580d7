"""Kinds of figures, collected from the tuples `FIGURES` of this package's modules for `churnlab plot` and its help."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from sim.core.text import shortened, suggestion
from sim.reporting.notes import describe_seeds, notes
from sim.reporting.series import at_point, choose_field, omitted_points, points_in
from sim.reporting.style import PAPER, Form, new_figure, save, subplots
from sim.reporting.words import point_in_words, ranges_in_words
from sim.results.branches import Branches, load_branches
from sim.results.selection import MissingError, comparable, swept_fields
from sim.results.storage import Results, read_about
from sim.scenario.loading import scenario_of_run
from sim.scenario.scenario import Scenario

Point = Mapping[str, Any]
Tables = Mapping[str, pd.DataFrame]  # of a figure, by suffix of their CSV files; "": the main one
MOST_ROWS = 6
CAPTIONS = ("txt", "tex")


@dataclass(frozen=True)
class FigureRequest:
    """Results and the form in which to draw them."""

    results: Results
    form: Form = PAPER
    field: str | None = None  # swept field for the x axis, for kinds with a choice
    point: Point | None = None  # point of the caption; default: the first

    @classmethod
    def of(cls, results: Results, form: Form = PAPER, field: str | None = None) -> FigureRequest:
        """Check and select runs. ValueError if the runs cannot be compared or the field was not swept."""
        request = cls(comparable(results), form, field)
        choose_field(request.results.runs, request.fields, field)
        return request

    @cached_property
    def fields(self) -> list[str]:
        """The swept fields."""
        return swept_fields(self.results)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """All runs that have not failed."""
        return self.results.runs.dropna(subset=["kind"])

    @cached_property
    def folder(self) -> Path:
        """The folder of a run at the point."""
        point = self.point or points_in(self.runs, self.fields)[0]
        return self.results.folders[at_point(self.runs, point)["run"].iloc[0]]

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario at the point."""
        return scenario_of_run(self.folder / "scenario.yaml")

    @cached_property
    def notes(self) -> list[str]:
        """Sentences for the caption: what seconds and losses refer to, and the range of swept values."""
        corpus, points = str(read_about(self.folder)["corpus"]), points_in(self.runs, self.fields)
        if len(points) == 1 or self.point is not None:
            return notes(self.scenario, corpus)
        of_failures = [name for name in points[0] if name.startswith("failures.")]
        failures, varied = (
            ranges_in_words(
                [{name: point[name] for name in point if (name in of_failures) == wanted} for point in points]
            )
            for wanted in (True, False)
        )
        first, *others = notes(self.scenario, corpus, failures, self.fields)
        return [f"{first} Varied: {varied}." if varied else first, *others]

    @cached_property
    def branches(self) -> Branches:
        """The branches in the results folder. MissingError if there are none, or none changes weights."""
        try:
            found = load_branches(self.results.folder)
        except ValueError as error:
            raise MissingError(str(error)) from error
        if not found.rebuilding:
            raise MissingError("no strategy of the branches changes weights")
        return found

    @property
    def seeds(self) -> str:
        """The number of pairs of seeds, or of failure and training seeds, in words."""
        return describe_seeds(self.runs)

    @contextmanager
    def panels(
        self,
        points: Sequence[Point],
        inches: tuple[float, float],
        notes: Sequence[str],
        num_columns: int = 1,
        most: int = MOST_ROWS,
        **options: Any,
    ) -> Iterator[tuple[Figure, list[tuple[Any, Point]]]]:
        """Open a figure with a row of panels for each of the first points, and yield it with each row and its point.

        inches: height of all but the panels, and of a row. notes: for the caption. options: of `Figure.subplots`.
        """
        drawn = points[:most]
        notes = [*self.notes, *notes, *omitted_points(points, drawn)]
        num_below = num_columns if self.form.is_narrow else 1
        with new_figure(inches[0] + inches[1] * len(drawn) * num_below, notes, self.form) as figure:
            rows = subplots(figure, len(drawn), num_columns, self.form, **options)
            for axes, point in zip(rows, drawn, strict=True):
                axes[0].set_title(point_in_words(point), loc="left")
            yield figure, list(zip(rows, drawn, strict=True))
            for axis, last in zip(rows[:-1].flat, [*rows[-1]] * (len(drawn) - 1), strict=True):
                if num_below > 1:
                    axis.set_xlabel(last.get_xlabel())


@dataclass(frozen=True)
class FigureKind:
    """A kind of figure: a function for the data that it draws, and one that draws them."""

    name: str
    summary: str
    tables: Callable[[FigureRequest], Tables]  # MissingError if the results do not contain them
    figure: Callable[[FigureRequest, Tables], Figure]
    by_point: bool = True  # whether it has a panel for each point of a sweep, which then has its own slide
    unasked: Callable[[Tables], str] = lambda _: ""  # why it is drawn only if it is named; empty if always

    def draw(self, request: FigureRequest) -> Figure:
        """Draw the whole figure."""
        return self.figure(request, self.tables(request))

    def figures(self, request: FigureRequest, tables: Tables) -> Iterator[tuple[str, Figure]]:
        """Yield file names without suffix, and figures: one for print, or one per point for slides."""
        first = next(iter(tables.values()))
        points = points_in(first, [name for name in request.fields if name in first])
        if request.form.height_inches is None:
            yield self.name, self.figure(request, tables)
        elif len(points) == 1 or not self.by_point:
            yield f"{self.name}_slide", self.figure(request, tables)
        else:
            for number, point in enumerate(points, start=1):
                selected = {name: at_point(table, point) for name, table in tables.items()}
                yield f"{self.name}_slide_{number}", self.figure(replace(request, point=point), selected)

    def write(
        self,
        figures: Iterable[tuple[str, Figure]],
        tables: Tables,
        folder: Path,
        formats: Sequence[str] = ("png", "pdf"),
    ) -> list[Path]:
        """Write figures, their captions, and their tables as CSV, into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [path for stem, figure in figures for path in save(figure, folder / stem, formats, CAPTIONS)]
        for part, table in tables.items():
            paths.append(folder / f"{'_'.join(filter(None, (self.name, part)))}.csv")
            table.to_csv(paths[-1], index=False)
        return paths


def drawable(
    request: FigureRequest, names: Iterable[str], is_asked: bool = True, part_done: Callable[[], None] = lambda: None
) -> tuple[dict[str, Tables], dict[str, MissingError]]:
    """Return the tables of the figures that can be drawn, and what is missing for the others.

    is_asked: whether the user named the kinds; figures with little information are drawn only then. part_done: called
    after each kind.
    """
    tables: dict[str, Tables] = {}
    missing: dict[str, MissingError] = {}
    for name in dict.fromkeys(names):
        try:
            found = figure_kinds()[name].tables(request)
            if not is_asked and (why := figure_kinds()[name].unasked(found)):
                raise MissingError(f"{why}; --kind {name} draws it anyway")
            tables[name] = found
        except MissingError as error:
            missing[name] = error
        part_done()
    return tables, missing


@cache
def figure_kinds() -> dict[str, FigureKind]:
    """All kinds of figures by name, in alphabetical order."""
    found = iter_modules(import_module("sim.reporting").__path__)
    modules = [import_module(f"sim.reporting.{info.name}") for info in found if not info.ispkg]
    kinds: list[FigureKind] = [kind for module in modules for kind in getattr(module, "FIGURES", ())]
    return {kind.name: kind for kind in sorted(kinds, key=lambda kind: kind.name)}


def figure_of(kind: str, results: Results, form: Form = PAPER, field: str | None = None) -> Figure:
    """Draw one kind of figure. ValueError for an unknown kind, or if the results do not contain its data."""
    kinds = figure_kinds()
    if kind not in kinds:
        raise ValueError(f"kind {shortened(kind)}: no such figure{suggestion(kind, kinds)}")
    return kinds[kind].draw(FigureRequest.of(results, form, field))
