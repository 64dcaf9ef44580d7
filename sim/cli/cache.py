"""The command `churnlab cache`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ByteSize

from sim.cli.options import CacheFolder, bytes_of, say
from sim.experiments.training import default_cache

if TYPE_CHECKING:
    from models.trajectory_store import TrajectoryStore

app = typer.Typer()
cache_app = typer.Typer(no_args_is_help=True)
app.add_typer(cache_app, name="cache")


@cache_app.callback()
def cache_() -> None:
    """Show or shrink the cache of training states."""


@cache_app.command()
def info(cache: CacheFolder = None) -> None:
    """Show the contents of the cache of training states."""
    with existing_store(cache) as store:
        found, folder = store.info(), store.folder
    say(f"{folder}: {found.num_steps:,} steps and {found.num_validations:,} validations of {found.num_lines:,} lines")
    say(f"{found.num_keyframes:,} states: {in_bytes(found.keyframe_bytes)}; database: {in_bytes(found.database_bytes)}")


@cache_app.command()
def prune(
    cache: CacheFolder = None,
    to: Annotated[
        str, typer.Option(metavar="SIZE", help="Disk space to leave for states; 0 deletes all of them.")
    ] = "0",
) -> None:
    """Delete training states: those of branches first, then the least recently used. Losses are kept."""
    budget_bytes = bytes_of(to, "--to")
    with existing_store(cache) as store:
        before, folder = store.info(), store.folder
        store.prune(budget_bytes)
        after = store.info()
    num_gone = before.num_keyframes - after.num_keyframes
    freed = in_bytes(before.keyframe_bytes - after.keyframe_bytes)
    say(f"{folder}: {num_gone:,} states deleted, {freed} freed; {in_bytes(after.keyframe_bytes)} left")


def existing_store(cache: Path | None) -> closing[TrajectoryStore]:
    """The store in a cache folder, as a context; if there is none, ends the command with a message."""
    folder = cache or default_cache()
    if not (folder / "trajectory.sqlite").is_file():
        say(f"{folder}: no training states yet")
        raise typer.Exit
    from models.trajectory_store import TrajectoryStore

    return closing(TrajectoryStore(folder))


def in_bytes(number: int) -> str:
    """A size in words."""
    return ByteSize(number).human_readable(decimal=True)
