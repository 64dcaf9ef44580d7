"""Results on disk: one folder per run, written under a temporary name and then renamed.

`results/<scenario>/<run>/`: `scenario.yaml` as resolved, `run.json`, RECORDS, `summary.json` once it is finished.
"""

from __future__ import annotations

import errno
import io
import json
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from models.training_state import digest
from sim.core.files import flush_to_disk
from sim.core.records import BUCKETS, EventRecord, IterationRecord
from sim.core.text import nearest, shortened
from sim.failures.trace import TraceConfig
from sim.failures.trace_rows import text_of_rows
from sim.results.summary import flat, summarise
from sim.scenario.scenario import Scenario
from sim.simulation.log import IterationLog
from sim.simulation.run import Run

RECORDS = ("iterations.parquet", "events.parquet", "ledger.parquet", "nodes.parquet")
TABLE, SWEEP = "runs.parquet", "sweep.json"  # files of a sweep: a row for each finished run, and the planned runs
SWEEP_FORMAT = 1  # of `sweep.json`; a file without one has format 1
RUN_FORMAT = 1  # of the files of a run's folder, in its `run.json`; one without it has format 1
IDENTITY = ("strategy", "failure_seed", "training_seed", "outcome")
OUTCOMES = (
    *("scenario", "kind", "learner", "num_failures", "num_fallbacks", "num_iterations", "num_iterations_run"),
    *("num_iterations_rerun", "iteration_seconds", "ideal_iteration_seconds", "wall_clock_seconds", "goodput"),
    *("overhead", "cost_usd", "target_validation_loss", "target_reached_seconds", "target_reached_iteration"),
    *("final_validation_loss", "stopped_because"),
)
"""Of a summary, beside the ledger: what tables, figures and reports are made of."""
ABOUT = ("strategy", "versions", "corpus")  # of run.json
PLANNED = ("run", "point", "strategy", "failure_seed", "training_seed", "parameters", "keeps_records")
COLUMNS = {
    "iterations": tuple(each.name for each in fields(IterationRecord)),
    "events": tuple(each.name for each in fields(EventRecord)),
    "ledger": ("bucket", "seconds"),
    "nodes": ("time_seconds", "num_nodes"),
}
ARROW_TYPES = {"int": pa.int64(), "float": pa.float64(), "str": pa.string(), "EventKind": pa.string()}


@dataclass(frozen=True)
class RunFiles:
    """A finished run as read from its folder."""

    folder: Path
    summary: dict[str, Any]
    run: dict[str, Any]
    iterations: pd.DataFrame
    events: pd.DataFrame
    ledger: pd.DataFrame


def run_hash(
    scenario: Scenario, strategy_index: int, failure_seed: int, training_seed: int, versions: dict[str, str]
) -> str:
    """Return the hash of all that decides a run's numbers: part of the scenario, seeds, versions of code and text."""
    others: dict[str, Any] = dict.fromkeys(("name", "description", "strategies", "seeds", "sweep", "branches"), True)
    resolved = scenario.model_dump(mode="json", exclude=others | {"training": {"data": True}})
    strategy = scenario.strategies[strategy_index].model_dump(mode="json")
    return digest(json.dumps([resolved, strategy, failure_seed, training_seed, versions], sort_keys=True))


def write_run(
    folder: Path, scenario: Scenario, run: Run | dict[str, Any], about: dict[str, Any], resolved: str | None = None
) -> None:
    """Write a finished run, or a summary without records, atomically, even if the machine stops; about: run.json."""
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        temporary.mkdir(parents=True)
        (temporary / "scenario.yaml").write_text(resolved or resolved_yaml(scenario), encoding="utf-8")
        if isinstance(run, Run):
            pq.write_table(records_table(run.iterations, IterationRecord), temporary / "iterations.parquet")
            pq.write_table(records_table(run.events, EventRecord), temporary / "events.parquet")
            ledger = pa.table({"bucket": list(BUCKETS), "seconds": [run.ledger[bucket] for bucket in BUCKETS]})
            pq.write_table(ledger, temporary / "ledger.parquet")
            pd.DataFrame(run.nodes).to_parquet(temporary / "nodes.parquet", index=False)
        write_json(temporary / "run.json", {"format": RUN_FORMAT, **about})
        write_json(temporary / "summary.json", summarise(scenario, run) if isinstance(run, Run) else run)
        for path in (*temporary.iterdir(), temporary):
            flush_to_disk(path)
        replace_folder(folder, temporary)
    except OSError as error:
        raise OSError(refusal(folder.parent, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refusal(folder: Path, error: OSError) -> str:
    """Explain an error of the disk."""
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if nearest.is_file():
        return f"cannot write results to {folder}: {nearest} is a file; name a folder with --results"
    fix = "free some space, or " if error.errno in (None, errno.ENOSPC, errno.EDQUOT) else ""
    return (
        f"cannot write results to {folder} ({error.strerror or error}): {fix}name "
        "another folder with --results; finished runs and what was trained are kept, and the same command resumes there"
    )


@contextmanager
def refusals_explained(folder: Path) -> Iterator[None]:
    """Context in which an OSError gets a message with a remedy."""
    try:
        yield
    except OSError as error:
        raise OSError(refusal(folder, error)) from error


def discard_run(folder: Path) -> None:
    """Delete a finished run; interrupted, it is unfinished."""
    (folder / "summary.json").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def replace_folder(folder: Path, new: Path) -> None:
    """Replace a folder by a complete one: at every instant the place contains a complete folder or none."""
    old = new.with_suffix(".old")
    with suppress(FileNotFoundError):
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if not is_finished(folder):  # else another process has just written the same run
            raise
    shutil.rmtree(old, ignore_errors=True)


def records_table(records: Sequence[Any], kind: type) -> pa.Table:
    """A list of one kind of record as a table, a column for each field."""
    known = records.columns() if isinstance(records, IterationLog) else None
    columns = {}
    for name, type_ in ((field.name, ARROW_TYPES[str(field.type).split(" | ")[0]]) for field in fields(kind)):
        columns[name] = pa.array(known[name] if known else [getattr(record, name) for record in records], type_)
    return pa.table(columns)


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def resolved_yaml(scenario: Scenario) -> str:
    """Return the scenario of one run with all defaults and presets written out: loading it gives the same runs."""
    yaml = YAML()
    yaml.default_flow_style = False
    buffer = io.StringIO()
    yaml.dump(with_rows_as_text(scenario.model_dump(mode="json", exclude={"sweep", "branches"})), buffer)
    return buffer.getvalue()


def with_rows_as_text(data: Any) -> Any:
    """The data of a scenario with the rows of traces as text, which YAML reads and writes over ten times as fast."""
    if isinstance(data, list):
        return [with_rows_as_text(entry) for entry in data]
    if not isinstance(data, dict):
        return data
    if data.get("kind") == TraceConfig.model_fields["kind"].default and "rows" in data:
        texts = {"rows": text_of_rows(data["rows"]), "arrivals": data.get("arrivals", "")}
        return {**data, **{key: LiteralScalarString(text) for key, text in texts.items() if text}}
    return {key: with_rows_as_text(value) for key, value in data.items()}


def is_finished(folder: Path, with_records: bool = False) -> bool:
    """Whether a run's folder is complete; with_records: including its iterations and events."""
    summary = folder / "summary.json"
    is_there = summary.is_file() and summary.stat().st_size > 0
    return is_there and (not with_records or (folder / RECORDS[0]).is_file())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. ValueError, naming the file, if it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): run the scenario again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} contains no JSON object: run the scenario again")
    return content


def require(path: Path, found: Collection[str], needed: Iterable[str]) -> None:
    """Raise ValueError, naming the file, where keys or columns are missing."""
    if missing := [name for name in needed if name not in found]:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}: it was written by another version, or changed; run it again"
        )


def require_format(path: Path, content: Mapping[str, Any], known: int) -> None:
    """Raise ValueError, naming the file, where it is of a format that this version does not read."""
    if (found := content.get("format", known)) != known:
        raise ValueError(f"{path} has format {found}, this version reads {known}: use the version that wrote it")


def read_about(folder: Path) -> dict[str, Any]:
    """Read `run.json` of a run. ValueError, naming the file, for another format or missing keys."""
    path = folder / "run.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing: run the scenario again")
    content = read_json(path)
    require_format(path, content, RUN_FORMAT)
    require(path, content, ABOUT)
    return content


def read_summary(folder: Path) -> dict[str, Any]:
    """Read `summary.json` of a finished run. ValueError, naming the file, where keys are missing."""
    path = folder / "summary.json"
    content = read_json(path)
    require(path, content, (*IDENTITY, *OUTCOMES, "ledger_seconds"))
    ledger = content["ledger_seconds"]
    require(path, ledger if isinstance(ledger, dict) else (), BUCKETS)
    return content


def read_table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a table. ValueError, naming the file, if it is none, or lacks columns."""
    try:
        found = pd.read_parquet(path)
    except (pa.ArrowException, ValueError, FileNotFoundError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else "is not a parquet file, or damaged"
        raise ValueError(f"{path} {reason}: run the scenario again") from None
    if len(found):  # a sweep without finished runs has a table without these columns
        require(path, found.columns, columns)
    return found


def read_plan(folder: Path) -> list[dict[str, Any]]:
    """The runs in `sweep.json`; none without that file. ValueError if it is of a newer version or lacks keys."""
    path = folder / SWEEP
    if not path.is_file():
        return []
    content = read_json(path)
    require(path, content, ("runs",))
    require_format(path, content, SWEEP_FORMAT)
    rows = content["runs"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: 'runs' is no list of mappings: run the sweep again")
    for row in rows:
        require(path, row, PLANNED)
    return rows


def load_run(folder: Path | str) -> RunFiles:
    """Read a finished run. ValueError if the folder contains none."""
    folder = Path(folder)
    require_folder(folder)
    if not is_finished(folder):
        if runs := runs_in(folder):
            count = "1 run: name it" if len(runs) == 1 else f"{len(runs):,} runs: name one of them"
            example = next((run for run in runs if is_finished(run, with_records=True)), runs[0])
            raise ValueError(f"{folder} is not a run; it contains {count}, such as {example}")
        raise ValueError(f"{folder} contains no finished run: there is no summary.json in it")
    if not is_finished(folder, with_records=True):
        raise ValueError(f"{folder}: only outcomes were kept (sweep.keep): `churnlab run` its scenario.yaml for more")
    tables = (read_table(folder / f"{name}.parquet", COLUMNS[name]) for name in ("iterations", "events", "ledger"))
    return RunFiles(folder, read_summary(folder), read_about(folder), *tables)


@dataclass(frozen=True)
class Results:
    """The finished runs of a folder as DataFrames; every table has a column `run`, the name of the run's folder.

    runs: outcomes (the ledger as `<bucket>_seconds`) and swept values. The others are read on first use, or in_memory.
    """

    folder: Path
    runs: pd.DataFrame
    in_memory: Mapping[str, pd.DataFrame] | None = None

    @cached_property
    def folders(self) -> dict[str, Path]:
        """The folder of each run by its name."""
        is_one_run = is_finished(self.folder)
        return {name: self.folder if is_one_run else self.folder / name for name in self.runs["run"]}

    @cached_property
    def iterations(self) -> pd.DataFrame:
        """A row for each completed iteration of each run."""
        return self._records("iterations")

    @cached_property
    def events(self) -> pd.DataFrame:
        """A row for each failure, recovery, checkpoint and the like of each run."""
        return self._records("events")

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """Simulated seconds in each bucket of each run."""
        return self._records("ledger")

    @cached_property
    def nodes(self) -> pd.DataFrame:
        """The number of nodes in each run from each time on: a row for each change."""
        return self._records("nodes")

    def _records(self, table: str) -> pd.DataFrame:
        found = (self.in_memory or {}).get(table)
        return _joined([self._records_of(run, table) for run in self.folders]) if found is None else found

    def _records_of(self, run: str, table: str) -> pd.DataFrame | None:
        path = self.folders[run] / f"{table}.parquet"
        return read_table(path, COLUMNS[table]).assign(run=run) if path.is_file() else None

    def read(self, tables: Iterable[str], run_done: Callable[[], None]) -> Results:
        """Return these results with some of their tables in memory. run_done: called after each run."""
        frames: dict[str, list[pd.DataFrame | None]] = {table: [] for table in tables}
        for run in self.folders:
            for table, found in frames.items():
                found.append(self._records_of(run, table))
            run_done()
        return replace(self, in_memory={table: _joined(found) for table, found in frames.items()})


def _joined(frames: Sequence[pd.DataFrame | None]) -> pd.DataFrame:
    return pd.concat(frames) if any(frame is not None for frame in frames) else pd.DataFrame({"run": []})


def runs_in(folder: Path) -> list[Path]:
    """Return the folders of the finished runs in a scenario's folder."""
    return sorted(summary.parent for summary in folder.glob("*/summary.json"))


def load_comparison(path: Path | str) -> Results:
    """Load results to compare strategies, as `load` does. ValueError for the single runs behind a map or an advice."""
    folder = Path(path)
    if (folder / SWEEP).is_file() and read_json(folder / SWEEP).get("made_for") == "map":
        raise ValueError(
            f"{folder} holds the real runs that a map or an advice rests on, single strategies at chosen cells and no "
            "sweep: a map's picture is its map.png, the numbers its map.csv, and sim.results.load reads the runs"
        )
    return load(folder)


MOST_OF_A_PATH = 4096
"""Characters of a path in a message: all that a file system allows, since a part of it is of no use."""


def require_folder(folder: Path) -> None:
    """Raise ValueError, naming the most similar folder beside it, if there is no such folder."""
    if not folder.is_dir():
        beside = {one.name: one for one in sorted(folder.parent.glob("*")) if one.is_dir() and one.name[0] != "."}
        close = nearest(folder.name, beside)
        raise ValueError(
            f"{folder}: no such folder{f'; nearest: {shortened(str(beside[close]), MOST_OF_A_PATH)}' if close else ''}"
        )


def load(path: Path | str) -> Results:
    """Read the results of a sweep, of all runs of a scenario, or of one run. ValueError if there are none."""
    folder = Path(path)
    require_folder(folder)
    if (folder / TABLE).is_file():
        runs = read_table(folder / TABLE, ("run", *IDENTITY))
        if len(runs) and (runs["outcome"] != "failed").any():
            require(folder / TABLE, runs.columns, (*OUTCOMES, *(f"{bucket}_seconds" for bucket in BUCKETS)))
    else:
        folders = [folder] if is_finished(folder) else runs_in(folder)
        runs = pd.DataFrame([{"run": found.name, **flat(read_summary(found))} for found in folders])
    if not runs.empty:
        return Results(folder, runs)
    if (folder / TABLE).is_file() or (folder / SWEEP).is_file():
        remedy = f"`churnlab status {folder}` shows its progress, and the same command resumes it"
        raise ValueError(f"no run in {folder} is finished yet: {remedy}")
    raise ValueError(f"{folder} contains no finished runs: name a folder that `churnlab run` or `churnlab sweep` wrote")
