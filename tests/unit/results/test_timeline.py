"""A stretch of a finished run, played again: the trace and the chart hold what happened, and nothing else."""

import json
import shutil
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli.main import app
from sim.experiments.sweep import run_scenario
from sim.reporting.gantt import gantt_figure
from sim.results.storage import RunFiles, load_run
from sim.results.timeline import chrome_trace, timeline, write_chrome_trace
from sim.scenario.loading import parse_scenario

SCENARIO = """
name: traced
workload: {num_stages: 4, num_microbatches: 4, sequences_per_microbatch: 2}
training: {learner: none, model: {num_stages: 4}, steps: 60}
cluster: {device: a100, nodes_per_stage: 2, detection_seconds: 5, startup_seconds: 5}
network: {preset: spot_cluster, storage: {bandwidth_mbit_per_s: 5000}}
failures: {kind: exponential, rate_per_hour: 0.999, scope: stage}
strategies:
  - {kind: checkpoint, interval_iterations: 5}
  - {kind: redundant, shadow: lazy, microbatch_count_factor: 1, microbatch_size_factor: 1}
  - checkfree_plus
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    runs = run_scenario(parse_scenario(SCENARIO), tmp_path_factory.mktemp("r")).run_files()
    return {run.summary["kind"]: run.folder for run in runs}


@pytest.fixture(scope="module", params=["checkpoint", "redundant", "checkfree_plus"])
def folder(request, folders):
    return folders[request.param]


def failures_of(folder):
    events = load_run(folder).events
    return events[events["kind"] == "failure"]["time_seconds"].tolist()


def whole(folder):
    return timeline(folder, 0.0, load_run(folder).summary["wall_clock_seconds"])


def test_every_second_of_a_run_is_played_again_as_it_was(folder):
    files, found = load_run(folder), whole(folder)
    assert [record.ended_seconds for record in found.iterations] == files.iterations["ended_seconds"].tolist()
    assert [event.time_seconds for event in found.events] == files.events["time_seconds"].tolist()
    completed = [done for done in found.trace.operations if done.kind == "forward" and done.stage == 1]
    assert len(completed) >= len(found.iterations) * 4 * 2  # microbatches and pipelines; more where iterations were cut
    stretches = [(record.started_seconds, record.ended_seconds) for record in found.iterations]
    stretches += [(span.start_seconds, span.end_seconds) for span in found.trace.spans]
    stretches.sort()
    assert (stretches[0][0], stretches[-1][1]) == (0.0, files.summary["wall_clock_seconds"])
    assert all(end == start for (_, end), (start, _) in pairwise(stretches))


def test_a_failure_cuts_what_is_under_way(folder):
    trace, failures = whole(folder).trace, failures_of(folder)
    for failure_seconds in failures:
        for part in (*trace.operations, *trace.messages):
            assert not part.start_seconds < failure_seconds < part.end_seconds
    cut = {span.end_seconds for span in trace.spans if span.bucket == "lost_work"}
    lost = {message.end_seconds for message in trace.messages if not message.arrived}
    assert cut
    assert lost
    assert cut | lost <= set(failures)


def test_a_window_holds_what_reaches_into_it_and_no_more(folder):
    failure_seconds = failures_of(folder)[1]
    window = (failure_seconds - 3.0, failure_seconds + 3.0)
    part, all_of_it = timeline(folder, *window), whole(folder)
    iteration_seconds = load_run(folder).summary["iteration_seconds"]
    for kind in ("operations", "messages", "spans"):
        wanted = [
            p for p in getattr(all_of_it.trace, kind) if p.start_seconds < window[1] and p.end_seconds > window[0]
        ]
        found = getattr(part.trace, kind)
        assert set(wanted) <= set(found)
        assert all(p.end_seconds > window[0] - 2 * iteration_seconds for p in found)
    assert next(e for e in part.events if e.kind == "failure").time_seconds == failure_seconds


def test_a_window_can_be_the_default_or_end_with_an_upload(folders, tmp_path):
    found = timeline(folders["redundant"])
    assert [record.iteration for record in found.iterations][:2] == [1, 2]
    run = a_run(tmp_path, "training.steps=7", "failures=never", "network.storage.bandwidth_mbit_per_s=1")
    messages = [message for message in whole(run.folder).trace.messages if message.what == "checkpoint"]
    assert len(messages) == 5
    assert not any(message.arrived for message in messages)


def test_the_trace_is_a_chrome_trace_whose_tracks_do_not_overlap(folder, tmp_path):
    write_chrome_trace(whole(folder), tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert set(trace) == {"traceEvents", "displayTimeUnit", "otherData"}
    names, tracks = {}, defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] == "M":
            names[event["pid"], event["tid"], event["name"]] = event["args"]
        elif event["ph"] == "X":
            assert event["dur"] >= 0.0
            tracks[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
        else:
            assert (event["ph"], event["s"]) == ("i", "g")
    for (group, track), spans in tracks.items():
        assert (group, track, "thread_name") in names
        assert (group, 0, "process_name") in names
        spans.sort()
        assert all(end <= start + 1e-3 for (_, end), (start, _) in pairwise(spans))  # to the nanosecond
    tracks_named = {args["name"] for (_, _, kind), args in names.items() if kind == "thread_name"}
    assert {f"S{s} pipeline {r}, local" for s in range(5) for r in range(2)} <= tracks_named
    assert {"node 0 up", "node 2 down", "node 0 to 2"} <= tracks_named  # what S0's first node sends to S1's crosses


def test_checkpoints_and_recoveries_are_in_the_trace(folders):
    events = chrome_trace(whole(folders["checkpoint"]))["traceEvents"]
    names = {event["name"] for event in events}
    assert {"checkpoint durable", "rolled back of stage 3", "state transfer", "cut by a failure"} <= names
    upload, download = "checkpoint, S3 pipeline 0 to store", "checkpoint, store to S3 pipeline 1"
    assert {upload, f"{upload} (lost)", download} <= names
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    crossed = {tracks[event["tid"]].split(" (")[0] for event in events if event["name"] == upload}
    assert crossed == {"storage in", "node 6 up"}


def a_run(folder: Path, *overrides: str) -> RunFiles:
    """The first strategy's run of a changed scenario."""
    return run_scenario(parse_scenario(SCENARIO, overrides=overrides), folder).run_files()[0]


def test_messages_that_share_nothing_have_tracks_of_their_ends(tmp_path):
    run = a_run(tmp_path, "network.sharing=none", "training.steps=2")
    events = chrome_trace(timeline(run.folder))["traceEvents"]
    tracks = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {"S0 pipeline 0 to S1 pipeline 0", "S1 pipeline 1 to S0 pipeline 1"} <= tracks


@pytest.mark.parametrize("fidelity", ["iteration", "microbatch"])
def test_a_run_with_jitter_is_replayed_exactly_in_the_window(tmp_path, fidelity):
    run = a_run(tmp_path, "training.steps=68", "cluster.jitter=0.3", f"fidelity={fidelity}")
    last_seconds = run.summary["wall_clock_seconds"] - 1.0  # far behind the first 64 iterations
    found = timeline(run.folder, last_seconds - 1.0, last_seconds)
    assert 0 < len(found.trace.operations) < 5 * 2 * 4 * 2 * 5


def test_a_run_whose_nodes_come_and_go_is_played_again_as_it_was(tmp_path):
    run = a_run(tmp_path, "failures.scope=node", "failures.downtime.mean_hours=0.01", "training.steps=100")
    found = whole(run.folder)
    assert [event.kind for event in found.events] == load_run(run.folder).events["kind"].tolist()
    assert {"node_lost", "regrouped", "node_joined"} <= {event.kind for event in found.events}


def test_the_chart_shows_the_first_pipeline(folders):
    failure_seconds = failures_of(folders["checkfree_plus"])[0]
    found = timeline(folders["checkfree_plus"], max(0.0, failure_seconds - 5.0), failure_seconds + 15.0)
    figure = gantt_figure(found, "a title")
    axis = figure.axes[0]
    drawn = [done for done in found.trace.operations if done.replica == 0 and done.end_seconds > done.start_seconds]
    assert len(axis.patches) >= len(drawn)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["S0", "S1", "S2", "S3", "S4"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["forward", "backward"]
    assert "detection" in labels


@pytest.mark.parametrize(("window"), [(5.0, 5.0), (-1.0, 5.0), (1e9, None), (7.0, 3.0)])
def test_an_empty_window_is_an_error_with_the_runs_length(folders, window):
    with pytest.raises(ValueError, match=r"no time of the run from .* the run ends at \d+"):
        timeline(folders["redundant"], *window)


def test_a_folder_without_a_run_is_an_error(folders, tmp_path):
    with pytest.raises(ValueError, match="contains no finished run"):
        timeline(tmp_path)
    first, *others = sorted(folders.values())
    message = f"is not a run; it contains {1 + len(others)} runs: name one of them, such as {first}$"
    with pytest.raises(ValueError, match=message):
        timeline(first.parent)


def test_a_summary_that_does_not_fit_is_an_error_that_names_it(folders, tmp_path):
    shutil.copytree(folders["redundant"], tmp_path, dirs_exist_ok=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    later = summary | {"wall_clock_seconds": summary["wall_clock_seconds"] + 1.0}
    for content, message in (
        ("{", "summary.json.* is not JSON"),
        ("[]", "summary.json.* no JSON object"),
        ("{}", "summary.json.* lacks strategy, failure_seed"),
        (json.dumps(later), "another version"),
    ):
        (tmp_path / "summary.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            timeline(tmp_path)


def test_the_command_leaves_no_chart_of_another_window(folders, tmp_path):
    for window, files in (("--to 3", {"t.json", "t.png", "t.pdf"}), ("--to 1e6", {"t.json"})):
        command = ["timeline", str(folders["checkfree_plus"]), "--out", str(tmp_path / "t.json"), *window.split()]
        assert CliRunner().invoke(app, command).exit_code == 0
        assert {file.name for file in tmp_path.iterdir()} == files


@pytest.mark.parametrize("out", ["t.png", "nowhere/t.json", ""])
def test_the_command_writes_json_into_an_existing_folder(folders, tmp_path, out):
    result = CliRunner().invoke(app, ["timeline", str(folders["redundant"]), "--out", str(tmp_path / out)])
    assert isinstance(result.exception, ValueError)
    assert "give the name of a JSON file" in str(result.exception)
    assert not list(tmp_path.iterdir())
