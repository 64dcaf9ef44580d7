"""The command `churnlab animate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sim.cli.options import one_of, say, whole_number
from sim.cli.pace import working
from sim.cli.results import output_path

app = typer.Typer()

ENDING = {"gif": ".gif", "apng": ".png"}
LEAST_WIDTH, MOST_WIDTH = 300, 3000
FIRST_MILLISECONDS, LAST_MILLISECONDS = 800, 2000
MOST_FRAMES = 1000


@app.command()
def animate(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folder of results, or folders of runs.")],
    strategies: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Strategies to show, at most four. Default: the first three."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: animation.gif in the first RUN.")] = None,
    format_: Annotated[
        Any,
        typer.Option("--format", parser=one_of(tuple(ENDING)), metavar="[gif|apng]", help="Format of the file."),
    ] = "gif",
    width: Annotated[
        int, typer.Option(parser=whole_number(LEAST_WIDTH, MOST_WIDTH), metavar="PIXELS", help="Width in pixels.")
    ] = 800,
    seconds: Annotated[
        int, typer.Option(parser=whole_number(1, 120), metavar="S", help="Duration of the animation in seconds.")
    ] = 8,
    fps: Annotated[int, typer.Option(parser=whole_number(1, 50), metavar="N", help="Frames per second.")] = 12,
    most_megabytes: Annotated[float, typer.Option("--max-mb", metavar="MB", help="Maximum size of the file.")] = 3.0,
) -> None:
    """Write an animation of runs: the activity of each node, the failures and the losses, on one clock."""
    from sim.core.files import atomic_write
    from sim.reporting.animated_image import animated
    from sim.reporting.animation import frames
    from sim.reporting.tracks import tracks_of

    path = output_path(out, folders[0] / f"animation{ENDING[format_]}", f"a {format_.upper()}", (ENDING[format_],))
    num_frames = seconds * fps
    if num_frames > MOST_FRAMES:
        raise ValueError(f"--seconds {seconds} at --fps {fps}: {num_frames:,} frames; allowed: at most {MOST_FRAMES:,}")
    tracks, remarks = tracks_of(folders, [name.strip() for name in (strategies or "").split(",") if name.strip()])
    for remark in remarks:
        say(remark)
    if not any(len(one.loss) for one in tracks):
        say("No losses: these runs simulated time only (training.learner: none), or were not validated.")
    drawn = []
    with working("frames drawn", num_frames + 1) as part_done:
        for frame in frames(tracks, width, num_frames):
            drawn.append(frame)
            part_done()
    times = [FIRST_MILLISECONDS, *[1000 // fps] * (num_frames - 1), LAST_MILLISECONDS]
    with working("writing the file"):
        content = animated(drawn, times, format_)
    if len(content) > 1e6 * most_megabytes:
        raise ValueError(
            f"the file would be {len(content) / 1e6:.1f} MB, above --max-mb {most_megabytes:g}: lower --width, "
            "--fps or --seconds, or raise --max-mb"
        )
    atomic_write(path, content)
    say(f"Written: {path} ({len(content) / 1e6:.2f} MB, {num_frames + 1} frames)")
