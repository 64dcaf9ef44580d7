"""The commands `churnlab costs` and `churnlab list`, and their tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from models.spec import Config
from sim.cli.machines import answer
from sim.cli.options import Overrides, ScenarioPath, console, say, say_next, with_locations
from sim.cli.pace import working
from sim.core.plugins import PluginError
from sim.core.presets import presets
from sim.core.text import suggestion
from sim.core.units import BYTES_PER_GIB
from sim.failures import known_processes
from sim.reporting.table import Column, Row, Table, columns_of
from sim.scenario.loading import load_scenario
from sim.scenario.scenario import Scenario
from sim.strategies import known_strategies
from sim.workload.schedule import SCHEDULES

if TYPE_CHECKING:
    from sim.experiments.overheads import Overhead

app = typer.Typer()

COST_HEADINGS = (
    "devices\n× model",
    "hosts\n× model",
    "storage\n× model",
    "sent per iter.\n× model",
    "computed\nper iter.",
    "seconds per\niter., all in",
)


@app.command()
@with_locations
def costs(scenario_path: ScenarioPath, overrides: Overrides = None) -> None:
    """Print each strategy's costs without failures and the stages that it can recover. Nothing is trained."""
    from sim.experiments.microbatches import smaller_microbatches
    from sim.experiments.overheads import overheads, recoveries
    from sim.reporting.binding import binding_sentences
    from sim.reporting.verdict import use_smaller

    scenario = load_scenario(scenario_path, tuple(overrides or ()))
    for line in binding_sentences(scenario):
        say(line)
    if smaller := smaller_microbatches(scenario):
        say(use_smaller(smaller))
    with working("costs of strategies", 2 * len(scenario.strategies)) as part_done:
        found, recovered = overheads(scenario, part_done), recoveries(scenario, part_done)
    for line in save_sentences(scenario, found):
        say(line, style="yellow")
    console.print(overhead_table(scenario, found))
    console.print(recovery_table(scenario, recovered))
    say_next("churnlab", "advise", scenario_path)
    answer({"scenario": scenario.name, "costs": [asdict(one) for one in found], "recovers": recovered})


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="strategies, failures, schedules, devices, models or networks")
    ] = "",
) -> None:
    """List the names that a scenario can use; without an argument, what can be listed."""
    table = list_table(what) if what else lists_table()
    console.print(table)
    headings = [column.title for column in table.columns]
    answer({"list": what, "rows": [dict(zip(headings, cells, strict=True)) for cells in table.cells]})


def save_sentences(scenario: Scenario, found: Sequence[Overhead]) -> list[str]:
    """Name saves that never happen, never complete, or make iterations much longer."""
    from sim.reporting.bottlenecks import incomplete_saves, slow_saves
    from sim.scenario.saves import strategies_that_save_on_nodes, unused_saves

    lines = unused_saves(scenario, min((one.undisturbed_seconds for one in found), default=math.nan))
    on_nodes = strategies_that_save_on_nodes(scenario)
    for one in found:
        lines += slow_saves(one.strategy, one.iteration_seconds, one.undisturbed_seconds, one.strategy in on_nodes)
        lines += incomplete_saves(one.strategy, one.num_started, one.num_durable, one.strategy in on_nodes)
    return lines


def overhead_table(scenario: Scenario, found: Sequence[Overhead]) -> Table:
    """One row per strategy: memory, communication and computation with no failure."""
    from sim.simulation.run import build_site

    costs = build_site(scenario).costs
    model_bytes = math.fsum(costs.checkpoint_bytes(stage) for stage in range(scenario.workload.num_stages + 1))
    title = f"{scenario.name}: costs with no failure; model and optimizer state: {model_bytes / BYTES_PER_GIB:.2f} GiB"
    rows = []
    for one in found:
        num_bytes = (one.device_bytes, one.host_bytes, one.stored_bytes, one.sent_bytes)
        multiples = [in_models(number / model_bytes) for number in num_bytes]
        share = f"{one.computed_share:+.0%}" if abs(one.computed_share) > 1e-9 else "0"
        rows.append(Row((one.strategy, *multiples, share, f"{one.iteration_seconds:.1f}")))
    return Table(title, columns_of(COST_HEADINGS), tuple(rows))


def recovery_table(scenario: Scenario, recovered: Mapping[str, Mapping[str, bool]] | None = None) -> Table:
    """One row per strategy that stops on failures: which stages it recovers that are lost at once."""
    from sim.experiments.overheads import lost_stages, recoveries

    trials = lost_stages(scenario.workload.num_stages)
    headings = [f"{name}\n({', '.join(map(str, stages))})" for name, stages in trials.items()]
    rows = [
        Row((name, *("yes" if own[trial] else "no" for trial in trials)))
        for name, own in (recoveries(scenario) if recovered is None else recovered).items()
    ]
    return Table(f"{scenario.name}: stages recovered that are lost at once", columns_of(headings), tuple(rows))


def in_models(multiple: float) -> str:
    """Format a multiple of the model's bytes to two digits."""
    return "0" if multiple == 0.0 else f"{multiple:.2g}"


LISTS = ("strategies", "failures", "schedules", "devices", "models", "networks")

WORDS = ("kind", "name", "description", "source")


def lists_table() -> Table:
    """The table of the lists: the command, and the names in each."""
    names = {
        "strategies": known_strategies(),
        "failures": [*known_processes(), *presets("failures")],
        "schedules": SCHEDULES,
    }
    rows = [Row((f"churnlab list {what}", ", ".join(names.get(what) or presets(what)))) for what in LISTS]
    return Table("", (Column("command", "left"), Column("names", "left")), tuple(rows))


def list_table(what: str) -> Table:
    """The table of a list. ValueError for a list that there is not."""
    if what == "schedules":
        schedules = [Row((name, first_line(schedule.__doc__))) for name, schedule in SCHEDULES.items()]
        return Table("", (Column("name", "left"), Column("what it is", "left")), tuple(schedules))
    rows: list[Row] = []
    if what == "strategies":
        rows += component_rows(known_strategies())
    elif what == "failures":
        rows += component_rows(known_processes())
    elif what not in LISTS:
        raise ValueError(f"churnlab list: found '{what}'{suggestion(what, LISTS)}")
    details = "options" if rows else "figures"
    if what != "strategies":
        rows += (Row((name, *figures(entry))) for name, entry in presets(what).items())
    columns = (Column(heading, "left") for heading in ("name", "what it is", details))
    return Table("", tuple(columns), tuple(rows))


def component_rows(known: Mapping[str, Any]) -> Iterator[Row]:
    """A row per kind, with its options; those of installed packages too, or why one cannot be used."""
    for kind, found in known.items():
        if isinstance(found, PluginError):
            yield Row((kind, f"cannot be used: {found}", ""))
        else:
            yield Row((kind, getattr(found, "summary", first_line(found.__doc__)), options(found.Config)))


def options(config: type[Config]) -> str:
    """The options of a component besides its kind."""
    fields = {name: field for name, field in config.model_fields.items() if name not in WORDS}
    presets_of = {name: f" ({' | '.join(get_args(fields[name].annotation))})" for name in fields if name == "preset"}
    return ", ".join(f"{name}{presets_of.get(name, '')}" for name in fields)


def figures(preset: dict[str, Any]) -> tuple[str, str]:
    """The description of a preset, with its source, and its figures."""
    parts = [f"kind: {preset['kind']}"] if "kind" in preset else []
    parts += [f"{key}: {value:g}" for key, value in preset.items() if isinstance(value, int | float)]
    links = {key: link for key, link in preset.items() if isinstance(link, dict)}
    for key, link in links.items():
        if "bandwidth_mbit_per_s" in link:
            parts.append(f"{key}: {link['latency_ms']} ms, {link['bandwidth_mbit_per_s']:g} Mbit/s")
    for key, link in links.items():
        if "up_mbit_per_s" in link:
            parts.append(f"{key}: {link['up_mbit_per_s']:g} Mbit/s up, {link['down_mbit_per_s']:g} down")
    if regions := dict.fromkeys(region for link in preset.get("links", ()) for region in link[:2]):
        parts.append(f"regions: {', '.join(regions)}")
    return f"{preset['description']} ({preset['source']})", "; ".join(parts)


def first_line(docstring: str | None) -> str:
    """The first line of a docstring."""
    return (docstring or "").strip().split("\n")[0]
