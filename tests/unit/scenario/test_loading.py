"""Files, YAML and `--set`: from text to plain data with places."""

import os
from pathlib import Path

import pytest

from sim.results.storage import resolved_yaml
from sim.scenario import loading
from sim.scenario.document import Document, ScenarioError
from sim.scenario.loading import load_scenario, parse_scenario

BASE = "name: demo\nstrategies: [none]\n"


def problems_of(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "test.yaml", overrides)
    return [str(problem) for problem in caught.value.problems]


# ---- files ---------------------------------------------------------------------------------------
def problem_of_file(path: Path) -> str:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    (problem,) = caught.value.problems
    assert str(caught.value) == f"{path}: 1 problem\n  {problem}"
    return str(problem)


def test_a_missing_file_has_a_neighbour(tmp_path: Path):
    """Beside it, or among the scenarios."""
    (tmp_path / "scenarios").mkdir()
    for name in ("quickstart.yaml", "scenarios/table2.yaml"):
        (tmp_path / name).write_text(BASE)
    missing = "cannot be read: no such file"
    assert problem_of_file(tmp_path / "quickstrat.yml") == f"{missing}; nearest: {tmp_path / 'quickstart.yaml'}"
    assert problem_of_file(tmp_path / "table2") == f"{missing}; nearest: {tmp_path / 'scenarios' / 'table2.yaml'}"
    for name in ("nothing", "no/such/folder.yaml", "quickstart.yaml/below.yaml"):
        assert problem_of_file(tmp_path / name) in (missing, "cannot be read: not a directory")


def test_a_folder_or_another_encoding_is_no_scenario(tmp_path: Path):
    assert problem_of_file(tmp_path) == "is a folder; give one of its files"
    path = tmp_path / "latin.yaml"
    path.write_bytes(f"{BASE}description: Zürich\n".encode("latin-1"))
    assert problem_of_file(tmp_path) == f"is a folder; give one of its files: {path}"
    assert problem_of_file(path) == "line 3: not text in UTF-8: save the file in that encoding"


@pytest.mark.parametrize("encoded", [BASE.encode("utf-8-sig"), BASE.replace("\n", "\r\n").encode()])
def test_files_of_other_systems_are_read(tmp_path: Path, encoded: bytes):
    path = tmp_path / "windows.yaml"
    path.write_bytes(encoded)
    assert load_scenario(path) == parse_scenario(BASE)


# ---- YAML ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1: a scenario is a mapping of sections (name, workload, training, ...), found nothing"),
        (
            "# hi\n\n# me\n",
            "line 1: a scenario is a mapping of sections (name, workload, training, ...), found nothing",
        ),
        ("- name: a\n", "line 1: a scenario is a mapping of sections (name, workload, training, ...), found a list"),
        ("run\n", "line 1: a scenario is a mapping of sections (name, workload, training, ...), found a single value"),
        ("name: a\n\tsteps: 3\n", "line 2: not valid YAML: a tab: indent with spaces"),
        (
            "name: a\nstrategies: [none\nworkload: {}\n",
            "line 3: not valid YAML: expected ',' or ']', but got ':', in the list [...] that begins on line 2",
        ),
        (
            "seeds: {failures: [0]\nworkload: {}\n",
            "line 2: not valid YAML: expected ',' or '}', but got '<scalar>', "
            "in the mapping {...} that begins on line 1",
        ),
        (
            "name: 'hello\n\n",
            "line 3: not valid YAML: found unexpected end of stream, in the quoted text that begins on line 1",
        ),
        ("name: a: b\n", "line 1: not valid YAML: an unexpected ':': check the indentation, or put the text in quotes"),
        (
            "training:\n    steps: 3\n  model: {}\n",
            "line 3: not valid YAML: a line that does not fit in: check the indentation",
        ),
        ("name: a\nstrategies\n", "line 3: not valid YAML: a line without ':' that continues nothing"),
        ("name: a\nname: b\n", "line 2: not valid YAML: the key name is given twice, in lines 1 and 2"),
        (
            "name: a\ntraining:\n  steps: 3\n  steps: 4\n",
            "line 4: not valid YAML: the key steps is given twice, in lines 3 and 4",
        ),
        (f"{BASE}---\nname: b\n", "line 3: not valid YAML: a second document ('---'): only one can be read"),
        ("name: a\ntraining: *base\n", "line 2: not valid YAML: found undefined alias 'base'"),
        ("name: a\ndescription: \x07\n", "line 2: not valid YAML: the character U+0007 is not allowed"),
        (f"name: {'[' * 1000}", "not valid YAML: nested more than 100 levels deep"),
        (
            f"name: a\niterations_per_step: {'9' * 5000}\n",
            f"line 2: not valid YAML: a whole number of at most 40 digits is expected, found {'9' * 57}...",
        ),
        (
            f"name: a\niterations_per_step: 0x{'f' * 5000}\n",
            f"line 2: not valid YAML: a whole number of at most 40 digits is expected, found 0x{'f' * 55}...",
        ),
    ],
)
def test_what_is_not_one_yaml_mapping(text: str, expected: str):
    assert problems_of(text) == [expected]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("&it {<<: *it}", "an anchor that holds itself"),
        ("&it {a: {<<: [*it]}}", "an anchor that holds itself"),
        ("!!python/object:os.system ls", None),  # a value with a tag: refused where the field is known
        ("!!python/tuple [1]", "the tag !!python/tuple of a list: leave it out"),
        ("!mine {a: 1}", "the tag !mine of a mapping: leave it out"),
        ("!!bool maybe", "'maybe' is not a value of the type !!bool"),
        ("!!float ''", "'' is not a value of the type !!float"),
        ("!!int 0x", "a whole number of at most 40 digits is expected, found 0x"),
        ("{a: 1, a: 2}", "the key a is given twice"),
        ("{<<: {a: 1}, <<: {b: 1}}", "the key << is given twice"),
        ("{{a: 1}: 2}", "a key that is a list or a mapping: write a name"),
        ("[" * 102 + "]" * 102, "nested more than 100 levels deep"),
        (
            "[&a [1, 1, 1], "
            + ", ".join(f"&{name} [{f'*{before}, ' * 99}]" for before, name in ("ab", "bc", "cd"))
            + "]",
            "with its aliases it stands for more than 2,000,000 values",
        ),
    ],
)  # fmt: skip
def test_what_a_yaml_parser_stumbles_over_has_a_line(value: str, expected: str | None):
    (in_text,) = problems_of(f"name: a\nstrategies: [none]\ntraining: {value}\n")
    (in_option,) = problems_of(BASE, f"training={value}")
    if expected is None:
        assert in_text.startswith(
            "line 3, training: found a value with the YAML tag !!python/object:os.system; allowed:"
        )
    else:
        assert in_text == f"line 3: not valid YAML: {expected}"
        assert in_option.endswith(f": the value is not valid YAML: {expected}")


def test_devices_pipes_and_large_files_are_no_scenarios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large.yaml").write_text(f"name: a  #{'x' * 2_000_000}\n")
    monkeypatch.setattr(loading, "MAX_BYTES", 1_000_000)
    for path, reason in [
        (tmp_path / "pipe", "is not a regular file, but a pipe or a device"),
        (Path("/dev/zero"), "is not a regular file, but a pipe or a device"),
        (tmp_path / "large.yaml", "is larger than 1 MB"),
    ]:
        with pytest.raises(ScenarioError) as caught:
            load_scenario(path)
        assert str(caught.value) == f"{path}: 1 problem\n  {reason}"


def test_of_many_problems_the_first_are_shown():
    faulty = "".join(f"  - {{kind: checkpoint, label: a{number}, intervl: 1}}\n" for number in range(300))
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(f"name: a\nstrategies:\n{faulty}")
    lines = str(caught.value).splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("scenario: 300 problems", "  and 280 more problems", 22)
    assert len(caught.value.problems) == 300


def test_yaml_1_2_is_read_with_anchors_and_merge_keys():
    scenario = parse_scenario(
        "name: demo\n"
        "workload: {num_stages: &stages 4}\n"
        "training: {model: {num_stages: *stages}}\n"
        "strategies:\n"
        "  - &often {kind: checkpoint, label: often, interval_iterations: 5, blocking_share: 0.5}\n"
        "  - {<<: *often, label: seldom, interval_iterations: 50}\n"
    )
    often, seldom = (strategy.model_dump() for strategy in scenario.strategies)
    assert scenario.training.model.num_stages == 4
    assert seldom == {**often, "label": "seldom", "interval_iterations": 50}
    scenario = parse_scenario(
        "name: 2024-02-30\nstrategies: [none]\ndescription: 2024-01-01T10:00:00Z\n"
        "training: {steps: 1_000, optimizer: {learning_rate: 1e-3}}\nworkload: {sequences_per_microbatch: 010}\n"
    )
    assert (scenario.name, scenario.description) == ("2024-02-30", "2024-01-01T10:00:00Z")
    assert (scenario.training.steps, scenario.training.optimizer.learning_rate) == (1000, 1e-3)
    assert scenario.workload.sequences_per_microbatch == 10


def test_places_are_lines_of_what_stands_nearest():
    document = Document(
        "test.yaml", "# a comment\n\nname: a\nseeds:\n  failures:\n    - 1\n    - 2\nnetwork: {a: {b: 1}}\n"
    )
    paths: list[tuple[str | int, ...]] = [(), ("name",), ("seeds", "failures"), ("seeds", "failures", 1), ("fallback",)]
    assert [document.place(path) for path in paths] == ["line 1", "line 3", "line 5", "line 7", "line 1"]
    assert document.place(("network", "a", "c", "d")) == "line 8"


# ---- churn traces --------------------------------------------------------------------------------

TRACE = "0,add,a\n0,add,b\n60000,remove,a\n90000,add,c\n"
ROWS = ((0.0, 2, 0, ()), (60.0, 0, 1, (0,)), (90.0, 1, 0, ()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a scenario and, below it, two traces, of which one is faulty."""
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "good.csv").write_text(TRACE)
    (tmp_path / "traces" / "bad.csv").write_text(TRACE + "95000,remove,a\n")
    return tmp_path


def test_a_trace_is_read_from_the_scenarios_folder_and_kept(folder: Path):
    path = folder / "demo.yaml"
    options = "file: traces/good.csv, loop: false, additions: ignore, nodes_follow: together"
    path.write_text(f"{BASE}failures: {{kind: trace, {options}}}\n")
    scenario = load_scenario(path)
    options = scenario.failures.model_dump()
    assert (options["file"], options["rows"], options["loop"]) == ("traces/good.csv", ROWS, False)
    assert parse_scenario(resolved_yaml(scenario), base_folder=folder / "nowhere") == scenario
    (folder / "traces" / "other.csv").write_text("0,add,a\n5000,remove,a\n")
    scenario = parse_scenario(
        f"{BASE}failures: {{kind: trace, file: traces/good.csv, additions: ignore, nodes_follow: together}}\n",
        base_folder=folder,
    )
    other = parse_scenario(
        resolved_yaml(scenario), overrides=("failures.file=traces/other.csv",), base_folder=folder
    ).failures.model_dump()
    assert other["rows"] == ((0.0, 1, 0, ()), (5.0, 0, 1, (0,)))


def test_an_unreadable_trace_is_reported_with_all_other_problems(folder: Path):
    text = (
        f"{BASE}failures:\n  kind: trace\n  file: traces/bad.csv\n  time_scale: -1\n  immune_stages: [9]\n"
        "workload: {num_stages: 5}\n"
    )
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "test.yaml", base_folder=folder)
    file, scale, immune, stages = map(str, caught.value.problems)
    assert file.startswith(f"line 5, failures.file: {folder / 'traces' / 'bad.csv'}, line 5: node 'a'")
    assert scale == "line 6, failures.time_scale: found -1; allowed: a number, at least 1e-06, at most 1,000,000"
    assert stages.startswith("line 8, workload.num_stages: 5 stages do not divide num_layers 24")
    assert immune == "line 7, failures.immune_stages: no stage 9; allowed: 0 (embedding and head) to 5"


def test_traces_are_read_wherever_a_process_can_stand(folder: Path):
    good, missing = {"kind": "trace", "file": "traces/good.csv"}, {"kind": "trace", "file": "traces/god.csv"}
    written = {**good, "rows": [[0.0, 2, 0, []], [60.0, 0, 1, [0]], [90.0, 1, 0, []]]}
    ignored = [{**process, "additions": "ignore", "nodes_follow": "each"} for process in (good, missing, written)]
    data = {"failures": {"kind": "compose", "processes": ["never", *ignored]}, "name": "demo", "strategies": ["none"]}
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(data, base_folder=folder)
    (problem,) = map(str, caught.value.problems)
    path = folder / "traces" / "god.csv"
    assert problem == f"failures.processes.2.file: {path}: no such file; nearest: good.csv"
    data["failures"]["processes"].pop(2)
    never, read, kept = parse_scenario(data, base_folder=folder).failures.model_dump()["processes"]
    assert (never["kind"], read["rows"], kept["rows"]) == ("never", ROWS, ROWS)


@pytest.mark.parametrize(
    "failures", ["trace", 3, None, [], {"kind": "trace"}, {"kind": "trace", "file": 3}, {"kind": "compose"}]
)
def test_where_there_is_no_file_nothing_is_read(failures: object):
    with pytest.raises(ScenarioError) as caught:
        parse_scenario({"name": "demo", "strategies": ["none"], "failures": failures}, base_folder=Path("nowhere"))
    assert "nowhere" not in str(caught.value)


# ---- --set ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("training.steps", ": write it as --set section.field=value"),
        ("=3", ": write it as --set section.field=value"),
        ("failures..rate_per_hour=1", ": write a field as section.field, or as section[entry].field"),
        ("strategies[0=1", ": write a field as section.field, or as section[entry].field"),
        (f"{'a.' * 9}{'a.' * 22}b=1", ": a field has at most 30 parts"),
        ("training.steps: 3", ": write it as --set section.field=value"),
        ("training.steps=[", ": the value is not valid YAML: expected the node content, but found '<stream end>'"),
        ("training.steps=&a [*a]", ": the value is not valid YAML: an anchor that holds itself"),
        ("training.steps=true", ", training.steps: found true; allowed: a whole number, at least 1"),
        ("training.steps=null", ", training.steps: found null; allowed: a whole number"),
        ("failures.rate_per_hour=", ": the value is empty: if no value is meant, write failures.rate_per_hour=null"),
        ("failures={kind: weibull, rate: 0.1}", ", failures.rate: unknown key of 'weibull'; nearest: rate_per_hour"),
        (
            "cluster.jitter=10%",
            ", cluster.jitter: found '10%'; allowed: a number, at least 0, at most 2; write: 0.1",
        ),
        ("training.step=3", ", training.step: unknown key; nearest: steps; allowed: learner"),
        ("trainin.steps=3", ", trainin: unknown key; nearest: training; allowed: name"),
        ("name.first=a", ": 'name' is 'demo' and has no fields below it"),
        (
            "strategies[chekpoint].blocking_share=1",
            ": no entry 'chekpoint' in 'strategies'; nearest: checkpoint; allowed: ",
        ),
        ("strategies.3.label=a", ": no entry '3' in 'strategies'; allowed: none, checkpoint, v1.5; or number 0 to 2"),
        (
            "strategies.checkpoint.blocking_share=2",
            ", strategies.1.blocking_share: found 2; allowed: a number, at least 0",
        ),
        ("strategies=checkpoint", ", strategies: found 'checkpoint'; allowed: a list, not empty, of none"),
        ("seeds.failures=[1, 1]", ", seeds.failures: seed 1 is given 2 times"),
        ("cluster.regions.0=Iowa", ": 'cluster.regions' is not set yet: set the whole list"),
        ("network=spot", ", network: found 'spot'; nearest: spot_cluster"),
        ("network.storage.latency_ms=-1", ", network.storage.latency_ms: found -1; allowed: a number, at least 0"),
        ("workload.num_stages=5", ", workload.num_stages: 5 stages do not divide num_layers 24"),
    ],
)
def test_a_wrong_override_is_named_itself(assignment: str, expected: str):
    text = "name: demo\nstrategies: [none, checkpoint, {kind: restart, label: v1.5}]\nworkload: {model: medium}\n"
    shown = assignment if len(assignment) <= 60 else f"{assignment[:57]}..."
    assert any(problem.startswith(f"--set {shown}{expected}") for problem in problems_of(text, assignment))


def test_overrides_are_reported_with_what_they_contradict():
    text = "name: demo\nstrategies:\n  - none\n  - checkpoint\nworkload:\n  model: medium\n  num_stages: 6\n"
    assert problems_of(text, "workload.model.num_layers=25", "strategies[none].label=checkpoint") == [
        "line 4, strategies.1: a second strategy named 'checkpoint': give it a 'label' of its own",
        "line 7, workload.num_stages: 6 stages do not divide num_layers 25; allowed: 5, 25, or give layers_per_stage",
    ]
    long = f"training.steps={'x' * 500}"
    told = problems_of(f"{BASE}seeds: {{failures: [-1]}}\n", "strategies.foo.label=a", "steps", long)
    assert told == [
        "line 3, seeds.failures.0: found -1; allowed: a whole number, at least 0, below 9,223,372,036,854,775,808",
        "--set strategies.foo.label=a: no entry 'foo' in 'strategies'; allowed: none; or number 0",
        "--set steps: write it as --set section.field=value",
        f"--set training.steps={'x' * 42}..., training.steps: found '{'x' * 57}...'; allowed: a whole number, "
        "at least 1, at most 1,000,000,000",
    ]


def test_rows_count_when_the_trace_file_is_gone_or_different(folder: Path):
    trace = "file: traces/good.csv, additions: ignore, rows: [[0.0, 9, 0, []]]"
    text = f"{BASE}failures: {{kind: trace, {trace}}}\n"
    with pytest.raises(ScenarioError, match=r"failures.rows: differs from the trace in 'traces/good.csv'"):
        parse_scenario(text, base_folder=folder)
    elsewhere = parse_scenario(text, base_folder=folder / "traces")
    assert elsewhere.failures.model_dump()["rows"] == ((0.0, 9, 0, ()),)
