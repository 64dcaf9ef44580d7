"""The commands of sweeps: `churnlab sweep`, `churnlab status`, `churnlab cache info|prune`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError

from sim.names import shortened, suggestion
from sim.terminal import CacheFolder, NoCache, Overrides, ResultsFolder, ScenarioPath, cache_folder, complain, say

if TYPE_CHECKING:
    from models.store import TrajectoryStore
    from models.workshop import Workshop
    from sim.executors import Executor
    from sim.sweep_job import SweepJob

cache_app = typer.Typer(no_args_is_help=True, help="Look at, or shrink, the cache of training states.")
MOST_FAILURES_TOLD = 5
MOST_REPLICATES = 100


class Kind(StrEnum):
    """Who does the work."""

    pool = "pool"
    ray = "ray"
    serial = "serial"


def sweep(
    scenario_path: ScenarioPath,
    overrides: Overrides = None,
    results: ResultsFolder = Path("results"),
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Workers; default: every core of this machine.")] = None,
    kind: Annotated[
        Kind, typer.Option("--executor", help="pool: processes here; ray: a Ray cluster; serial: this process.")
    ] = Kind.pool,
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster: auto, or HOST:PORT; default: a local one for this sweep.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Do again what is finished already.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Do these runs alone: a strategy, a run's folder (with * and ?) or FIELD=VALUE; repeatable."),
    ] = None,
    until_ci: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Add replicates until the 95 % interval is within this share, e.g. 5%."),
    ] = None,
    max_replicates: Annotated[
        int, typer.Option(min=2, help="Of --until-ci: no more failure seeds than this at any point.")
    ] = MOST_REPLICATES,
    reference: Annotated[
        str | None, typer.Option(help="Strategy that the others are compared with; default: the first.")
    ] = None,
    cache_budget: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of training states on disk, e.g. 2GB; default: 4GB.")
    ] = None,
) -> None:
    """Do all runs of a scenario's `sweep:` section, and train no step twice. Ends with a table.

    What is finished is skipped; killed, or out of disk, the same command goes on where it was.
    """
    from sim.points import load_points
    from sim.sweep_display import SweepDisplay
    from sim.sweep_job import SweepJob
    from sim.sweep_plan import chosen
    from sim.sweep_report import print_summary
    from sim.tightening import share_of, tighten

    points = load_points(scenario_path, tuple(overrides or ()))
    share = share_of(until_ci) if until_ci else None
    budget_bytes = bytes_of(cache_budget, "--cache-budget") if cache_budget else None
    with cache_folder(cache, no_cache) as folder, SweepDisplay() as display:
        job = SweepJob(points, scenario_path.parent, results, folder, display)
        reference = known_reference(job, reference)
        runs = chosen(job.runs, only or ())
        if share is not None and only:
            raise ValueError("--until-ci adds replicates of all strategies at a point: give it without --only")
        to_do = runs if force else [run for run in runs if not run.is_finished]
        if share is None and (kept := job.keep_added()):
            say(f"{len(kept):,} finished runs of failure seeds that --until-ci has added stay among the results.")
        with opened(kind, jobs, address, job.learns) as executor, locked(job, dry_run):
            job.begin(executor, opened_workshop(job, folder, budget_bytes, dry_run))
            try:
                for line in job.outline(runs, to_do).in_words():
                    say(line)
                if dry_run:
                    tell_failures(job, "nothing is written")
                    return
                job.do(to_do)
                if share is not None:
                    tighten(job, share, max_replicates, force, say)
            except KeyboardInterrupt:
                display.stop()
                complain("Interrupted. Finished runs and all but the last steps of training are kept: run it again.")
                raise typer.Exit(130) from None
    print_summary(job, reference)
    tell_failures(job, f"the others are finished; details in {job.folder.folder / 'failed'}; run it again to try again")


def status(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder of a sweep, below results/.")],
) -> None:
    """Say what of a sweep is done, running, failed and left."""
    from sim.sweep_files import read_status

    for line in read_status(results).in_words():
        say(line)


@cache_app.command()
def info(cache: CacheFolder = None) -> None:
    """Say what the cache of training states holds."""
    with existing_store(cache) as store:
        if store is None:
            return
        found, folder = store.info(), store.folder
    say(f"{folder}: {found.num_steps:,} steps and {found.num_validations:,} validations of {found.num_lines:,} lines")
    say(f"{found.num_keyframes:,} states: {in_bytes(found.keyframe_bytes)}; database: {in_bytes(found.database_bytes)}")


@cache_app.command()
def prune(
    cache: CacheFolder = None,
    to: Annotated[str, typer.Option(metavar="SIZE", help="States may take this much; 0 for none.")] = "0",
) -> None:
    """Delete training states: of branches first, then what was unused for longest. Losses stay known."""
    budget_bytes = bytes_of(to, "--to")
    with existing_store(cache) as store:
        if store is None:
            return
        before, folder = store.info(), store.folder
        store.prune(budget_bytes)
        after = store.info()
    num_gone = before.num_keyframes - after.num_keyframes
    freed = in_bytes(before.keyframe_bytes - after.keyframe_bytes)
    say(f"{folder}: {num_gone:,} states deleted, {freed} freed; {in_bytes(after.keyframe_bytes)} left")


@contextmanager
def existing_store(cache: Path | None) -> Iterator[TrajectoryStore | None]:
    """The store in a cache folder, closed in the end; where there is none yet that is said, and none is made."""
    with cache_folder(cache, False) as folder:
        if not (folder / "trajectory.sqlite").is_file():
            say(f"{folder}: no training states yet")
            yield None
            return
        from models.store import TrajectoryStore

        with closing(TrajectoryStore(folder)) as store:
            yield store


@contextmanager
def opened(kind: Kind, jobs: int | None, address: str | None, learns: bool) -> Iterator[Executor]:
    """The executor that is asked for, closed in the end. learns: whether any model is trained in it."""
    from sim.executors import InProcess, ProcessPool

    if address is not None and kind is not Kind.ray:
        raise ValueError("--address names a Ray cluster: give it with --executor ray")
    executor: Executor
    if kind is Kind.ray:
        from sim.ray_executor import RayCluster

        environment = None
        if learns:
            from models.trajectory import environment_key

            environment = environment_key()
        executor = RayCluster(address, jobs, environment)
    elif kind is Kind.serial:
        if jobs not in (None, 1):
            raise ValueError(f"--executor serial works in this process alone: leave out --jobs {jobs}")
        executor = InProcess()
    else:
        executor = ProcessPool(jobs or num_cores())
    try:
        yield executor
    finally:
        executor.close()


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def locked(job: SweepJob, dry_run: bool) -> Iterator[None]:
    """Alone in the results folder, unless nothing is to be written."""
    if dry_run:
        yield
    else:
        with job.folder.locked():
            yield


def opened_workshop(job: SweepJob, cache: Path, budget_bytes: int | None, dry_run: bool) -> Workshop | None:
    """Where training is kept; None where nothing is trained. A dry run makes no cache."""
    if not job.learns:
        return None
    from models.store import DEFAULT_BUDGET_BYTES, TrajectoryStore
    from models.workshop import Workshop

    if dry_run and not (cache / "trajectory.sqlite").is_file():
        return Workshop(None)
    return Workshop(TrajectoryStore(cache, DEFAULT_BUDGET_BYTES if budget_bytes is None else budget_bytes))


def bytes_of(size: str, option: str) -> int:
    """A size that an option gives, in bytes. ValueError if it is none."""
    try:
        return int(TypeAdapter(ByteSize).validate_python(size))
    except ValidationError:
        raise ValueError(
            f"{option} {shortened(size)}: give a size such as 500MB or 2GB (or KB, TB, KiB, MiB, GiB)"
        ) from None


def in_bytes(number: int) -> str:
    """A size in words."""
    return ByteSize(number).human_readable(decimal=True)


def known_reference(job: SweepJob, name: str | None) -> str:
    """The strategy that the others are compared with. ValueError if there is none of the name."""
    names = list(dict.fromkeys(run.planned.name for run in job.runs))
    if name is None:
        return names[0]
    if name not in names:
        raise ValueError(f"--reference {shortened(name)}: no such strategy{suggestion(name, names)}")
    return name


def tell_failures(job: SweepJob, what_now: str) -> None:
    """Name runs that failed, and exit with 1 if any did."""
    if not job.failures:
        return
    for run, (error, _) in list(job.failures.items())[:MOST_FAILURES_TOLD]:
        complain(f"{run.name} failed: {error}", "red")
    runs = "1 run" if len(job.failures) == 1 else f"{len(job.failures)} runs"
    complain(f"{runs} failed: {what_now}", "red")
    raise typer.Exit(1)
