"""Valid scenarios: defaults, presets, overrides, the resolved text and the JSON Schema."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sim.core.presets import KINDS, frozen, presets, text_of
from sim.failures import PROCESSES
from sim.results.storage import resolved_yaml
from sim.scenario.checks import CHECKS
from sim.scenario.loading import load_scenario, parse_scenario
from sim.scenario.scenario import Scenario
from sim.strategies import STRATEGIES

PRESET_FIELDS = {("workload", "model"): "models", ("cluster", "device"): "devices", ("network",): "networks"}
SCENARIOS = Path(__file__).parents[3] / "scenarios"
SMALLEST = "name: demo\nstrategies: [none]\n"
RICH = """
name: rich
description: everything that can be chosen
workload:
  model: {preset: small, num_layers: 10}
  num_stages: 5
  num_microbatches: 8
  precision: bf16
  schedule: gpipe
  measured: {forward_seconds: 0.1, backward_seconds: 0.2}
training:
  learner: curve
  model: {family: gpt, dim: 30, num_heads: 3, num_stages: 5, layers_per_stage: 2, hidden_dim: 50}
  data: {source: text, files: [a.txt, 'b/*.md'], tokenizer: bpe, vocabulary_size: 300}
  optimizer: {decay: cosine, warmup_steps: 10, decay_steps: 90, clip_norm: null}
  steps: 100
  target_validation_loss: 2
cluster:
  device: {preset: a100, utilisation: 0.5}
  regions: [west, east]
  num_spares: 2
network:
  name: mine
  same_region: {latency_ms: 1, bandwidth_mbit_per_s: 1000}
  storage: {latency_ms: 50, bandwidth_mbit_per_s: 500}
  links:
    - [west, east, 30, 0.05]
    - [west, south, 40, 0.04]
failures: {kind: bernoulli, per_iteration_probability: 0.01, instant: start, immune_stages: [0, 5]}
strategies:
  - none
  - {kind: checkpoint, label: often, interval_seconds: 600, blocking_share: 1}
  - checkpoint
  - {kind: redundant, preset: paper_table2}
  - {kind: checkfree, preset: reference_code, end_stages: unrecoverable}
  - {kind: checkfree_plus, learning_rate_half_life_steps: 20, optimizer: average}
  - restart
fallback: stop
seeds: {failures: [1, 2], training: [3]}
iterations_per_step: 4
"""

NEEDS_OPTIONS = {
    "compose": "{kind: compose, processes: [never, {kind: exponential, mean_uptime_hours: 3}]}",
    "trace": "{kind: trace, rows: [[0.0, 9, 0, []], [60.0, 0, 1, [1]], [120.0, 1, 0, []]]}",
}


# ---- what a text means ---------------------------------------------------------------------------
def test_the_smallest_scenario_has_defaults():
    scenario = parse_scenario(SMALLEST)
    assert scenario.workload.model.model_dump(exclude_unset=True) == presets("models")["medium"]
    assert scenario.cluster.device.name == "l4"
    assert scenario.network.name == "spot_cluster"
    assert scenario.network.regions == ("local",)
    assert scenario.failures.kind == "exponential"
    assert scenario.fallback.kind == "restart"
    assert (scenario.seeds.failures, scenario.seeds.training, scenario.iterations_per_step) == ((0,), (0,), 1)
    assert scenario == Scenario.model_validate({"name": "demo", "strategies": ("none",)})


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_scenarios_that_come_along_are_valid(path: Path):
    assert load_scenario(path).name


@pytest.mark.parametrize(("path", "kind"), PRESET_FIELDS.items())
def test_every_preset_can_stand_for_its_field_or_be_changed(path: tuple[str, ...], kind: str):
    for name, figures in presets(kind).items():
        for text in (name, f"{{preset: {name}}}", f"{{preset: {name}, name: mine}}"):
            fitting = ["workload.num_microbatches=1"]  # fits any device
            if kind == "models":  # two stages divide the layers of any, and need this much
                fitting += ["workload.num_stages=2", "cluster.device={preset: h100, memory_gib: 1000}"]
            field: Any = parse_scenario(SMALLEST, overrides=(f"{'.'.join(path)}={text}", *fitting))
            for part in path:
                field = getattr(field, part)
            assert field.model_dump(exclude_unset=True) == {**figures, "name": "mine" if "mine" in text else name}


@pytest.mark.parametrize("kind", STRATEGIES)
def test_every_strategy_can_be_named_by_its_kind_alone(kind: str):
    (strategy,) = parse_scenario(f"name: demo\nstrategies: [{kind}]").strategies
    assert strategy == STRATEGIES[kind].Config()
    assert strategy.name == kind


@pytest.mark.parametrize("kind", [*KINDS, "failures"])
def test_presets_are_those_of_their_file_parsed_whole(kind: str):
    whole = YAML(typ="safe").load(text_of(kind))
    assert dict(presets(kind)) == {name: {"name": name, **frozen(entry)} for name, entry in whole.items()}


def test_presets_and_checks_have_proper_names():
    assert not set(presets("failures")) & set(PROCESSES)
    for check, _ in CHECKS:
        assert re.fullmatch(r"[A-Z`].*\.", check.__doc__ or "")


# ---- overrides -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("assignment", "path", "expected"),
    [
        ("training.steps=7", "training.steps", 7),
        ("description=a = b", "description", "a = b"),
        ("failures.rate_per_hour=0", "failures.rate_per_hour", 0.0),
        ("failures.kind=never", "failures.kind", "never"),
        ("failures=never", "failures.kind", "never"),
        ("failures={kind: bernoulli, instant: start}", "failures.instant", "start"),
        ("seeds.failures=[1, 2]", "seeds.failures", (1, 2)),
        ("seeds.failures.0=9", "seeds.failures", (9,)),
        ("network.storage.bandwidth_mbit_per_s=100", "network.storage.bandwidth_mbit_per_s", 100.0),
        ("network.storage.bandwidth_mbit_per_s=100", "network.storage.latency_ms", 150.0),
        ("network.preset=gcp_paper", "network.name", "gcp_paper"),
        ("cluster.device.utilisation=1", "cluster.device.utilisation", 1.0),
        ("cluster.device.utilisation=1", "cluster.device.name", "l4 (changed)"),
        ("workload.model.num_layers=12", "workload.model.num_layers", 12),
        ("workload.measured={forward_seconds: 1, backward_seconds: 2}", "workload.measured.backward_seconds", 2.0),
        ("strategies=[restart]", "strategies.0.kind", "restart"),
        ("strategies.1.interval_iterations=5", "strategies.1.interval_iterations", 5),
        ("strategies.checkpoint.interval_iterations=5", "strategies.1.interval_iterations", 5),
        ("strategies[checkpoint].interval_iterations=5", "strategies.1.interval_iterations", 5),
        ("strategies[v1.5].norm_exponent=0", "strategies.2.norm_exponent", 0.0),
        ("strategies.none.label=ideal", "strategies.0.name", "ideal"),
        ("strategies.0=restart", "strategies.0.kind", "restart"),
        ("strategies.checkpoint={kind: restart, label: b}", "strategies.1.name", "b"),
        ("fallback=stop", "fallback.kind", "stop"),
        ("fallback.kind=checkpoint", "fallback.kind", "checkpoint"),
    ],
)
@pytest.mark.parametrize("above", ["", "network: spot_cluster\nworkload: {model: medium}\ncluster: {device: l4}\n"])
def test_one_field_is_set(above: str, assignment: str, path: str, expected: Any):
    text = f"name: demo\nstrategies: [none, checkpoint, {{kind: checkfree, label: v1.5}}]\n{above}"
    field: Any = parse_scenario(text, overrides=(assignment,))
    for part in path.split("."):
        field = field[int(part)] if part.isdecimal() else getattr(field, part)
    assert field == expected


def test_overrides_change_presets_empty_sections_and_one_another():
    text = f"{SMALLEST}network: {{preset: gcp_paper, storage: {{latency_ms: 1, bandwidth_mbit_per_s: 2}}}}\n"
    network = parse_scenario(text, overrides=("network.links.0.3=0.5", "network.storage.latency_ms=3")).network
    other = parse_scenario(text, overrides=("network.preset=single_cluster",)).network
    assert network.links[0][3] == 0.5
    assert network.links[1:] == parse_scenario(f"{SMALLEST}network: gcp_paper").network.links[1:]
    assert (network.storage.latency_ms, network.storage.bandwidth_mbit_per_s) == (3.0, 2.0)
    assert (other.name, other.links, other.storage.latency_ms) == ("single_cluster (changed)", (), 1.0)
    assert parse_scenario(f"{SMALLEST}training:\n", overrides=("training.model.dim=8",)).training.model.dim == 8
    overrides = ("strategies=[none, checkpoint]", "strategies.checkpoint.label=a", "strategies.a.blocking_share=1")
    assert parse_scenario(SMALLEST, overrides=overrides).strategies[1].model_dump()["blocking_share"] == 1.0
    text = "name: x\nstrategies: [none]\nnetwork: {preset: spot_cluster, storage: {bandwidth_mbit_per_s: 100}}"
    storage = parse_scenario(text).network.storage
    assert (storage.bandwidth_mbit_per_s, storage.latency_ms) == (100, 150)


# ---- the resolved text ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        SMALLEST,
        RICH,
        (SCENARIOS / "quickstart.yaml").read_text(encoding="utf-8"),
        f"{SMALLEST}network: gcp_paper\ncluster: {{device: rtx4090, regions: [Iowa, NL, Iowa]}}\n",
        f"name: demo\nstrategies: [{', '.join(STRATEGIES)}]\nfallback: {{kind: checkpoint, interval_seconds: 1e-3}}\n",
        "name: '1e3'\nstrategies: [{kind: none, label: 'null'}]\ndescription: 2024-01-01\n",
        "name: '2024-01-01'\nstrategies: [{kind: none, label: 'yes'}]\ndescription: \"a: b\\n# c\\n\"\n",
        *(f"{SMALLEST}failures: {NEEDS_OPTIONS.get(kind, kind)}\n" for kind in PROCESSES),
        *(f"{SMALLEST}failures: {name}\n" for name in presets("failures")),
    ],
)
def test_the_resolved_text_means_the_same_and_says_everything(text: str):
    scenario = parse_scenario(text)
    resolved = resolved_yaml(scenario)
    assert parse_scenario(resolved) == scenario
    assert resolved_yaml(parse_scenario(resolved)) == resolved
    assert "preset: spot_cluster" not in resolved


# ---- JSON Schema ---------------------------------------------------------------------------------

SCHEMA = Scenario.model_json_schema()


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value satisfies a JSON Schema, as far as pydantic's schemas go."""
    if "$ref" in schema and not fits(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")]):
        return False
    if "anyOf" in schema and not any(fits(value, option) for option in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(fits(value, option) for option in schema["oneOf"]) != 1:
        return False
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        return False
    if "type" in schema and not is_a(value, schema["type"]):
        return False
    if isinstance(value, dict):
        known = schema.get("properties", {})
        closed = schema.get("additionalProperties") is False
        return (
            all(key in value for key in schema.get("required", []))
            and all(fits(item, known[key]) for key, item in value.items() if key in known)
            and not (closed and any(key not in known for key in value))
        )
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        pairs = [*zip(value, first, strict=False), *((item, schema.get("items", {})) for item in value[len(first) :])]
        few, many = schema.get("minItems", 0), schema.get("maxItems", len(value))
        return few <= len(value) <= many and all(fits(item, below) for item, below in pairs)
    if isinstance(value, str):
        return bool(re.search(schema.get("pattern", ""), value))
    if isinstance(value, int | float):
        return schema.get("minimum", value) <= value <= schema.get("maximum", value)
    return True


def is_a(value: Any, kind: str) -> bool:
    types: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "number": int | float}
    types |= {"boolean": bool, "null": type(None)}
    return isinstance(value, types[kind]) and not (kind in ("integer", "number") and isinstance(value, bool))


CHOSEN = f"""
{SMALLEST}failures: {{kind: compose, processes: [paper_10, {{preset: skype, notice_seconds: 3}}, {{kind: never}}]}}
fallback: {{kind: checkpoint, interval_seconds: 60}}
"""


@pytest.mark.parametrize(
    "text", [SMALLEST, RICH, CHOSEN, *(p.read_text(encoding="utf-8") for p in SCENARIOS.glob("*.yaml"))]
)
def test_valid_scenarios_fit_the_schema_written_and_resolved(text: str):
    assert fits(YAML(typ="safe").load(text), SCHEMA)
    resolved = resolved_yaml(parse_scenario(text, base_folder=SCENARIOS))
    assert fits(YAML(typ="safe").load(resolved), SCHEMA)


@pytest.mark.parametrize(
    ("changed", "is_valid"),
    [
        ({"failures": "paper_10"}, True),
        ({"failures": {"preset": "skype", "notice_seconds": 30}}, True),
        ({"strategies": ["my.module:Strategy", {"kind": "module:Strategy", "option": 3}]}, True),
        ({"fallback": "my.module:Strategy"}, True),
        ({"failures": {"kind": "compose", "processes": ["paper_10", "m:Process", {"kind": "m:Process"}]}}, True),
        ({"strategies": ["checkpont"]}, False),
        ({"strategies": []}, False),
        ({"strategies": [{"kind": "none", "label": "a/b"}]}, False),
        ({"network": "spot"}, False),
        ({"network": {"preset": "spot"}}, False),
        ({"cluster": {"device": "t44"}}, False),
        ({"fallback": "none"}, False),
        ({"training": {"stepz": 3}}, False),
        ({"failures": {"kind": "exponential", "rate_per_hour": -1}}, False),
        ({"failures": "paper_11"}, False),
        ({"failures": {"preset": "paper_11"}}, False),
        ({"failures": {"kind": "compose", "processes": ["compose"]}}, False),
        ({"strategies": ["no.class"]}, False),
        ({"strategies": [{"kind": "no.class"}]}, False),
    ],
    ids=str,
)
def test_presets_and_classes_fit_the_schema_and_faults_do_not(changed: dict[str, Any], is_valid: bool):
    assert fits({"name": "demo", "strategies": ["none"], **changed}, SCHEMA) == is_valid


def test_the_schema_names_all_kinds_and_describes_every_field():
    text = json.dumps(SCHEMA)
    assert all(f'"const": "{kind}"' in text for kind in [*STRATEGIES, *PROCESSES, "stop"])
    assert all(f'"{name}"' in text for kind in [*PRESET_FIELDS.values(), "failures"] for name in presets(kind))
    for definition in [SCHEMA, *SCHEMA["$defs"].values()]:
        for name, field in definition["properties"].items():
            assert name == "kind" or field.get("description"), f"{definition['title']}.{name} has no description"
