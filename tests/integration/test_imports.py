"""What a command imports before it is needed: a user who asks for help or for a check does not wait for torch."""

import json
import subprocess
import sys

import pytest

HEAVY = {"altair", "matplotlib", "pandas", "pyarrow", "ray", "scipy", "simpy", "tokenizers", "torch"}

SCENARIO = """
name: tiny
workload: {model: small, num_stages: 4}
training: {learner: curve, model: {num_stages: 4}, target_validation_loss: 3.0}
strategies: [checkfree, checkpoint]
"""

IMPORTED = """
import json, sys
from sim.cli.main import main
sys.argv[0] = "churnlab"
try:
    main()
finally:
    named = {name.split(".")[0] for name in sys.modules} | {"scipy.ndimage"}.intersection(sys.modules)
    print(json.dumps(sorted(named)), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["list", "strategies"], ["validate", "scenario.yaml"]])
def test_light_commands_import_nothing_heavy(arguments, tmp_path):
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTED, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    imported = set(json.loads(ended.stderr.splitlines()[-1]))
    if arguments == ["--help"]:
        assert imported.isdisjoint({"numpy", "pydantic"})
    allowed = {"simpy"} if arguments[0] == "validate" else set()  # it estimates what a run takes to simulate
    assert HEAVY.intersection(imported) <= allowed


def test_advice_prints_before_figures_are_imported(tmp_path):
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTED, "advise", "scenario.yaml", "--dry-run", "--jobs", "1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "Failures are simulated" in ended.stdout
    assert {"matplotlib", "scipy.ndimage"}.isdisjoint(json.loads(ended.stderr.splitlines()[-1]))
