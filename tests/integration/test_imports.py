"""What a command imports before it is needed: a user who asks for help or for a check does not wait for torch."""

import json
import subprocess
import sys

import pytest

HEAVY = {"altair", "matplotlib", "pandas", "pyarrow", "ray", "scipy", "simpy", "tokenizers", "torch"}

SCENARIO = """
name: tiny
workload: {model: small, num_stages: 4}
training: {learner: curve, model: {num_stages: 4}}
strategies: [checkfree]
"""

IMPORTED = """
import json, sys
from sim.cli.main import main
sys.argv[0] = "churnlab"
try:
    main()
finally:
    print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["list", "strategies"], ["validate", "scenario.yaml"]])
def test_light_commands_import_nothing_heavy(arguments, tmp_path):
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTED, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    allowed = {"simpy"} if arguments[0] == "validate" else set()  # it estimates what a run takes to simulate
    assert HEAVY.intersection(json.loads(ended.stderr.splitlines()[-1])) <= allowed
