"""Commented scenarios to begin with: for volunteers, spot machines, a datacentre, local steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sim.cluster.topology import num_nodes
from sim.core.text import format_count
from sim.scenario.loading import build_scenario
from sim.scenario.rewriting import section_text

SCHEMA_FILE = "scenario.schema.json"


@dataclass(frozen=True)
class Template:
    """What a scenario begins with. failures: a preset's name, or a section; why: comments beside it."""

    name: str
    about: str
    num_nodes: int
    num_stages: int
    device: str
    model: str
    network: str
    failures: str | Mapping[str, Any]
    why: tuple[str, ...]
    cluster: str
    strategies: str
    workload: str
    num_microbatches: int
    iterations_per_step: int


FABRIC = (
    "{same_region: {latency_ms: 0.02, bandwidth_mbit_per_s: 400000}, "
    "storage: {latency_ms: 1, bandwidth_mbit_per_s: 400000}}"
)
EIGHT_H100 = "{name: 8xH100, bf16_tflops: 7916, fp32_tflops: 536, memory_gib: 640, utilisation: 0.4}"

DESKTOPS = (
    "desktop_ms99",
    ("desktop machines of a company: on for 60 h, off for 14 h on average; volunteer_seti: 10 h and 32 h",),
)
AT_HOME = """\
  detection_seconds: 30         # until the loss of a node is detected
  startup_seconds: 30           # until the process of a new node has joined
"""

TEMPLATES = {
    "volunteers": Template(
        "volunteers",
        "Volunteers at home: machines are switched off and return",
        21,
        6,
        "rtx4090",
        "medium",
        "home_fibre",
        *DESKTOPS,
        AT_HOME,
        """\
  - none                        # the reference: failures have no cost
  - {kind: checkpoint, interval: young}     # all stages go back to the last checkpoint
  - checkfree_plus              # a lost stage is rebuilt from its neighbours; nothing is stored
""",
        "  precision: bf16\n",
        64,
        20,
    ),
    "spot": Template(
        "spot",
        "Spot machines of one cloud zone: several are preempted at once, at short notice",
        14,
        6,
        "a100",
        "medium",
        "spot_cluster",
        {"preset": "gcp_a100", "notice_seconds": 30},
        ("each machine is lost every 10 h on average, 4.3 at once; notice: 30 s at Google Cloud, 120 s at AWS",),
        """\
  provisioning_seconds: 300     # until a replacement has been ordered and arrives
  detection_seconds: 10         # until a loss without notice is detected
  startup_seconds: 60           # until the process of a new node has joined
""",
        """\
  - none                        # the reference: failures have no cost
  - {kind: checkpoint, interval: young, just_in_time: true}     # also saves at each notice
  - checkfree_plus              # a lost stage is rebuilt from its neighbours; nothing is stored
  - redundant                   # each stage also computes the next one's forwards
""",
        "  precision: bf16\n",
        64,
        50,
    ),
    "datacentre": Template(
        "datacentre",
        "Machines of eight GPUs in a datacentre: rare failures, repairs of hours, spares",
        72,
        8,
        EIGHT_H100,
        "7B",
        FABRIC,
        "rsc1",
        ("6.5 failures in 1,000 node-days (Meta's RSC-1); a repair takes 4 h",),
        """\
  stage_state: sharded          # FSDP: a stage is lost with any of its nodes; replicated: with the last one
  detection_seconds: 30         # until a failure is detected
  startup_seconds: 300          # until all processes have restarted
""",
        """\
  - none                        # the reference: failures have no cost
  - {kind: checkpoint, interval: young}     # all stages go back to the last checkpoint
  - {kind: checkpoint, interval_seconds: 3600, label: hourly}
""",
        "  precision: bf16\n  recompute_activations: true   # less memory, a third more computation\n",
        512,
        500,
    ),
    "diloco": Template(
        "diloco",
        "Replicas at home that train separately and are averaged every 50 iterations (DiLoCo)",
        20,
        4,
        "rtx4090",
        "medium",
        "home_fibre",
        *DESKTOPS,
        AT_HOME + "  joining: beside               # training continues while a new node receives the state\n",
        """\
  - none                        # the reference: gradients exchanged in each iteration, failures without cost
  # weights are averaged every 50 iterations; a pipeline that loses a node is out until the next synchronisation
  - {kind: diloco, inner_steps: 50, outer_learning_rate: 1.0, outer_momentum: 0.0}
  # or it rebuilds the lost stage and continues
  - kind: diloco
    inner_steps: 50
    outer_learning_rate: 1.0
    outer_momentum: 0.0
    lost_stage: checkfree
    label: rebuilt
  - elastic                     # gradients exchanged in each iteration, by the pipelines that are complete
""",
        "  precision: bf16\n",
        64,
        1,
    ),
}


def nodes_per_stage_of(template: Template) -> tuple[int, int]:
    """Nodes of each stage, and the rest as spares. ValueError with fewer nodes than stages need."""
    needed = num_nodes(build_scenario(name="default", strategies=["none"]).cluster, template.num_stages)
    if template.num_nodes < needed:
        stages = f"{template.num_stages} stages and the embedding need {needed} nodes at least"
        raise ValueError(f"--nodes {template.num_nodes}: {stages}; give more nodes, or fewer --stages")
    return divmod(template.num_nodes, needed)


def scenario_text(template: Template, name: str) -> str:
    """A commented scenario as text. ValueError where its nodes do not suffice."""
    per_stage, spares = nodes_per_stage_of(template)
    failures = template.failures
    section = f"failures: {failures}\n" if isinstance(failures, str) else section_text("failures", failures)
    why = "".join(f"# {line}\n" for line in template.why)
    places = f"{per_stage} for each of {template.num_stages} stages and the embedding"
    count = f"{format_count(template.num_nodes, 'node')}: {places}"
    spare_line = f"  num_spares: {spares:<18}# replace lost nodes at once\n" if spares else ""
    return f"""\
# yaml-language-server: $schema={SCHEMA_FILE}
# {template.about}.
#
#   churnlab validate {name}.yaml     every problem, with its line
#   churnlab costs {name}.yaml        memory, traffic and time without failures
#   churnlab run {name}.yaml          time and loss of all strategies under the same churn
#   churnlab advise {name}.yaml       which strategy to use
#
# Every field: docs/scenario.md. Override one for a single command: --set cluster.detection_seconds=5

name: {name}

workload:                       # the model that you would like to train: it gives the seconds
  model: {template.model:<23}# see `churnlab list models`; or dim, num_layers, ... of your own
  num_stages: {template.num_stages:<18}# pipeline stages that hold layers
  num_microbatches: {template.num_microbatches:<12}# per iteration, divided among the pipelines
  sequences_per_microbatch: 4
  sequence_length: 1024
{template.workload}
training:                       # a small proxy that is really trained: it gives the loss
  steps: 400                    # learner: none simulates times only
  model: {{family: llama, dim: 48, num_heads: 4}}
  data: {{source: stdlib}}        # or your own text: {{source: text, files: ["corpus/**/*.txt"]}}
  evaluation: {{interval_steps: 20}}
  target_validation_loss: auto  # strategies are compared by the time to this loss

iterations_per_step: {template.iterations_per_step:<11}# large-model iterations per proxy step; outputs state it

cluster:                        # {count}
  device: {template.device:<22}# see `churnlab list devices`
  nodes_per_stage: {per_stage}
{spare_line}{template.cluster}
network: {template.network:<23}# see `churnlab list networks`

{why}{section}
strategies:
{template.strategies}
fallback: {{kind: checkpoint, interval_iterations: 100}}     # where a strategy cannot recover

seeds: {{failures: [0, 1], training: [0, 1]}}     # two independent runs of each strategy
"""


def changed(template: Template, **changes: Any) -> Template:
    """The template with those changes that are given."""
    return replace(template, **{name: value for name, value in changes.items() if value is not None})
