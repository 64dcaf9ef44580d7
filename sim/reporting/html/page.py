"""HTML report: one file with a summary in words, charts, tables, and everything needed to repeat the runs."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from ruamel.yaml import YAML

from sim.core.text import capitalized, format_count, format_list
from sim.reporting.branches import branch_tables, sentences
from sim.reporting.html import tables as page_tables
from sim.reporting.html.answer import answer
from sim.reporting.html.charts import Chart, charts_of, vega_bundle
from sim.reporting.html.data import ReportData, SweepPoint, Working, report_data, silently
from sim.reporting.html.narrative import cautions, notes_on, sentences_on
from sim.reporting.html.strips import MEANINGS, note_on, strips
from sim.reporting.notes import describe_failures, describe_seeds
from sim.reporting.verdict import ranking_at
from sim.results.activity import STATES
from sim.results.branches import FOLDER, load_branches
from sim.results.crossed_design import SEEDS
from sim.scenario.document import ScenarioError
from sim.scenario.loading import scenario_of_run
from sim.strategies import legend_label

VERSION_NAMES = {"source": "simulating code (hash)", "training": "training", "corpus": "text (hash)"}
MOST_OPEN_ROWS = 40  # longer tables are folded


def report_page(folder: Path, written_to: Path | None = None, working: Working = silently) -> str:
    """Return the report on a results folder as HTML; equal results give equal text. ValueError if there are none.

    written_to: the folder of the page, from which links lead to the runs; None: the results folder. working: shows the
    progress of long parts.
    """
    loader, strict = PackageLoader("sim.reporting.html", ""), StrictUndefined
    environment = Environment(loader=loader, autoescape=True, undefined=strict, trim_blocks=True, lstrip_blocks=True)
    environment.filters["minus"] = lambda text: re.sub(r"(?<!\w)-(?=\d)", "−", text)
    environment.filters["unbroken"] = lambda text: re.sub(r"(?<=\d) (?=%|h\b)", "\u00a0", text)
    environment.filters["parts"] = lambda cell: [*re.split(r" (?=±|\()", cell, maxsplit=1), ""][:2]
    return environment.get_template("report.html").render(page_of(report_data(folder, working), written_to))


def page_of(data: ReportData, written_to: Path | None = None) -> dict[str, Any]:
    """Return the variables of the template."""
    text, points = _scenario_text(data), data.points
    scenario = None
    with suppress(ScenarioError):  # another version wrote it, and this one cannot read it
        scenario = scenario_of_run("scenario.yaml", text) if text else None
    charts, left_out = charts_of(data)
    every_run, folders = page_tables.runs(data)
    single_runs = strips(data)
    counts = [format_count(len(points), "point")] if len(points) > 1 else []
    counts += [format_count(len(data.strategies), "strategy", "strategies"), describe_seeds(data.results.runs)]
    about = f"{scenario.description}. " if scenario and scenario.description else ""
    with data.working("text and tables", 0):
        return {
            "data": data,
            "title": f"Training under churn: {data.name}",
            "subtitle": f"{about}{format_count(len(data.results.runs), 'run')}: {', '.join(counts)}.",
            "cautions": cautions(data, scenario),
            "answer": answer(data),
            "lead": lead(points) if len(points) > 1 else "",
            "verdicts": [{"label": point.label, "sentences": sentences_on(point.runs)} for point in points],
            "has_one_seed": len(data.results.runs[SEEDS].drop_duplicates()) == 1,
            "charts": charts,
            "charts_left_out": left_out,
            "marks_failures": not any(point.runs.duplicated("strategy").any() for point in points),
            "can_mark_failures": any("failures" in chart.signals for chart in charts),
            "content": content(data, charts) | {"strips": single_runs.sets},
            "strips": single_runs,
            "strip_states": [(state.replace(" ", "-"), MEANINGS.get(state, state)) for state in STATES],
            "strip_note": note_on(single_runs),
            "bundle": Markup(vega_bundle()) if charts else "",
            "most_open_rows": MOST_OPEN_ROWS,
            "tables": [table for table in (page_tables.comparison(data), page_tables.ledger(data)) if table],
            "every_run": every_run,
            "links": links(folders, written_to or data.results.folder),
            "branches": branches(data.results.folder),
            "churn": describe_failures(scenario.failures) if scenario else "",
            "failures": page_tables.failures(data),
            "events": page_tables.events(data),
            "failed": page_tables.failed(data),
            "scenario_text": text,
            "versions": versions(data),
            "notes": notes_on(data, scenario),
            "version": version("churnlab"),
        }


def links(folders: Sequence[Path | None], start: Path) -> list[str]:
    """Return relative links from a folder to others; empty for those that do not exist."""
    return [f"{quote(Path(os.path.relpath(one, start)).as_posix())}/" if one else "" for one in folders]


def branches(folder: Path) -> dict[str, Any] | None:
    """Return sentences and tables on single failures; None where they have not been measured."""
    if not (folder / FOLDER).is_dir():
        return None
    found = load_branches(folder)
    return {"sentences": sentences(found), "tables": branch_tables(found) if found.rebuilding else []}


def lead(points: Sequence[SweepPoint]) -> str:
    """Return a sentence on the number of points at which each strategy is first, or none clearly is."""
    rankings = [ranking_at(point.runs)[1] for point in points]
    firsts = [(ranked, legend_label(ranked.best.strategy)) for ranked in rankings if ranked.best]
    winners = Counter(name for ranked, name in firsts if not ranked.contenders)
    ahead = Counter(name for ranked, name in firsts if ranked.has_one_sample)
    undecided = sum(bool(ranked.reaching) and not ranked.is_tested for ranked in rankings)
    close = sum(bool(ranked.contenders) and not ranked.has_one_sample for ranked in rankings)
    counts = [(f"{name} is first", number) for name, number in winners.most_common()]
    counts += [(f"{name} is ahead", number) for name, number in ahead.most_common()]
    counts += [("it is too close to call", close)] if close else []
    counts += [("too few failures to choose", undecided)] if undecided else []
    every = "both points" if len(points) == 2 else f"all {len(points)} points"
    where = {number: f"{number} of {len(points)} points" for _, number in counts} | {len(points): every}
    parts = [f"{what} at {where[number]}" for what, number in counts]
    text = capitalized(format_list(parts)) if parts else "No strategy reaches the target at any point"
    return f"{text}{', with one seed each' if ahead else ''}."


def content(data: ReportData, charts: Sequence[Chart]) -> dict[str, Any]:
    """Return the data of the page's script: strategies, points, groups and charts."""
    return {
        "labels": [style.label for style in data.styles],
        "styles": [{"colour": style.colour, "dashes": style.dashes} for style in data.styles],
        "points": [
            {"label": point.label, "places": [axis.places[number] for axis in data.axes]}
            for number, point in enumerate(data.points)
        ],
        "groups": [{"strategy": group.strategy, "points": group.points} for group in data.groups.values()],
        "charts": [
            {
                "id": chart.id,
                "spec": {name: part for name, part in chart.spec.items() if name != "datasets"},
                "datasets": {  # columns have a third of the bytes of rows
                    name: {field: [row[field] for row in rows] for field in (rows[0] if rows else ())}
                    for name, rows in chart.spec["datasets"].items()
                },
                "signals": chart.signals,
                "columns": [column._asdict() for column in chart.columns],
            }
            for chart in charts
        ],
    }


def _scenario_text(data: ReportData) -> str:
    path = next(iter(data.results.folders.values())) / "scenario.yaml"
    buffer = io.StringIO()
    if path.is_file():
        buffer.write(path.read_text(encoding="utf-8"))
        if data.fields:
            yaml = YAML()
            yaml.default_flow_style = None
            yaml.dump({"sweep": {"list": [point.values for point in data.points]}}, buffer)
    return buffer.getvalue()


def versions(data: ReportData) -> list[tuple[str, str]]:
    """Return names and versions of code, text, machine and threads; several versions if runs differ."""
    found: dict[str, list[str]] = {}
    for about in data.abouts:
        others = {"text": about["corpus"], "machine": about["machine"], "training threads": about["num_threads"]}
        others["training device"] = about.get("device", "cpu")
        for name, value in (about["versions"] | others).items():
            found.setdefault(VERSION_NAMES.get(name, name), []).append(str(value))
    return [(name, "; ".join(dict.fromkeys(values))) for name, values in found.items()]
