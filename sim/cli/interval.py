"""The command `churnlab interval`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from sim.cli.machines import OUTPUT, answer
from sim.cli.options import Overrides, complain, one_of
from sim.core.text import format_number, shortened

app = typer.Typer()

Method = Literal["young", "daly", "best"]


def seconds_from(text: str | None, option: str) -> float | None:
    """Seconds of a time with a unit, or a number of seconds. ValueError for another text."""
    from sim.scenario.quantities import number_in_unit

    if text is None:
        return None
    found = number_in_unit(text, f"{option}_seconds")
    try:
        return float(found)
    except (TypeError, ValueError):
        raise ValueError(
            f"--{option} {shortened(text)}: allowed: a number of seconds, or a time such as 40s or 6h"
        ) from None


@app.command()
def interval(
    mtbf: Annotated[
        str | None, typer.Option(metavar="TIME", help="Mean time between failures of the job, e.g. 6h.")
    ] = None,
    save: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time for which a save stops training, e.g. 40s.")
    ] = None,
    scenario_path: Annotated[
        Path | None,
        typer.Option("--scenario", metavar="SCENARIO", help="Take failures and saves from a scenario instead."),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            parser=one_of(get_args(Method)),
            metavar="[young|daly|best]",
            help="Which interval to print. best: the exact optimum, or with --scenario a simulated one.",
        ),
    ] = "best",
    overrides: Overrides = None,
) -> None:
    """Print the best checkpoint interval in seconds: a single number for scripts, with details on standard error.

    With --mtbf and --save, the interval is the work between two saves. With --scenario, it is the time from the start
    of one save to the start of the next, as in `interval_seconds`; time-only simulations find the best one.
    """
    seconds, stops = seconds_from(mtbf, "mtbf"), seconds_from(save, "save")
    if (scenario_path is None) == (seconds is None or stops is None) or (scenario_path and (mtbf or save)):
        raise ValueError("churnlab interval: give --mtbf and --save, or --scenario")
    from sim.experiments.interval import intervals_for, intervals_of

    if scenario_path is None:
        assert seconds is not None
        assert stops is not None
        found = intervals_for(seconds, stops)
    else:
        from sim.cli.pace import working
        from sim.scenario.loading import load_scenario

        scenario = load_scenario(scenario_path, tuple(overrides or ()))
        with working("simulated jobs") as part_done:
            found = intervals_of(scenario, part_done=part_done)
    answer(asdict(found))
    if OUTPUT.is_json:
        return
    numbers = {"young": found.young_seconds, "daly": found.daly_seconds, "best": found.best_seconds}
    if not OUTPUT.is_quiet:
        kind = "simulated" if found.simulated else "exact"
        told = ", ".join(f"{name} {format_number(value)} s" for name, value in numbers.items())
        stops_for = f"a save stops training for {format_number(found.save_seconds)} s"
        known = f"{stops_for}, a failure every {format_number(found.mtbf_seconds / 3600)} h"
        complain(f"{told} ({kind}); {known}.")
        for at, hours in found.simulated:
            complain(f"  {format_number(at)} s: {format_number(hours)} h")
    print(f"{numbers[by]:.6g}")
