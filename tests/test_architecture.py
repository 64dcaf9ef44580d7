"""What holds the two halves apart, and keeps chance in named streams. `make check` has the finer contracts."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import models
import sim

CHECKOUT = Path(sim.__file__).parents[1]
SOURCES = sorted(file for package in (sim, models) for file in Path(package.__file__).parent.rglob("*.py"))
EVERY_SOURCE = pytest.mark.parametrize("file", SOURCES, ids=[str(file.relative_to(CHECKOUT)) for file in SOURCES])


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after a statement."""
    code = f"{statement}; import sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    process = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return set(process.stdout.split())


@pytest.mark.parametrize(
    ("module", "package"),
    [
        *((module, "torch") for module in ("sim.simulation", "sim.scenario.loading", "sim.results", "models.curve")),
        *((module, "simpy") for module in ("sim.cluster.membership", "sim.strategies", "sim.failures")),
    ],
)
def test_modules_need_neither_torch_nor_the_event_loop(module, package):
    assert package not in loaded_by(f"import {module}")


def test_the_learner_is_independent_of_the_clock():
    loaded = loaded_by("import models.trajectory")
    assert "torch" in loaded
    assert not loaded & {"sim", "simpy"}


@pytest.mark.parametrize("package", ["strategies", "failures"])
def test_plug_ins_do_not_touch_the_event_loop(package):
    for file in (CHECKOUT / "sim" / package).glob("*.py"):
        assert "simpy" not in {name.partition(".")[0] for name in imported(ast.parse(file.read_text("utf-8")))}


@EVERY_SOURCE
def test_a_file_fits_in_the_head(file):
    assert len(file.read_text("utf-8").splitlines()) <= 500


@EVERY_SOURCE
def test_chance_comes_from_named_streams_only(file):
    tree = ast.parse(file.read_text("utf-8"))
    assert list(global_chance(tree)) == []


@pytest.mark.parametrize(
    "code",
    [
        *("import random", "from random import choice", "from numpy.random import rand", "np.random.rand(3)"),
        *("np.random.seed(0)", "np.random.default_rng()", "torch.manual_seed(0)", "seed = hash('stage 3')"),
    ],
)
def test_the_check_above_sees_what_it_should(code):
    assert list(global_chance(ast.parse(code)))


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of imported modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


SEEDED = ("Generator", "SeedSequence", "default_rng")


def global_chance(tree: ast.AST) -> Iterator[str]:
    """Uses of global or unseeded sources of chance. `hash` may be called where it is defined: in `__hash__`."""
    yield from (name for name in imported(tree) if name in ("random", "numpy.random"))
    defining = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__hash__"]
    allowed = {call for function in defining for call in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            module = ast.unparse(node.value)
            if module in ("np.random", "numpy.random") and node.attr not in SEEDED:
                yield f"{module}.{node.attr}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            unseeded = called.endswith("random.default_rng") and not node.args
            if unseeded or called == "torch.manual_seed" or (called == "hash" and node not in allowed):
                yield called
