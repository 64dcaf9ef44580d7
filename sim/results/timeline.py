"""Timelines: a window of a finished run, simulated again event by event, as a Chrome trace.

Trace Event Format, JSON object form, microseconds of simulated time; opens in ui.perfetto.dev or chrome://tracing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.cluster.network import STORAGE
from sim.cluster.topology import Cluster
from sim.core.files import atomic_write
from sim.core.records import EventRecord, IterationRecord
from sim.core.text import format_name
from sim.results.storage import load_run
from sim.scenario.loading import scenario_of_run
from sim.scenario.scenario import Scenario
from sim.simulation.recorder import EventRecorder
from sim.simulation.run import build_site, simulate, time_only
from sim.workload.deployment import Deployment

MICROSECONDS = 1e6
TRAINING, NODES, LINKS = 1, 2, 3  # process numbers of the trace: groups of tracks


@dataclass(frozen=True)
class Timeline:
    """A window of a run and its events."""

    scenario: Scenario
    site: Deployment
    strategy: str
    trace: EventRecorder
    iterations: list[IterationRecord]
    events: list[EventRecord]


def timeline(folder: Path, from_seconds: float = 0.0, to_seconds: float | None = None) -> Timeline:
    """Simulate a finished run again, time only, and record a window of simulated time.

    Default: two iterations. ValueError without a finished run, for an empty window, or a run not reproduced to the bit.
    """
    files = load_run(folder)
    scenario, summary = scenario_of_run(files.folder / "scenario.yaml"), files.summary
    whole_seconds = float(summary["wall_clock_seconds"])
    if to_seconds is None:
        to_seconds = from_seconds + 2 * float(summary["iteration_seconds"])
    if not 0.0 <= from_seconds < min(to_seconds, whole_seconds):
        allowed = f"allowed: 0 <= --from < --to; the run ends at {whole_seconds:g} s"
        raise ValueError(f"no time of the run from {from_seconds:g} s to {to_seconds:g} s; {allowed}")
    trace = EventRecorder(from_seconds, to_seconds)
    config = next(config for config in scenario.strategies if config.name == summary["strategy"])
    seeds = summary["failure_seed"], summary["training_seed"]
    run = simulate(scenario, config, *seeds, time_only(scenario), recorder=trace)
    diverged = summary["stopped_because"] is not None and run.stopped is None  # without training it cannot diverge
    if run.wall_clock_seconds != whole_seconds and not diverged:
        times = f"{whole_seconds:.9g} s there, {run.wall_clock_seconds:.9g} s now"
        raise ValueError(f"{folder} was written by another version of churnlab ({times}): run the scenario again")
    iterations = [i for i in run.iterations if trace.is_open(i.started_seconds, i.ended_seconds)]
    events = [event for event in run.events if from_seconds <= event.time_seconds <= to_seconds]
    return Timeline(scenario, build_site(scenario), run.strategy, trace, iterations, events)


def chrome_trace(timeline: Timeline) -> dict[str, Any]:
    """Return the timeline as a Chrome trace object, ready for JSON."""
    tracks = Tracks()
    for group, name in ((TRAINING, "training"), (NODES, "nodes"), (LINKS, "links")):
        tracks.events.append({"ph": "M", "name": "process_name", "pid": group, "tid": 0, "args": {"name": name}})
    _add_training(tracks, timeline)
    _add_nodes(tracks, timeline)
    return {"traceEvents": tracks.events, "displayTimeUnit": "ms", "otherData": {"strategy": timeline.strategy}}


def _add_training(tracks: Tracks, timeline: Timeline) -> None:
    for record in timeline.iterations:
        name = f"iteration {record.iteration}" + (" again" if record.execution > 1 else "")
        tracks.add(TRAINING, "iterations", name, record.started_seconds, record.ended_seconds)
    for span in timeline.trace.spans:
        cut = span.bucket == "lost_work"
        track, name = ("iterations", "cut by a failure") if cut else ("training stands still", format_name(span.bucket))
        tracks.add(TRAINING, track, name, span.start_seconds, span.end_seconds)
    for event in timeline.events:
        where = "" if event.stage is None else f" of stage {event.stage}"
        mark = {"ph": "i", "s": "g", "name": format_name(event.kind) + where, "pid": TRAINING}
        mark |= {"tid": tracks.track(TRAINING, "failures and recoveries"), "ts": event.time_seconds * MICROSECONDS}
        tracks.events.append({**mark, "args": {"detail": event.detail}})


def _add_nodes(tracks: Tracks, timeline: Timeline) -> None:
    """Add a track for each node with its operations, and one for each link, or pair of nodes without, with messages."""
    cluster, network = timeline.site.cluster, timeline.site.network
    names = [f"{_node_name(node, cluster)}, {region}" for node, region in enumerate(network.regions_of_nodes)]
    for name in names:
        tracks.track(NODES, name)
    for done in sorted(timeline.trace.operations, key=lambda done: done.start_seconds):
        name = done.kind if done.microbatch < 0 else f"{done.kind} {done.microbatch}"
        node = cluster.slot(done.stage, done.replica)
        tracks.add(NODES, names[node], name, done.start_seconds, done.end_seconds)
    for message in sorted(timeline.trace.messages, key=lambda message: message.start_seconds):
        ends = [_node_name(node, cluster) for node in (message.source, message.target)]
        name = f"{message.what}, {ends[0]} to {ends[1]}" + ("" if message.arrived else " (lost)")
        links = [link.name for link in network.path(message.source, message.target).links]
        for link in links or [" to ".join(ends)]:
            times = message.start_seconds, message.end_seconds
            tracks.add(LINKS, tracks.free_lane(LINKS, link, *times), name, *times, {"bytes": message.num_bytes})


def _node_name(node: int, cluster: Cluster) -> str:
    if node == STORAGE:
        return "store"
    stage, replica = cluster.place_of(node)
    return f"S{stage}" + (f" pipeline {replica}" if len(cluster.replicas) > 1 else "")


class Tracks:
    """Trace events by track; the format calls a track a thread of a process."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._numbers: dict[tuple[int, str], int] = {}
        self._lanes: dict[tuple[int, str], list[float]] = {}

    def track(self, group: int, name: str) -> int:
        """Return the number of a track; a new one is added after the others."""
        if (group, name) not in self._numbers:
            number = self._numbers[group, name] = len(self._numbers) + 1
            for kind, args in (("thread_name", {"name": name}), ("thread_sort_index", {"sort_index": number})):
                self.events.append({"ph": "M", "name": kind, "pid": group, "tid": number, "args": args})
        return self._numbers[group, name]

    def add(
        self, group: int, track: str, name: str, start_seconds: float, end_seconds: float, args: Any = None
    ) -> None:
        """Add an event with a duration to a track on which nothing overlaps it."""
        event = {"ph": "X", "name": name, "pid": group, "tid": self.track(group, track)}
        times = {"ts": start_seconds * MICROSECONDS, "dur": (end_seconds - start_seconds) * MICROSECONDS}
        self.events.append({**event, **times, "args": args or {}})

    def free_lane(self, group: int, track: str, start_seconds: float, end_seconds: float) -> str:
        """Return the name of a track's first lane that is free then, and reserve it."""
        ends = self._lanes.setdefault((group, track), [])
        lane = next((lane for lane, end in enumerate(ends) if end <= start_seconds), len(ends))
        ends[lane : lane + 1] = [end_seconds]
        return track + (f" ({lane + 1})" if lane else "")


def write_chrome_trace(timeline: Timeline, path: Path) -> None:
    """Write the trace atomically."""
    atomic_write(path, json.dumps(chrome_trace(timeline)) + "\n")
