"""Writes docs/scenario.md, the reference of every field of a scenario: python docs/scenario_reference.py

Fields, limits, defaults and meanings come from the schema that checks scenarios, and presets from their files. What is
written here are the words between the tables, and an example for each section.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sim.cli.lists import first_line
from sim.core.presets import presets
from sim.failures import PROCESSES
from sim.failures.base import MeanConfig, ProcessConfig, RatedConfig
from sim.scenario.document import defaults
from sim.scenario.schema import kinds, resolved, schema
from sim.strategies import STRATEGIES, StrategyConfig, checkfree, redundant

PAGE = Path(__file__).with_name("scenario.md")
TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false", "object": "mapping"}
LISTS = {"integer": "whole numbers", "number": "numbers", "string": "texts", "array": "rows", "object": "mappings"}

INTRODUCTION = """
# Every field of a scenario

*Made by `make reference` from the schema that checks scenarios: change descriptions in the code, not here.*

A scenario is one YAML file. Only `name` and `strategies` are required; other fields have the defaults in the
tables below, and results contain the complete scenario. `churnlab validate my.yaml` lists every error;
`--set section.field=value` changes any field for one command (`--set 'strategies[checkpoint].interval_iterations=10'`);
`churnlab init my.yaml` writes a commented scenario to start from, and the schema that lets editors complete and
check it (`churnlab schema` prints it).

- **Units** are part of the names: `_seconds`, `_hours`, `_ms`, `_mbit_per_s` (10⁶ bit/s), `_gib` (2³⁰ bytes),
  `_usd_per_hour`. A value may have a unit of its own and is converted: `detection_seconds: 2 min`,
  `rate_per_hour: 10 %/day`, `bandwidth_mbit_per_s: 1.2 GiB/s`, `memory_gib: 24 GB`, a link
  `[here, there, 20 us, 1 Gbit/s]`.
- **Seconds and hours** are simulated time of the target model.
- **Presets**: where a table says so, a name replaces a whole section, and
  `{preset: name, field: value}` is that preset with changes. Its name becomes `name (changed)`.
- **Paths** are relative to the scenario's folder.
- `null` marks a field that may be left empty. Stages are numbered: 0 holds embedding and head, 1 to s the layers.

| section | |
|---|---|
| [the scenario](#the-scenario) | name, strategies, and the sections |
| [`workload`](#workload) | the target model, an iteration of it: gives the seconds |
| [`training`](#training) | the proxy model, its text, its optimizer: gives the loss |
| [`cluster`](#cluster) | devices, nodes, spares, delays of a recovery |
| [`network`](#network) | links between nodes and to the store |
| [`failures`](#failures) | when nodes fail |
| [`strategies`](#strategies) | the strategies to compare |
| [`fallback`](#fallback) | the strategy that takes over if another cannot recover |
| [`seeds`](#seeds) | replicates |
| [`sweep`](#sweep) | what `churnlab sweep` varies |
| [`branches`](#branches) | what `churnlab branches` measures |
"""

HEADINGS = {
    "WorkloadConfig": "workload",
    "TargetModel": "workload.model",
    "MeasuredSeconds": "workload.measured",
    "TrainingConfig": "training",
    "ModelSpec": "training.model",
    "DataSpec": "training.data",
    "OptimizerSpec": "training.optimizer",
    "EvaluationConfig": "training.evaluation",
    "ClusterConfig": "cluster",
    "Device": "cluster.device",
    "Straggler": "cluster.stragglers",
    "NetworkConfig": "network",
    "LinkConfig": "network.same_region",
    "StorageConfig": "network.storage",
    "AccessConfig": "network.access",
    "Delay": "failures.downtime",
    "Loss": "failures.losses",
    "TraceFile": "failures.files",
    "ColumnsConfig": "failures.columns",
    "SeedsConfig": "seeds",
    "SweepConfig": "sweep",
    "BranchesConfig": "branches",
}
"""The heading under which each part of the schema stands, those of kinds apart."""
PRESETS_OF = {"TargetModel": "models", "Device": "devices", "NetworkConfig": "networks"}

EXAMPLES = {
    "the scenario": """
name: mine
description: Two ways to survive 10 % an hour
strategies: [none, checkpoint, checkfree_plus]
failures: {kind: exponential, rate_per_hour: 0.1}
fallback: {kind: checkpoint, interval_iterations: 100}
iterations_per_step: 1
""",
    "workload": """
workload:
  model: {preset: medium, num_layers: 30}    # a preset with something changed, or all figures of your own
  num_stages: 6                              # S1 to S6, five layers each; stage 0 has embedding and head
  sequence_length: 1024
  sequences_per_microbatch: 4
  num_microbatches: 96
  precision: bf16
  max_in_flight: 14
  # measured: {forward_seconds: 0.021, backward_seconds: 0.043}    # your own times, in place of FLOPs over speed
""",
    "training": """
training:
  model: {family: llama, dim: 48, num_heads: 4, num_stages: 6, layers_per_stage: 1}
  data: {source: text, files: ["corpus/**/*.txt"], tokenizer: bpe, vocabulary_size: 1024}
  optimizer: {learning_rate: 0.002, warmup_steps: 50, decay: cosine}
  sequences_per_batch: 8
  steps: 2000
  evaluation: {interval_steps: 20, num_sequences: 64}
  target_validation_loss: 2.0
""",
    "cluster": """
cluster:
  device: {preset: a100, spot_usd_per_hour: 0.95}
  nodes_per_stage: 3
  num_spares: 2
  detection_seconds: 10
  provisioning_seconds: 300
  startup_seconds: 20
  stragglers: [{stage: 2, replica: 0, slowdown: 1.5}]
""",
    "network": """
network:
  preset: gcp                                # twelve Google Cloud regions; change what differs
  parallel_streams: 4
  storage: {bandwidth_mbit_per_s: 2000}
cluster: {regions: [Iowa, Oregon], placement: stage_per_region}
""",
    "failures": """
failures:
  kind: compose
  processes:
    - {kind: weibull, shape: 0.6, mean_uptime_hours: 12, scope: node, notice_seconds: 120}
    - {kind: script, losses: [{at_hours: 3, stages: [2, 3]}]}
""",
    "strategies": """
strategies:
  - none                                                   # a kind by itself,
  - {kind: checkpoint, interval: young}                    # or with options
  - {kind: checkfree, end_stages: copy, label: copies}     # label: what outputs call it
  - {kind: redundant, preset: bamboo}
workload: {sequences_per_microbatch: 2, precision: bf16}
cluster: {device: a100}
""",
    "fallback": """
fallback: {kind: checkpoint, interval_iterations: 50}
""",
    "seeds": """
seeds: {failures: [0, 1, 2], training: [0, 1, 2]}          # three runs of each strategy, independent of each other
""",
    "branches": """
branches:
  steps: [200, 400, 600]
  after_steps: [0, 20, 60]
  stages: [1, 2, 3]
  replicates: 12
""",
    "sweep": """
sweep:
  grid:
    failures.rate_per_hour: [0.05, 0.10, 0.16]
    strategies[checkpoint].interval_iterations: [25, 100]
  replicates: 3
strategies: [none, checkpoint, checkfree_plus]
""",
}
"""An example for each section: a piece of a scenario of its own, which a test reads."""


def page() -> str:
    """The whole page."""
    return "\n".join(line.rstrip() for line in lines()).strip() + "\n"


def lines() -> Iterator[str]:
    """The page, piece by piece."""
    yield INTRODUCTION
    yield from section("the scenario", "Fields at the top level of the file.")
    yield from table(schema()["properties"], schema()["required"])
    yield from section(
        "workload",
        "The model that you would like to train, and one iteration of it. It gives the seconds and is not trained. "
        "[The model of time](model-of-time.md).",
    )
    yield from tables("WorkloadConfig", "TargetModel")
    yield from preset_table(
        "models", ("dim", "num_heads", "num_layers", "hidden_dim", "vocabulary_size"), "`model: medium`"
    )
    yield from tables("MeasuredSeconds")
    yield from section(
        "training",
        "The small model that is really trained. It has the workload's number of stages, so the loss of a stage means "
        "the same in both; otherwise it does not affect the seconds.",
    )
    yield from tables("TrainingConfig", "ModelSpec", "DataSpec", "OptimizerSpec", "EvaluationConfig")
    yield from section("cluster", "Nodes, and the delays of a recovery. [Churn](churn.md).")
    yield from tables("ClusterConfig", "Device")
    yield from preset_table(
        "devices",
        (
            "bf16_tflops",
            "fp32_tflops",
            "memory_gib",
            "utilisation",
            "spot_usd_per_hour",
            "on_demand_usd_per_hour",
            "prices_as_of",
        ),
        "`device: a100`",
    )
    yield from tables("Straggler")
    yield from section(
        "network", "Links between nodes, and how messages share them. [The network](model-of-time.md#the-network)."
    )
    yield from tables("NetworkConfig", "LinkConfig", "StorageConfig", "AccessConfig")
    yield from preset_table("networks", (), "`network: gcp`")
    yield from failures()
    yield from strategies()
    yield from section(
        "fallback",
        "The strategy that takes over if another cannot recover: `restart`, `stop`, or `checkpoint` with its options, "
        "which then keeps, and pays for, its checkpoints during the whole run. The table of a run counts its uses.",
    )
    yield from section(
        "seeds",
        "A replicate of every strategy is a pair of a failure seed and a training seed. [Sweeps](sweeps.md#replicates)",
    )
    yield from tables("SeedsConfig")
    yield from section("sweep", "Values of fields for many points, for `churnlab sweep`. [Sweeps](sweeps.md).")
    yield from tables("SweepConfig")
    yield from section(
        "branches",
        "The single failures that `churnlab branches` measures. All fields have defaults. [What one failure "
        "costs](one-failure.md).",
    )
    yield from tables("BranchesConfig")


def failures() -> Iterator[str]:
    """The section of failure processes: what many have in common, then each kind's own, then presets."""
    yield from section(
        "failures",
        "The failure process: a kind with its options, a preset's name, or a preset with changes. "
        "[What a loss means, and how nodes return](churn.md).",
    )
    yield f"\nKinds: {links('failures', PROCESSES)}. And [presets](#presets-of-failures)."
    every, mean, rated = (
        config.model_json_schema()["properties"] for config in (ProcessConfig, MeanConfig, RatedConfig)
    )
    yield "\nEvery kind has"
    yield from table(every)
    yield "\nKinds with a mean have a rate or a mean, and lost nodes may return:"
    yield from table(without(mean, every))
    yield "\nOf these, `exponential`, `weibull`, `lognormal` and `diurnal` have a scope, the unit that fails as one:"
    yield from table(without(rated, mean))
    for kind, process in PROCESSES.items():
        own, required = defined(process.Config)["properties"], defined(process.Config).get("required", ())
        common = next((base for base in (rated, mean, every) if set(base) <= set(own)), every)
        has = {RatedConfig: " Has a rate or a mean, and a scope.", MeanConfig: " Has a rate or a mean: a node's."}
        words = next((has[base] for base in has if issubclass(process.Config, base)), "")
        yield f"\n### failures: `{kind}`\n\n{first_line(process.__doc__)}{words}"
        yield from table(without(own, common), required)
    yield from tables("Delay", "Loss", "TraceFile", "ColumnsConfig")
    yield "\n### Presets of failures\n"
    yield "`failures: paper_16`, or `failures: {preset: bamboo_ec2_p3, notice_seconds: 120}`"
    yield from rows(
        ("preset", "kind", "what it is", "source"),
        [(code(name), code(p["kind"]), p["description"], p["source"]) for name, p in presets("failures").items()],
    )


def strategies() -> Iterator[str]:
    """The section of strategies: what all have, then each kind's options, then what their presets say."""
    yield from section(
        "strategies",
        "The strategies to compare. The first is the reference. "
        "[What each does, costs and cannot recover](strategies.md); [your own strategy](writing-a-strategy.md).",
    )
    yield f"\nKinds: {links('strategies', STRATEGIES)}."
    common = StrategyConfig.model_json_schema()["properties"]
    yield "\nEvery kind has"
    yield from table(common)
    for kind, strategy in STRATEGIES.items():
        yield f"\n### strategies: `{kind}`\n\n{strategy.summary[0].upper()}{strategy.summary[1:]}."
        yield from table(without(defined(strategy.Config)["properties"], common))
        known = {"checkfree": checkfree.PRESETS, "redundant": redundant.PRESETS}.get(kind)
        if known:
            options = dict.fromkeys(option for values in known.values() for option in values)
            yield "\nValues of its presets that differ from the defaults above:"
            yield from rows(
                ("option", *map(code, known)),
                [(code(o), *(code(p[o]) if o in p else "" for p in known.values())) for o in options],
            )


def section(name: str, words: str) -> Iterator[str]:
    """A heading, what the section is about, and its example."""
    heading = name.capitalize() if " " in name else f"`{name}`"
    yield f"\n## {heading}\n\n{words}\n\n```yaml{EXAMPLES[name]}```"


def links(what: str, known: Iterable[str]) -> str:
    """Links to the headings of kinds."""
    return ", ".join(f"[`{kind}`](#{what}-{kind})" for kind in known)


def tables(*names: str) -> Iterator[str]:
    """Tables of parts of the schema; those inside a section have headings of their own."""
    for name in names:
        node = schema()["$defs"][name]
        if "." in HEADINGS[name]:
            yield f"\n### `{HEADINGS[name]}`\n\n{' '.join(node['description'].split())}"
        yield from table(node["properties"], node.get("required", ()))


def table(properties: dict[str, Any], required: Sequence[str] = ()) -> Iterator[str]:
    """A row for each field: type, default, limits, meaning."""
    found = [
        (code(name), typed(node), default(name, node, name in required), allowed(node), meaning(node))
        for name, node in properties.items()
        if name != "kind"
    ]
    if found:
        yield from rows(("field", "type", "default", "allowed", "meaning"), found)
    else:
        yield "\nNo options of its own."


def preset_table(kind: str, figures: Sequence[str], example: str) -> Iterator[str]:
    """A row for each preset of a kind."""
    yield f"\nPresets, as in {example}:"
    yield from rows(
        ("preset", "what it is", *figures, "source"),
        [
            (code(name), p["description"], *(str(p.get(figure, "")) for figure in figures), p["source"])
            for name, p in presets(kind).items()
        ],
    )


def rows(headings: Sequence[str], content: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table."""
    yield f"\n| {' | '.join(headings)} |"
    yield "|---" * len(headings) + "|"
    for cells in content:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def defined(config: type[Any]) -> dict[str, Any]:
    """What the scenario's schema says of a component's options."""
    node: dict[str, Any] = schema()["$defs"][config.__name__]
    return node


def without(properties: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    """The fields that are not the same in what is common."""
    return {name: node for name, node in properties.items() if common.get(name) != node}


def reference(node: dict[str, Any]) -> str | None:
    """The part of the schema that a field holds, by name; None where it is none, or a choice of several."""
    options = [node, *node.get("anyOf", ()), node.get("items", {})]
    found = next((option["$ref"] for option in options if "$ref" in option), None)
    return str(found).removeprefix("#/$defs/") if found else None


def typed(node: dict[str, Any]) -> str:
    """What a field holds."""
    part, node = reference(node), resolved(node)
    if part in HEADINGS:
        link = f"[{HEADINGS[part]}](#{HEADINGS[part].replace('.', '')})"
        if node.get("type") == "array":
            return f"list of mappings: {link}"
        return f"{'a preset, or ' if part in PRESETS_OF else ''}mapping: {link}"
    if kinds(node):
        return "a kind, or a mapping with `kind`" + (", or a preset" if "presets" in node else "")
    if node.get("type") == "array":
        entry = resolved(node["items"]) if "items" in node else {}
        if kinds(entry):
            return "list of kinds, or of mappings with `kind`"
        names = {
            "integer": "whole numbers",
            "number": "numbers",
            "string": "texts",
            "array": "rows",
            "object": "mappings",
        }
        return f"list of {names.get(entry.get('type', ''), 'values')}"
    if "enum" in node:
        return "name"
    return TYPES.get(node.get("type", ""), "value")


def default(name: str, node: dict[str, Any], is_required: bool) -> str:
    """What a field holds when nothing is said of it."""
    if is_required:
        return "**required**"
    if "default" in node:
        return code(node["default"])
    if reference(node) in HEADINGS:
        return "as there"
    if kinds(resolved(node)):
        return code(defaults()[name]["kind"])
    return "`{}`" if resolved(node).get("type") == "object" else ""


def allowed(node: dict[str, Any]) -> str:
    """The limits of a field, or the names that it can hold."""
    words = [code(option["const"]) for option in node.get("anyOf", ()) if "const" in option]
    node = resolved(node)
    if "enum" in node:
        return ", ".join(map(code, node["enum"]))
    entry = resolved(node["items"]) if node.get("type") == "array" and "items" in node else {}
    told = [limits(node)]
    if "prefixItems" in entry:
        told.append(f"rows of {len(entry['prefixItems'])}")
    elif limits(entry) and not kinds(entry):
        told.append(f"each {limits(entry)}")
    if node.get("minItems") and node.get("minItems") == node.get("maxItems"):
        told.append(f"{node['minItems']} of them")
    elif node.get("minItems"):
        told.append("not empty")
    elif node.get("maxItems"):
        told.append(f"at most {node['maxItems']:,} of them")
    if node.get("pattern"):
        told.append("letters, digits, `.`, `_`, `+`, `-`; a letter or digit first")
    return "; ".join(filter(None, [*told, *words]))


def limits(node: dict[str, Any]) -> str:
    """Least and greatest number, or length of a text, in words."""
    low, above, high, below = (node.get(key) for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"))
    if low is not None and high is not None:
        return f"{number(low)} to {number(high)}"
    told = [("at least", low), ("above", above), ("at most", high), ("below", below)]
    words = [f"{word} {number(limit)}" for word, limit in told if limit is not None]
    words += [f"at most {node['maxLength']} characters"] if "maxLength" in node else []
    return ", ".join(words)


def number(value: float) -> str:
    """A limit as people read it."""
    if value == 2**63:
        return "2⁶³"
    if value == 1 / 3600:
        return "1/3600"
    if 0 < abs(value) < 0.01:
        return f"{value:.3g}"
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def meaning(node: dict[str, Any]) -> str:
    """What a field says."""
    return str(node.get("description", ""))


def code(value: Any) -> str:
    """A value as YAML has it."""
    if isinstance(value, list | tuple):
        return f"`[{', '.join(code(item).strip('`') for item in value)}]`"
    if value is None or isinstance(value, bool):
        return f"`{str(value).lower().replace('none', 'null')}`"
    if value == "":
        return '`""`'
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
