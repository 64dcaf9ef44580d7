"""What happened when: a stretch of a finished run, played again event by event, as a Chrome trace.

The trace opens in Perfetto (ui.perfetto.dev) or chrome://tracing: a track for each node and each pair of nodes that
exchange messages, for iterations, for what training stood still for, and for failures and checkpoints. Format: Trace
Event Format, JSON object form; times in microseconds of simulated time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.lineage import plain_routes
from sim.loading import load_scenario
from sim.network import STORAGE
from sim.records import EventRecord, IterationRecord
from sim.results import load_run
from sim.scenario import Scenario
from sim.simulation import Run, build_site, simulate
from sim.site import Site
from sim.trace import Trace
from sim.training import NoTraining

MICROSECONDS = 1e6
TRAINING, NODES, LINKS = 1, 2, 3
"""Process numbers of the trace: groups of tracks."""


@dataclass(frozen=True)
class Timeline:
    """A stretch of a run with everything in it."""

    scenario: Scenario
    site: Site
    strategy: str
    trace: Trace

    iterations: list[IterationRecord]
    events: list[EventRecord]


def timeline(folder: Path, from_seconds: float = 0.0, to_seconds: float | None = None) -> Timeline:
    """Play a finished run again, time only, and keep what happens in a window of simulated time.

    Default: from the start to the end of the second iteration. ValueError for a folder without a finished run, an
    empty window, and a run that this version of the program does not repeat to the bit.
    """
    files = load_run(folder)
    scenario, summary = load_scenario(files.folder / "scenario.yaml"), files.summary
    whole_seconds = float(summary["wall_clock_seconds"])
    if to_seconds is None:
        to_seconds = min(from_seconds + 2 * float(summary["iteration_seconds"]), whole_seconds)
    if not 0.0 <= from_seconds < min(to_seconds, whole_seconds):
        raise ValueError(
            f"no time between --from {from_seconds:g} and --to {to_seconds:g}; allowed: 0 <= from < to, in seconds; "
            f"the run ends at {whole_seconds:g} s"
        )
    trace = Trace(from_seconds, to_seconds)
    run = play_again(scenario, summary, trace)
    if run.wall_clock_seconds != whole_seconds and summary["outcome"] == "finished":
        raise ValueError(
            f"{folder} was written by another version of churnlab ({whole_seconds:.9g} s there, "
            f"{run.wall_clock_seconds:.9g} s now): run the scenario again"
        )
    return Timeline(
        scenario=scenario,
        site=build_site(scenario),
        strategy=run.strategy,
        trace=trace,
        iterations=[i for i in run.iterations if trace.is_open(i.started_seconds, i.ended_seconds)],
        events=[event for event in run.events if from_seconds <= event.time_seconds <= to_seconds],
    )


def play_again(scenario: Scenario, summary: dict[str, Any], trace: Trace) -> Run:
    """The same run without training; its seconds do not depend on what is learnt."""
    config = next(config for config in scenario.strategies if config.name == summary["strategy"])
    spec = scenario.training.spec("time only", 256, 0, 0, plain_routes(scenario.workload.num_stages))
    training = NoTraining(spec, scenario.iterations_per_step)
    return simulate(scenario, config, summary["failure_seed"], summary["training_seed"], training, trace=trace)


def chrome_trace(timeline: Timeline) -> dict[str, Any]:
    """The timeline as a Chrome trace object, ready for JSON."""
    tracks = Tracks()
    for group, name in ((TRAINING, "training"), (NODES, "nodes"), (LINKS, "messages")):
        tracks.name_group(group, name)
    for record in timeline.iterations:
        name = f"iteration {record.iteration}" + (" again" if record.execution > 1 else "")
        tracks.add(TRAINING, "iterations", name, record.started_seconds, record.ended_seconds)
    for span in timeline.trace.spans:
        name = span.bucket.replace("_", " ")
        tracks.add(TRAINING, "training stands still", name, span.start_seconds, span.end_seconds)
    for event in timeline.events:
        where = "" if event.stage is None else f" of stage {event.stage}"
        tracks.mark("failures and recoveries", event.kind.replace("_", " ") + where, event.time_seconds, event.detail)
    cluster, regions = timeline.site.cluster, timeline.site.network.regions_of_nodes
    for stage in cluster.stages:
        for replica, node in enumerate(cluster.nodes_of(stage)):
            tracks.track(NODES, node_name(node, len(cluster.replicas)) + f", {regions[node]}")
            assert cluster.node(stage, replica) == node
    for done in sorted(timeline.trace.operations, key=lambda done: done.start_seconds):
        node = cluster.node(done.stage, done.replica)
        name = done.kind if done.microbatch < 0 else f"{done.kind} {done.microbatch}"
        track = node_name(node, len(cluster.replicas)) + f", {regions[node]}"
        tracks.add(NODES, track, name, done.start_seconds, done.end_seconds)
    for message in sorted(timeline.trace.messages, key=lambda message: message.start_seconds):
        ends = (node_name(node, len(cluster.replicas)) for node in (message.source, message.target))
        name = message.what if message.arrived else f"{message.what} (lost)"
        args = {"bytes": message.num_bytes}
        tracks.add_lane(LINKS, " to ".join(ends), name, message.start_seconds, message.end_seconds, args)
    return {"traceEvents": tracks.events, "displayTimeUnit": "ms", "otherData": {"strategy": timeline.strategy}}


def node_name(node: int, num_replicas: int) -> str:
    """A node for people: its stage, and its pipeline where there are several."""
    if node == STORAGE:
        return "store"
    stage, replica = divmod(node, num_replicas)
    return f"S{stage}" + (f" pipeline {replica}" if num_replicas > 1 else "")


class Tracks:
    """Collects trace events; a track is a thread of a process in the format's words."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._numbers: dict[tuple[int, str], int] = {}
        self._lanes: dict[tuple[int, str], list[float]] = {}

    def name_group(self, group: int, name: str) -> None:
        """A group of tracks."""
        self.events.append({"ph": "M", "name": "process_name", "pid": group, "tid": 0, "args": {"name": name}})

    def track(self, group: int, name: str) -> int:
        """The number of a track, which comes into being when first asked for; tracks keep that order."""
        if (group, name) not in self._numbers:
            number = self._numbers[group, name] = len(self._numbers) + 1
            for kind, args in (("thread_name", {"name": name}), ("thread_sort_index", {"sort_index": number})):
                self.events.append({"ph": "M", "name": kind, "pid": group, "tid": number, "args": args})
        return self._numbers[group, name]

    def add(
        self, group: int, track: str, name: str, start_seconds: float, end_seconds: float, args: Any = None
    ) -> None:
        """Something that lasts, on a track where nothing else overlaps it."""
        event = {
            "ph": "X",
            "name": name,
            "pid": group,
            "tid": self.track(group, track),
            "ts": start_seconds * MICROSECONDS,
        }
        self.events.append({**event, "dur": (end_seconds - start_seconds) * MICROSECONDS, "args": args or {}})

    def add_lane(self, group: int, track: str, name: str, start_seconds: float, end_seconds: float, args: Any) -> None:
        """Something that lasts, on the first lane of a track that is free."""
        ends = self._lanes.setdefault((group, track), [])
        lane = next((lane for lane, end in enumerate(ends) if end <= start_seconds), len(ends))
        ends[lane : lane + 1] = [end_seconds]
        self.add(group, track + (f" ({lane + 1})" if lane else ""), name, start_seconds, end_seconds, args)

    def mark(self, track: str, name: str, seconds: float, detail: str) -> None:
        """Something that happens at an instant."""
        event = {"ph": "i", "s": "g", "name": name, "pid": TRAINING, "tid": self.track(TRAINING, track)}
        self.events.append({**event, "ts": seconds * MICROSECONDS, "args": {"detail": detail}})


def write_chrome_trace(timeline: Timeline, path: Path) -> None:
    """Write the trace: whole, or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(chrome_trace(timeline)) + "\n", encoding="utf-8")
    temporary.replace(path)
