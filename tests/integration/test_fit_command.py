"""`churnlab fit`: a table of comings and goings in, a failure process and a scenario out."""

import json
import math
from pathlib import Path

import churnlab
import numpy as np
import pytest

from sim.experiments.fit_comparison import default_scenario
from sim.failures.churn_fit import files_read
from sim.failures.trace_formats import read_churn
from sim.scenario.loading import load_scenario
from sim.simulation.presences import presences
from support.commands import Ended
from support.commands import churnlab as command


def said(done: Ended) -> str:
    """All that a command said."""
    return done.stdout + done.stderr


SCENARIO = """# Who may edit this: everybody
name: mine   # my cluster
workload: {num_stages: 6}   # six stages

failures: {kind: exponential, rate_per_hour: 0.3, notice_seconds: 30}  # to be measured
strategies:
  - checkpoint   # as today
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng, rows = np.random.default_rng(3), ["vm,from_ms,to_ms"]
    for node in range(40):
        at = 0.0
        while at < 200.0:
            up = rng.weibull(0.6) * 8.0 / math.gamma(1 + 1 / 0.6)
            end = f"{(at + up) * 3.6e6:.0f}" if at + up < 200.0 else ""
            rows.append(f"vm-{node},{at * 3.6e6:.0f},{end}")
            at += up + rng.exponential(0.5)
    path = tmp_path / "nodes.csv"
    path.write_text("\n".join(rows))
    return path


COLUMNS = ("--column", "node=vm", "--column", "start=from_ms", "--column", "end=to_ms")


def test_a_fit_is_printed_drawn_and_written(table, tmp_path):
    scenario, picture = tmp_path / "mine.yaml", tmp_path / "fit.png"
    scenario.write_text(SCENARIO)
    done = command("fit", table, *COLUMNS, "--no-compare", "--write", scenario, "--figure", picture)
    assert done.returncode == 0, said(done)
    assert "Weibull is best" in said(done)
    assert "Shape below 1: young nodes fail most often" in said(done)
    assert picture.stat().st_size > 10_000
    found = load_scenario(scenario).failures.model_dump()
    assert (found["kind"], found["scope"], found["notice_seconds"]) == ("weibull", "node", 30)
    assert found["shape"] == pytest.approx(0.6, rel=0.1)
    assert found["mean_uptime_hours"] == pytest.approx(8.0, rel=0.25)
    assert found["downtime"]["mean_hours"] == pytest.approx(0.5, rel=0.15)
    text = scenario.read_text()
    kept = SCENARIO.splitlines()
    assert text.splitlines()[:4] == kept[:4]
    assert text.splitlines()[-2:] == kept[-2:]


def test_a_fit_for_programs_is_json(table):
    done = command("fit", table, *COLUMNS, "--no-compare", "--format", "json")
    found = json.loads(done.stdout)
    assert found["num_lost"] > 500
    assert found["chosen"] == "weibull"
    assert {law["law"] for law in found["laws"]} == {"exponential", "weibull", "lognormal"}
    assert found["losses_per_node_hour"]["low"] < found["losses_per_node_hour"]["value"]


def test_a_fit_is_compared_with_the_trace_itself(tmp_path):
    """Bulk losses take whole stages: independent ones at the same rate lose fewer."""
    rows, rng = ["node,start,end"], np.random.default_rng(0)
    for event in range(60):
        rows += [f"e{event}n{node},{3600 * event},{3600 * event + 3590}" for node in range(4) for _ in [rng]]
        rows += [f"o{event}n{node},{3600 * event},{3600 * event + 3600 * rng.random() + 1:.0f}" for node in range(2)]
    path = tmp_path / "bulk.csv"
    path.write_text("\n".join(rows))
    fit = churnlab.fit_churn(path)
    about = files_read([path], "auto", None, None, "available")
    short = churnlab.build_scenario(default_scenario(fit).model_dump(mode="json"), {"training.steps": 300})
    compared = churnlab.compare_fit(fit, about, short, failure_seeds=(0, 1))
    assert {"trace", "exponential", "Weibull of equal mean"} <= set(compared["process"])
    checkpointing = compared[compared["strategy"] == "checkpointing"].set_index("process")
    assert (compared["finished"] == 1).any()
    assert checkpointing["stages_lost"].notna().all()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("node,start,end\na,0,x\n", (), "line 2: found 'x' as the end; allowed"),
        ("node,start,end\na,0,5\n", ("--column", "nod=a"), "--column nod=a: allowed: ROLE=NAME or ROLE=NUMBER"),
        ("node,start,end\na,0,5\n", ("--column", "node=b"), "columns.node: no column 'b'"),
        ("node,start,end\na,0,5\n", ("--file-format", "fat"), "nearest: fta"),
        ("node,start,end\na,0,5\n", ("--unit", "hour"), "nearest: hours"),
        ("node,start,end\na,0,5\n", ("--together", "-1"), "--together -1: allowed: seconds, at least 0"),
        ("node,start,end\na,0,5\nb,0,9\nc,0,7\n", ("--no-compare", "--figure", "x.doc"), "ends in .png, .pdf or .svg"),
        ("node,start,end\na,0,\n", (), "no line has an interval"),
        ("", (), "is empty"),
    ],
)
def test_a_file_or_option_that_does_not_fit_is_one_message(tmp_path, content, options, message):
    path = tmp_path / "x.csv"
    path.write_text(content)
    done = command("fit", path, *options)
    assert done.returncode == 2
    assert message in " ".join(said(done).split())
    assert "Traceback" not in said(done)
    assert [each.name for each in tmp_path.iterdir()] == ["x.csv"]


def test_a_faulty_scenario_is_not_written_to(table, tmp_path):
    scenario = tmp_path / "mine.yaml"
    scenario.write_text("name: mine\nstrategies: [chekpoint]\n")
    done = command("fit", table, *COLUMNS, "--no-compare", "--write", scenario)
    assert done.returncode == 2
    assert "nearest: checkpoint" in said(done)
    assert scenario.read_text() == "name: mine\nstrategies: [chekpoint]\n"


# ---- round trips --------------------------------------------------------------------------------------
WORLD = """
name: world
workload: {{num_stages: 4}}
training: {{learner: none, steps: 10}}
cluster: {{nodes_per_stage: 4, provisioning_seconds: 600}}
failures: {failures}
strategies: [none]
"""


@pytest.mark.parametrize(
    "failures",
    [
        "{kind: weibull, shape: 0.7, mean_uptime_hours: 5, scope: node, downtime: {mean_hours: 1}}",
        "{kind: bulk, mean_uptime_hours: 8, mean_size: 3}",
        "{kind: outage, mean_uptime_hours: 10, shared_part: 0.5, downtime: {mean_hours: 0.3}}",
    ],
)
def test_an_exported_trace_replays_the_same_losses(tmp_path, failures):
    world = churnlab.build_scenario(WORLD.format(failures=failures))
    table = presences(world, hours=60, failure_seed=1)
    path = tmp_path / "world.csv"
    table.to_csv(path, index=False)
    replay = churnlab.build_scenario(
        WORLD.format(failures=f"{{kind: trace, file: {path}, loop: false}}"), base_folder=tmp_path
    )
    again = presences(replay, hours=60)
    lost_then, lost_again = (np.sort(each["end"].dropna().to_numpy()) for each in (table, again))
    assert lost_again.tolist() == lost_then.tolist()  # to the tick
    lost = read_churn(path).history.num_lost
    assert lost == table["end"].notna().sum() > 50


def test_a_fit_of_an_exported_trace_gives_the_process_back(tmp_path):
    options = "{kind: weibull, shape: 0.7, mean_uptime_hours: 5, scope: node, downtime: {mean_hours: 1}}"
    world = churnlab.build_scenario(WORLD.format(failures=options))
    path, num_covered = tmp_path / "world.csv", 0
    for seed in range(1, 7):
        presences(world, hours=400, failure_seed=seed).to_csv(path, index=False)
        fit = churnlab.fit_churn(path)
        assert fit.chosen.law == "weibull"
        shape, mean = fit.chosen.spread, fit.chosen.mean_hours
        num_covered += (shape.low <= 0.7 <= shape.high) + (mean.low <= 5.0 <= mean.high)
    assert num_covered >= 9  # of 12 intervals of 95 %
    section = fit.section()
    assert section["downtime"]["mean_hours"] == pytest.approx(1.0, rel=0.1)
    assert not fit.bulk.is_bulk
    churnlab.build_scenario(WORLD.format(failures=json.dumps(section)))
