"""The command `churnlab timeline`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.cli.options import say


def timeline(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run, below results/.")],
    from_seconds: Annotated[float, typer.Option("--from", help="Start of the window, in simulated seconds.")] = 0.0,
    to_seconds: Annotated[
        float | None, typer.Option("--to", help="End of the window; default: two iterations after its start.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write; default: timeline.json in RUN.")] = None,
) -> None:
    """Write what happened when in a run: a Chrome trace (opens in Perfetto) and, if it is short, a Gantt chart."""
    from sim.reporting.gantt import MOST_OPERATIONS, gantt_figure
    from sim.reporting.style import save
    from sim.results.timeline import timeline as timeline_of
    from sim.results.timeline import write_chrome_trace

    path = out or run_folder / "timeline.json"
    if path.is_dir() or (out and (path.suffix != ".json" or not path.parent.is_dir())):
        raise ValueError(f"--out {path}: give the name of a JSON file (ending in .json) in a folder that exists")
    found = timeline_of(run_folder, from_seconds, to_seconds)
    write_chrome_trace(found, path)
    paths = [path]
    for stale in (path.with_suffix(".png"), path.with_suffix(".pdf")):
        stale.unlink(missing_ok=True)
    num_operations, num_messages = len(found.trace.operations), len(found.trace.messages)
    if num_operations <= MOST_OPERATIONS:
        title = f"{found.scenario.name}: {found.strategy}"
        paths += save(gantt_figure(found, title), path.with_suffix(""))
    else:
        say(f"No chart: more than {MOST_OPERATIONS} operations; choose a shorter window.")
    counts = f"{num_operations} operations, {num_messages} messages, {len(found.events)} events"
    say(f"{counts}. Open the JSON file in ui.perfetto.dev or chrome://tracing.")
    say("Written: " + ", ".join(map(str, paths)))
