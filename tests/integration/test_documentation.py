"""The documentation is held to the program: links, command lines, the scenario reference, columns of results."""

import math
import re
import runpy
import shlex
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from sim.cli.check import validate
from sim.cli.examples import COMMANDS, GROUPS
from sim.cli.main import MODULES, command
from sim.cli.tables import in_models
from sim.core.records import BUCKETS, EventKind, EventRecord, IterationRecord
from sim.experiments.overheads import overheads
from sim.failures import process_class
from sim.reporting.registry import figure_kinds
from sim.results.statistics import AGAINST_COLUMNS, MEAN_COLUMNS
from sim.scenario.loading import load_scenario, parse_scenario
from sim.scenario.schema import schema
from sim.simulation.run import simulate, time_only
from sim.strategies import STRATEGIES, Strategy
from sim.strategies.diloco_options import LostStage
from support.pages import DOCS, FENCED, PAGES, ROOT, blocks_of, files_of, text_of
from support.sweeps import TINY, do_sweep, write_scenario

BY_NAME = [page.relative_to(ROOT).as_posix() for page in PAGES]


def anchors(page: Path) -> set[str]:
    """The anchors that code hosts give to a page's headings."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", FENCED.sub("", text_of(page)), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


@pytest.mark.parametrize("name", BY_NAME)
def test_links_and_images_lead_somewhere(name):
    page = ROOT / name
    prose = re.sub(r"`[^`\n]*`", "", FENCED.sub("", text_of(page)))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        leads_to = (page.parent / path).resolve() if path else page
        if not leads_to.exists() or (anchor and anchor not in anchors(leads_to)):
            broken.append(target)
    assert broken == []


def test_every_page_and_picture_is_linked():
    linked = set()
    for page in PAGES:
        targets = re.findall(r"\]\(([^)\s#]+)", text_of(page))
        linked |= {(page.parent / target).resolve() for target in targets if "://" not in target}
    there = {*DOCS.glob("*.md"), *(DOCS / "images").iterdir()}
    assert sorted(path.name for path in there - linked) == []


def command_lines(page: Path) -> list[str]:
    """`churnlab ...` in blocks of code without a language, and within lines."""
    lines = [line for block in blocks_of(page, "", "sh") for line in block.splitlines()]
    within_lines = re.findall(r"`(churnlab [^`]+)`", FENCED.sub("", text_of(page)).replace("\n", " "))
    return [line for line in lines if line.startswith("churnlab ")] + within_lines


def problem(line: str) -> str | None:
    """What is wrong with a command line: a command, option or argument that there is not."""
    words = shlex.split(line, comments=True)
    words = words[1 : words.index(">") if ">" in words else None]
    commands: Any = dict.fromkeys(MODULES)
    while commands and words and not words[0].startswith("-"):
        if words[0] not in commands:
            return f"no command '{words[0]}'"
        name = words.pop(0)
        found = commands[name] or command(name)
        commands = getattr(found, "commands", None)
    if not words or words == ["--version"]:  # a command is spoken of
        return None
    try:
        found.make_context("churnlab", words)
    except Exception as error:  # typer's own, or click's, by its version
        return error.format_message() if hasattr(error, "format_message") else repr(error)
    return None


@pytest.mark.parametrize("name", BY_NAME)
def test_command_lines_parse(name):
    wrong = {line: told for line in command_lines(ROOT / name) if (told := problem(line))}
    assert wrong == {}


def test_examples_of_the_help_parse():
    examples = {name: listed.example for name, listed in COMMANDS.items()}
    assert [name for name, line in examples.items() if line.split()[1] != name] == []
    examples |= {heading: heading.partition("e.g. ")[2] for heading in GROUPS}
    assert {name: told for name, line in examples.items() if (told := problem(line))} == {}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("churnlab swepp x.yaml", "no command 'swepp'"),
        ("churnlab run x.yaml --replicates 3", "No such option: --replicates"),
        ("churnlab run --force", "Missing argument 'SCENARIO'."),
        ("churnlab run", None),
        ("churnlab schema > schema.json", None),
        ("churnlab cache prune --to 2GB # smaller", None),
    ],
)
def test_wrong_command_lines_would_be_found(line, expected):
    assert problem(line) == expected


@cache
def reference() -> dict:
    return runpy.run_path(str(DOCS / "scenario_reference.py"))


def test_the_reference_has_every_field_with_its_meaning():
    page = text_of(DOCS / "scenario.md")
    assert page == reference()["page"](), "run `make reference`"
    missing = [
        f"{part}.{name}"
        for part, node in schema()["$defs"].items()
        for name, field in node.get("properties", {}).items()
        if name != "kind" and ("description" not in field or f"| `{name}` |" not in page)
    ]
    assert missing == []
    assert "| `shape` | number | `0.6` | 0.1 to 20 | k: below 1 young nodes fail most" in page
    assert "| `num_spares` | whole number | `0` | 0 to 100,000 |" in page
    assert "| `strategies` | list of kinds, or of mappings with `kind` | **required** | not empty |" in page


def test_the_commands_page_is_that_of_the_command_line():
    written = runpy.run_path(str(DOCS / "commands_reference.py"))["page"]()
    assert text_of(DOCS / "commands.md") == written, "run `make reference`"


@pytest.mark.parametrize("name", reference()["EXAMPLES"])
def test_examples_of_the_reference_are_scenarios(name):
    example = reference()["EXAMPLES"][name]
    assert f"```yaml{example}```" in text_of(DOCS / "scenario.md")
    whole = "" if name == "the scenario" else "name: example\n"
    whole += "" if "\nstrategies:" in example else "strategies: [none]\n"
    scenario = parse_scenario(whole + example)
    assert name == "the scenario" or getattr(scenario, name) is not None


@pytest.mark.parametrize("name", BY_NAME)
def test_whole_scenarios_in_the_pages_are_valid(name):
    for block in blocks_of(ROOT / name, "yaml"):
        if block.startswith("name:"):
            parse_scenario(block, base_folder=ROOT / "scenarios")


def test_the_readmes_scenario_runs_as_it_is_copied(tmp_path):
    scenario, sweep = blocks_of(ROOT / "README.md", "yaml")
    copied = tmp_path / "mine.yaml"
    copied.write_text(scenario + sweep, encoding="utf-8")
    validate(scenario_path=copied, overrides=None)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_the_readmes_python_example_runs(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (example,) = blocks_of(ROOT / "README.md", "python")
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["checkpoint", "redundant", "checkfree_plus"]
    hours = re.search(r"checkpointing +26 \(0\) +\S+ +(\S+)", text_of(ROOT / "README.md"))
    assert hours is not None
    assert printed[0] == f"checkpoint {hours[1]} h, 26 stages lost"


def test_stated_costs_of_strategies_are_the_measured_ones():
    chosen = {
        "`checkpoint` every 100": "{kind: checkpoint, interval_iterations: 100}",
        "`redundant`": "redundant",
        "`checkfree_plus`": "checkfree_plus",
    }
    override = f"strategies=[{', '.join(chosen.values())}]"
    measured = overheads(load_scenario(ROOT / "scenarios" / "quickstart.yaml", (override,)))
    rows = [[cell.strip() for cell in line.split("|")[1:8]] for line in text_of(DOCS / "strategies.md").splitlines()]
    told = {row[0]: row[1:] for row in rows if len(row) == 7}
    for name, found in zip(chosen, measured, strict=True):
        num_bytes = (found.device_bytes, found.host_bytes, found.stored_bytes, found.sent_bytes)
        computed = f"+{found.computed_share:.0%}".replace("%", " %") if found.computed_share > 1e-9 else "0"
        models = [in_models(number / (5.23 * 2**30)) for number in num_bytes]
        assert told[name] == [*models, computed, f"{found.iteration_seconds:.1f} s"]


def test_every_strategy_and_lost_stage_has_a_row_inside_a_replica():
    """Ways by the names of `lost_stage`, and for each strategy the one that does what it does."""
    text = text_of(DOCS / "strategies.md").partition("#### Inside a replica")[2].partition("####")[0]
    ways, strategies = (
        re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)))
        for table in re.split(r"^Which strategies", text, flags=re.MULTILINE)
    )
    assert sorted(ways) == sorted(["lost_stage", *get_args(LostStage)])
    assert sorted(strategies) == sorted(STRATEGIES)


def test_the_contract_page_has_every_question_of_a_strategy():
    """And those of a run in the order in which they are asked."""
    rows = [line.split("|")[1] for line in text_of(DOCS / "contract.md").splitlines() if line.startswith("| `")]
    told = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    table = [line.split("|")[1] for line in str(Strategy.__doc__).splitlines() if line.strip().startswith("| `")]
    asked = [name for row in table for name in re.findall(r"`(\w+)`", row)]
    assert sorted(told) == sorted(asked)
    before = ("gather", "admit", "take_back", "can_train", "position_for", "recipe_for", "plan_for")
    of_an_iteration = (*before, "completed", "after_iteration")
    assert [name for name in told if name in of_an_iteration] == list(of_an_iteration)


def test_the_process_of_extending_runs_as_it_says(tmp_path, monkeypatch):
    files = files_of(DOCS / "extending.md")
    assert set(files) == {"maintenance.py", "upkeep.yaml"}
    (tmp_path / "maintenance.py").write_text(files["maintenance.py"], encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    scenario = parse_scenario(files["upkeep.yaml"])
    maintenance, _ = process_class("compose")(scenario.failures).parts
    uptimes = maintenance[1].uptimes(np.random.default_rng(0), "Iowa")
    first, second, third = islice(uptimes, 3)
    assert 0 < first < second == third == 24 * 3600
    found = simulate(scenario, scenario.strategies[1], 0, 0, time_only(scenario))
    lost = [event for event in found.events if event.kind == "failure"]
    noticed = {event.time_seconds + 600 for event in found.events if event.kind == "notice"}
    planned = [event for event in lost if event.time_seconds in noticed]
    by_stage = {stage: [e.time_seconds for e in planned if e.stage == stage] for stage in range(7)}
    days = found.wall_clock_seconds / 86400
    assert days > 2
    for times in by_stage.values():
        assert math.floor(days) <= len(times) <= math.ceil(days)
        assert np.diff(times) == pytest.approx(86400)
    assert len(lost) > len(planned)
    assert found.ledger["waiting_for_nodes"] >= len(planned) * 1700


@cache
def documented(heading: str) -> set[str]:
    """The names in the first column of a table below a heading of results/README.md."""
    page = text_of(ROOT / "results" / "README.md")
    below = page.split(f" {heading}\n", 1)[1].split("\n#", 1)[0]
    first_cells = [line.split("|")[1] for line in below.splitlines() if line.startswith("| ")]
    return {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_column_of_a_sweep_is_documented(tmp_path):
    text = TINY.replace("replicates: 2", "replicates: 1").replace("learner: torch\n", "")
    path = write_scenario(tmp_path, text.replace("training:\n", "training:\n  learner: curve\n", 1))
    job = do_sweep(path, tmp_path / "results", tmp_path / "cache")
    folder = job.folder.folder
    runs = job.folder.write_table(job.runs)
    one = next(folder.glob("*/summary.json"))
    summary = documented("summary.json")
    assert set(pd.read_json(one, typ="series").index) == summary
    page = text_of(ROOT / "results" / "README.md")
    about_run = page[page.index("\n`run.json`") :].split("\n\n", 1)[0]
    known = {*re.findall(r"`([^`]+)`", about_run), "strategy", "failure_seed", "training_seed"}
    assert set(pd.read_json(one.with_name("run.json"), typ="series").index) <= known
    buckets = {f"{bucket}_seconds" for bucket in BUCKETS}
    versions = {name for name in runs.columns if name.startswith("version_")}
    swept = {"failures.rate_per_hour"}
    assert set(runs.columns) - buckets - versions - swept - summary == {"run", "run_hash", "point", "error"}
    assert documented("runs.parquet") >= {"run", "run_hash", "point", "error"}
    assert set(pd.read_parquet(one.with_name("iterations.parquet")).columns) == documented("iterations.parquet")
    assert set(pd.read_parquet(one.with_name("events.parquet"))) <= documented("events.parquet")
    assert set(pd.read_parquet(one.with_name("ledger.parquet"))["bucket"]) == documented("ledger.parquet")


def test_every_record_event_statistic_and_figure_is_documented():
    assert set(IterationRecord.__dataclass_fields__) == documented("iterations.parquet")
    assert documented("events.parquet") == {*EventRecord.__dataclass_fields__, *EventKind.__args__}
    assert documented("statistics.csv") >= {"strategy", "metric", *MEAN_COLUMNS, *AGAINST_COLUMNS}
    first_cells = [line.split("|")[1] for line in text_of(DOCS / "figures.md").splitlines() if line.startswith("| [")]
    assert {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)} == set(figure_kinds())


def test_the_tour_names_files_and_methods_that_exist():
    """docs/extending.md: every path and package, and every `Class.method` of the two life stories."""
    tour = text_of(DOCS / "extending.md")
    paths = re.findall(r"`((?:sim|models|tests)/[\w/.]+)`", tour)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []
    sources = [text_of(file) for package in ("sim", "models") for file in (ROOT / package).rglob("*.py")]
    methods = re.findall(r"`([A-Z]\w+)\.(\w+)", tour)
    assert len(methods) > 15
    for name, method in methods:
        (source,) = [source for source in sources if re.search(rf"^class {name}\b", source, re.MULTILINE)]
        assert re.search(rf"def {method}\b", source), f"{name}.{method}"
    tree = re.search(r"```text\n(.*?)```", tour, re.DOTALL)
    packages = {path.name for path in (ROOT / "sim").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages | {"models"} <= set(re.findall(r"\w+", tree[1]))
