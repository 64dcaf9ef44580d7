"""Bad input: every problem of a scenario is told at once, by line and path, with what was found and what is allowed."""

import copy
import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from sim.core.text import FOLDER_NAME_IN_WORDS
from sim.scenario.document import Problem, ScenarioError
from sim.scenario.loading import parse_scenario
from support.commands import churnlab
from support.examples import examples

BASE = ("name: demo", "strategies: [none]")
LONG = "x" * 500
SHORTENED = "x" * 57 + "..."
QUICKSTART = (Path(__file__).parents[3] / "scenarios" / "quickstart.yaml").read_text(encoding="utf-8")


def problems_of(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "test.yaml", overrides)
    problems = [str(problem) for problem in caught.value.problems]
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    assert str(caught.value) == "\n".join([f"test.yaml: {count}", *(f"  {problem}" for problem in problems)])
    return problems


def completed(text: str) -> str:
    """The smallest scenario with a text added, or standing in place of its lines."""
    given = {line.split(":")[0] for line in text.splitlines()}
    return "\n".join([*(line for line in BASE if line.split(":")[0] not in given), text])


def table() -> list[tuple[str, list[str]]]:
    """The cases of scenario_errors.txt: a text and the messages expected."""
    cases = []
    for block in (Path(__file__).parent / "scenario_errors.txt").read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith("#")]
        if lines:
            expected = [line.removeprefix("=> ") for line in lines if line.startswith("=> ")]
            cases.append(("\n".join(line for line in lines if not line.startswith("=> ")), expected))
    assert len(cases) > 100
    return cases


@pytest.mark.parametrize(("text", "expected"), table())
def test_every_problem_has_its_line_path_and_remedy(text: str, expected: list[str]):
    told = problems_of(completed(text))
    patterns = [re.escape(message).replace(re.escape("..."), ".*") for message in expected]
    assert len(told) == len(patterns), told
    for message, pattern in zip(told, patterns, strict=True):
        assert re.fullmatch(pattern, message), message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training: {steps: LONG}", "line 3, training.steps: found 'SHORTENED'; allowed: a whole number, at least 1"),
        ("network: LONG", "line 3, network: found 'SHORTENED'; allowed: single_cluster"),
        ("strategies: [LONG]", "line 2, strategies.0: found 'SHORTENED'; allowed: none"),
        ("workload: {precision: LONG}", "line 3, workload.precision: found 'SHORTENED'; allowed: fp32, bf16"),
        ("LONG: 1", "line 3, SHORTENED: unknown key; allowed: name"),
        ("name: LONG", "line 2, name: found 'SHORTENED'; allowed: a text of letters"),
        ("failures: {kind: never, LONG: 1}", "line 3, failures.SHORTENED: unknown key of 'never'; allowed: kind"),
        ("cluster: {regions: [LONG]}", "line 3, cluster.regions: no region 'SHORTENED' in network 'spot_cluster'"),
    ],
)
def test_long_values_are_shortened(text: str, expected: str):
    (told,) = problems_of(completed(text.replace("LONG", LONG)))
    assert told.startswith(expected.replace("SHORTENED", SHORTENED))
    assert len(told) < 400


def test_what_is_required_is_described_and_a_typo_raises_no_more():
    name, strategies = problems_of("# nothing much\ndescription: hello\n")
    assert name == (
        "line 1, name: required, but missing (folder below results/, and title of figures); "
        f"allowed: a text {FOLDER_NAME_IN_WORDS}, at most 100 characters"
    )
    assert strategies.startswith("line 1, strategies: required, but missing (recovery strategies to compare")
    assert strategies.endswith("or mappings with the key 'kind'")
    text = "workload: {num_stage: 4}\ntraining: {model: {num_stages: 4}}"
    (told,) = problems_of(completed(text))
    assert told.startswith("line 3, workload.num_stage: unknown key; nearest: num_stages")


@pytest.mark.parametrize("name", ["a", "3x", "a.b", "CheckFree+", "v1.5_final-2", "x" * 100])
def test_names_of_folders_may_hold(name: str):
    scenario = parse_scenario(f"name: {name}\nstrategies: [{{kind: none, label: {name}}}]")
    assert (scenario.name, scenario.strategies[0].name) == (name, name)


PLAIN = YAML(typ="safe").load(QUICKSTART)
KEYS = st.sampled_from(
    ["kind", "preset", "label", "name", "checkpoint", "none", "links", "file", "losses", "0", "x", "", "a.b", "é\n"]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(
        ["medium", "t4", "gcp_paper", "checkpoint", "checkfree_plus", "none", "stop", "never", "fp32", 10**30]
    ),
    st.sampled_from(["paper_10", "aws_spot_good", "compose", "script", "trace", "no_such:Class", ":"]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=5
)


def containers(value: Any) -> list[Any]:
    """The value and everything below it that can hold something."""
    if not isinstance(value, dict | list):
        return []
    below = value.values() if isinstance(value, dict) else value
    return [value, *(found for item in below for found in containers(item))]


def told(text: str, *overrides: str) -> list[Problem]:
    try:
        parse_scenario(text, "test.yaml", overrides)
    except ScenarioError as error:
        return error.problems
    return []


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """The quickstart with keys deleted, values replaced and keys added, at any depth."""
    data = copy.deepcopy(PLAIN)
    for _ in range(draw(st.integers(1, 4))):
        inside = draw(st.sampled_from(containers(data)))
        here = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        change = draw(st.sampled_from(["delete", "replace", "add"]))
        if change == "add" and isinstance(inside, dict):
            inside[draw(KEYS | st.sampled_from(sorted(PLAIN)))] = draw(VALUES)
        elif change == "add":
            inside.append(draw(VALUES))
        elif here and change == "delete":
            del inside[draw(st.sampled_from(here))]
        elif here:
            inside[draw(st.sampled_from(here))] = draw(VALUES)
    return data


def in_yaml(data: Any) -> str:
    stream = io.StringIO()
    YAML(typ="safe").dump(data, stream)
    return stream.getvalue()


@given(mutated())
@settings(max_examples=examples(60, 200))
@example({**PLAIN, "network": {"preset": {"a": 1}}})
@example({**PLAIN, "strategies": [{"kind": {"a": 1}}]})
@example({**PLAIN, "failures": {"kind": "trace", "file": "."}})
@example({**PLAIN, "failures": {"kind": "compose", "processes": {"0": "paper_10"}}})
@example({**PLAIN, "failures": {"kind": "compose", "processes": ["no_such:Class", {"preset": "aws_spot_good"}]}})
def test_any_text_raises_scenario_errors_only(data: Any):
    for problem in told(in_yaml(data)):
        assert problem.message
        assert "\n" not in str(problem)
        assert "Input should be" not in str(problem)  # pydantic's own words


@given(st.text(alphabet=" \n\t:-[]{}&*!|>'\"#%,?ab1.~", max_size=40))
@settings(max_examples=examples(50, 150))
def test_whatever_the_text_is_only_scenario_errors_are_raised(text: str):
    assert told(text)


@given(
    st.lists(KEYS | st.sampled_from([*PLAIN, "storage", "1", "interval_iterations"]), min_size=1, max_size=4), VALUES
)
@settings(max_examples=examples(50, 150))
@example(["network", "preset"], "gcp_paper")
@example(["failures", "kind"], "never")
@example(["failures", "processes", "0", "preset"], "paper_10")
@example(["failures", "preset", "x"], "paper_10")
def test_whatever_is_set_only_scenario_errors_are_raised(parts: list[str], value: Any):
    for text in (QUICKSTART, "\n".join(BASE)):
        told(text, f"{'.'.join(parts)}={value!r}")


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        (
            "name: ../demo\nstrategies: [checkpont]\n",
            ("run", "demo.yaml", "--set", "training.model.num_stages=5"),
            "demo.yaml: 3 problems\n"
            f"  line 1, name: found '../demo'; allowed: a text {FOLDER_NAME_IN_WORDS}, at most 100 characters\n"
            "  line 2, strategies.0: found 'checkpont'; nearest: checkpoint; allowed: none, ...\n"
            "  --set training.model.num_stages=5, training.model.num_stages: the proxy has 5 stages, the workload 6: "
            "make them equal\n",
        ),
        (
            "name: demo\n",
            ("run", "dem.yaml"),
            "dem.yaml: 1 problem\n  cannot be read: no such file; nearest: demo.yaml\n",
        ),
    ],
)
def test_the_command_prints_one_message_and_writes_nothing(
    tmp_path: Path, text: str, arguments: tuple[str, ...], expected: str
):
    (tmp_path / "demo.yaml").write_text(text)
    ended = churnlab(*arguments, folder=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert re.fullmatch(re.escape(expected).replace(re.escape("..."), ".*"), ended.stderr)
    assert [path.name for path in tmp_path.rglob("*")] == ["demo.yaml"]
