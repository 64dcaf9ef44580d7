"""`churnlab init` writes scenarios that are valid at once, whatever is chosen, or nothing."""

import json
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from sim.cli import init as init_command
from sim.cluster.topology import num_nodes
from sim.core.presets import presets
from sim.scenario.loading import load_scenario
from sim.scenario.templates import SCHEMA_FILE, TEMPLATES
from support.commands import churnlab


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_is_valid_and_commented(tmp_path, template):
    done = churnlab("init", "mine.yaml", "--template", template, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "mine.yaml").read_text()
    assert text.startswith(f"# yaml-language-server: $schema={SCHEMA_FILE}\n")
    assert text.count("#") > 20
    scenario = load_scenario(tmp_path / "mine.yaml")
    assert scenario.name == "mine"
    assert num_nodes(scenario.cluster, scenario.workload.num_stages) == TEMPLATES[template].num_nodes
    schema = json.loads((tmp_path / SCHEMA_FILE).read_text())
    jsonschema.validate(YAML(typ="safe").load(text), schema)
    assert churnlab("validate", "mine.yaml", folder=tmp_path).returncode == 0


CHOICES = ["--nodes", 30, "--stages", 4, "--device", "h100", "--model", "large", "--network", "gcp"]


@pytest.mark.parametrize("failures", ["paper_16", "rsc2"])
def test_options_are_in_the_scenario(tmp_path, failures):
    done = churnlab("init", "mine.yaml", *CHOICES, "--failures", failures, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    scenario = load_scenario(tmp_path / "mine.yaml")
    assert num_nodes(scenario.cluster, 4) == 30
    assert (scenario.cluster.nodes_per_stage, scenario.cluster.num_spares) == (6, 0)
    assert (scenario.cluster.device.name, scenario.network.name) == ("h100", "gcp")
    assert scenario.failures.name == failures
    assert presets("failures")[failures]["description"] in (tmp_path / "mine.yaml").read_text()


def test_a_file_of_churn_is_fitted(tmp_path):
    rows = [f"{node},{start},{start + 40 + node}" for node in range(12) for start in range(0, 600, 60)]
    (tmp_path / "nodes.csv").write_text("\n".join(["node,start_min,end_min", *rows]))
    done = churnlab("init", "mine.yaml", "--failures", "nodes.csv", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "mine.yaml").read_text()
    assert "# nodes.csv (intervals): 120 losses in" in text
    assert load_scenario(tmp_path / "mine.yaml").failures.kind in ("bulk", "weibull", "lognormal", "exponential")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["x.yaml", "--nodes", "3"], "6 stages and the embedding need 7 nodes at least; give more nodes, or fewer"),
        (["x.yaml", "--stages", "5"], "5 stages do not divide num_layers 24"),
        (["x.yaml", "--device", "a10"], "--device a10: no such preset; nearest: a100"),
        (["x.yaml", "--failures", "rsc3"], "--failures rsc3: no such file, and no such preset; nearest: rsc"),
        (["x.yaml", "--template", "spots"], "nearest: spot"),
        (["x.txt"], "x.txt: allowed: a file that ends in .yaml"),
        (["-x y.yaml"], "No such option"),
        (["a b.yaml"], "a b.yaml: allowed: a name of letters, digits"),
    ],
)
def test_choices_that_do_not_go_together_write_nothing(tmp_path, options, message):
    done = churnlab("init", *options, folder=tmp_path)
    assert done.returncode == 2
    assert message in " ".join((done.stdout + done.stderr).split())
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path):
    (tmp_path / "mine.yaml").write_text("precious")
    done = churnlab("init", "mine.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert "mine.yaml exists already: name another file, or overwrite it with --force" in done.stderr
    assert (tmp_path / "mine.yaml").read_text() == "precious"
    assert churnlab("init", "mine.yaml", "--force", folder=tmp_path).returncode == 0
    load_scenario(tmp_path / "mine.yaml")


def test_answers_in_a_terminal_are_those_of_options(tmp_path, monkeypatch):
    replies = iter(["datacentre", "40", "4", "a100", "1B", "gcp", "rsc1"])
    monkeypatch.setattr(init_command.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(init_command.typer, "prompt", lambda *_, value_proc=str, **__: value_proc(next(replies)))
    template, wanted = init_command.answers()
    assert template == "datacentre"
    assert wanted == {
        **{"num_nodes": 40, "num_stages": 4, "device": "a100", "model": "1B", "network": "gcp"},
        "failures": None,
    }
    chosen = init_command.with_choices(TEMPLATES[template], {**wanted, "model": "7B"})
    init_command.write(Path(tmp_path / "x.yaml"), init_command.scenario_text(chosen, "x"))
    assert load_scenario(tmp_path / "x.yaml").cluster.nodes_per_stage == 8
