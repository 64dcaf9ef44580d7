"""What is read from the files of traces, and what is left out."""

from __future__ import annotations

from pathlib import Path

from sim.core.text import capitalized, format_count, format_number, shortened
from sim.core.units import SECONDS_PER_HOUR
from sim.failures import processes
from sim.failures.history import node_seconds
from sim.failures.trace import TraceConfig, files_of
from sim.failures.trace_files import read_files
from sim.failures.trace_text import TraceError
from sim.scenario.scenario import Scenario


def trace_notes(scenario: Scenario, base_folder: Path) -> list[str]:
    """Say what each trace holds, by the hour of presence, and what of its files is not used."""
    lines = []
    for process in processes(scenario.failures):
        if isinstance(process, TraceConfig):
            lines += [trace_summary(process), *(f"  {capitalized(note)}." for note in notes_of(process, base_folder))]
            regions = dict.fromkeys(process.nodes_and_regions[1])
            known = scenario.cluster.regions or scenario.network.regions
            if regions and not regions.keys() & set(known):
                named = ", ".join(shortened(region, 30) for region in list(regions)[:5])
                lines.append(f"  Its regions ({named}) are none of the cluster's and are not used.")
    return lines


def trace_summary(process: TraceConfig) -> str:
    """Nodes, losses and rate of a trace, in a sentence."""
    rows, present = process.rows, node_seconds(process.rows)
    lost = sum(row[2] for row in rows)
    name = shortened(process.file or (process.files[0].file if process.files else "rows"))
    more = f" and {format_count(len(process.files) - 1, 'more file')}" if len(process.files) > 1 else ""
    rate = f"a loss every {format_number(present / lost / SECONDS_PER_HOUR)} h of presence" if lost else "no loss"
    came = format_count(sum(row[1] for row in rows), "arrival")
    hours = f"{format_number(rows[-1][0] / SECONDS_PER_HOUR)} h"
    return f"Trace {name}{more}: {came} and {format_count(lost, 'loss', 'losses')} in {hours}; {rate}."


def notes_of(process: TraceConfig, base_folder: Path) -> tuple[str, ...]:
    """What the files of a trace have and its rows have not; nothing where the files are gone."""
    about = files_of(process.__dict__)
    try:
        return read_files(base_folder, about).notes if about else ()
    except TraceError:
        return ()
