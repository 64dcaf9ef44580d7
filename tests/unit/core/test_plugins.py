"""Strategies and failure processes from outside: the tutorial's package installed, and classes named by module."""

import linecache
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from models.training_state import Edit, Term
from sim.core import plugins as kinds
from sim.core.plugins import PluginError
from sim.experiments.versions import code_hash
from sim.failures import PROCESSES, known_processes, process_class
from sim.results.storage import load_run, resolved_yaml
from sim.scenario import schema as schema_paths
from sim.scenario.loading import ScenarioError, parse_scenario
from sim.scenario.scenario import Scenario
from sim.simulation.run import simulate, time_only
from sim.strategies import STRATEGIES, Strategy, UnrecoverableError, known_strategies, strategy_class
from support.builders import a_training, start_of
from support.on_paper import WorldOnPaper, keep, rebuild
from support.pages import DOCS, files_of

EXTRAPOLATE = "churnlab_extrapolate:Extrapolate"
GAMMA = "churnlab_extrapolate:GammaFailures"

PROJECT = DOCS.parent
FILES = files_of(DOCS / "writing-a-strategy.md")


def test_the_elastic_strategy_of_the_tutorial_is_elastic(tmp_path, monkeypatch):
    """With the rate lowered linearly it learns as the built-in one does, in the same time."""
    (tmp_path / "complete_pipelines.py").write_text(FILES["complete_pipelines.py"], encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = FILES["pipelines.yaml"].replace("elastic]", "{kind: elastic, learning_rate: linear}]")
    scenario = parse_scenario(text)
    own, constant, built_in = (simulate(scenario, each, 0, 0, a_training(scenario)) for each in scenario.strategies)
    assert own.batch_share < 1.0 == constant.batch_share
    assert own.wall_clock_seconds == built_in.wall_clock_seconds
    assert [record.train_loss for record in own.iterations] == [record.train_loss for record in built_in.iterations]


@pytest.mark.parametrize(
    ("method", "body", "says"),
    [
        ("can_train", "return 1", "can_train returns bool, found int"),
        ("plan_for", "return None", "plan_for returns IterationPlan, found NoneType"),
        ("recipe_for", "return world.nowhere", "recipe_for fails at faulty_recipe_for.py, line 8: "),
    ],
)
def test_faulty_answers_of_a_strategy_are_named(tmp_path, monkeypatch, method, body, says):
    text = f"""from sim.strategies.base import Strategy, StrategyConfig
class Faulty(Strategy):
    kind, summary, Config = "faulty", "faulty", StrategyConfig
    def recover(self, world, failure, position):
        yield from ()
        return position
    def {method}(self, world, *about):
        {body}
"""
    (tmp_path / f"faulty_{method}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    scenario = parse_scenario(
        f"name: n\nstrategies: ['faulty_{method}:Faulty']\ntraining: {{learner: none, steps: 3}}\n"
    )
    with pytest.raises(PluginError, match=says):
        simulate(scenario, scenario.strategies[0], 0, 0, time_only(scenario))


# ---- the tutorial's package, installed -----------------------------------------------------------
@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A folder with the tutorial's scenario, and an environment in which its package is installed."""
    package, site, folder = (tmp_path_factory.mktemp(name) for name in ("package", "site", "work"))
    for name in ("pyproject.toml", "churnlab_extrapolate.py"):
        (package / name).write_text(FILES[name], encoding="utf-8")
    (folder / "lines.yaml").write_text(FILES["lines.yaml"], encoding="utf-8")
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet")
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(site), str(package)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder, {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{PROJECT}", "COLUMNS": "200"}


def python(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python without the current folder on its path, as the installed command has it."""
    command = [sys.executable, "-P", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def churnlab(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(folder, environment, "-c", "from sim.cli.main import main; main()", *arguments)


def test_an_installed_strategy_runs_by_its_name(installed):
    folder, environment = installed
    overrides = ("training.learner=none", "failures={kind: gamma, rate_per_hour: 0.3, immune_stages: [0]}")
    options = [part for override in overrides for part in ("--set", override)]
    ended = churnlab(folder, environment, "run", "lines.yaml", "--no-cache", *options)
    assert ended.returncode == 0, ended.stderr
    (run_folder,) = (folder / "results" / "lines").glob("extrapolate-*")
    run = load_run(run_folder)
    num_events = run.events["kind"].value_counts()
    assert run.summary["num_failures"] > 3
    assert num_events["checkpoint_durable"] > 3
    assert run.summary["num_fallbacks"] == run.summary["num_rollbacks"] == run.summary["num_iterations_rerun"] == 0
    assert run.iterations["lineage"].nunique() == 1 + num_events["recovered"] > 3
    resolved = (run_folder / "scenario.yaml").read_text(encoding="utf-8")
    assert "reach: 0.25" in resolved
    (folder / "resolved.yaml").write_text(resolved, encoding="utf-8")
    again = churnlab(folder, environment, "validate", "resolved.yaml")
    assert again.returncode == 0, again.stderr


def test_an_installed_strategy_is_listed_and_unknown_without_it(installed):
    folder, environment = installed
    faulty = ("--set", "strategies.extrapolate.reach=0", "--set", "strategies.extrapolate.far=1")
    listed = "from sim.strategies import known_strategies as s; from sim.failures import known_processes as f; "
    wrong = churnlab(folder, environment, "validate", "lines.yaml", *faulty)
    names = python(folder, environment, "-c", f"{listed}print(list(s())[-1], list(f())[-1])")
    without = churnlab(folder, {**environment, "PYTHONPATH": str(PROJECT)}, "validate", "lines.yaml")
    assert wrong.stderr == (
        "lines.yaml: 2 problems\n"
        "  --set strategies.extrapolate.reach=0, strategies.1.reach: found 0; allowed: a number, above 0, at most 10\n"
        "  --set strategies.extrapolate.far=1, strategies.1.far: unknown key of 'extrapolate'; allowed: kind, label, "
        "interval_iterations, reach\n"
    )
    assert names.stdout == "extrapolate gamma\n"
    assert "strategies.1.kind: found 'extrapolate'; allowed: none, " in without.stderr


def test_the_schema_has_installed_names_and_imports_nothing(installed):
    folder, environment = installed
    seen = "import json, sys; from sim.scenario import Scenario; s = json.dumps(Scenario.model_json_schema()); "
    told = python(folder, environment, "-c", f"""{seen}print('"extrapolate"' in s, '"gamma"' in s, *sys.modules)""")
    assert told.stdout.startswith("True True ")
    assert "churnlab_extrapolate" not in told.stdout.split()


# ---- classes named by module and class -----------------------------------------------------------
@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with modules of one's own, forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHURNLAB_PLUGINS", ".")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    (tmp_path / "churnlab_extrapolate.py").write_text(FILES["churnlab_extrapolate.py"], encoding="utf-8")
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
    for cached in (kinds._find, schema_paths.plugin_schema, schema_paths.schema):
        cached.cache_clear()


def problems_of(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(f"name: demo\n{text}", "test.yaml", overrides)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.filterwarnings("error")
def test_a_class_in_the_current_folder_round_trips_with_options(folder):
    scenario = parse_scenario(
        f"name: demo\nstrategies: ['{EXTRAPOLATE}', {{kind: '{EXTRAPOLATE}', label: far, reach: 2}}]\n"
        f"failures: {{kind: compose, processes: [never, {{kind: '{GAMMA}', shape: 4, mean_uptime_hours: 3}}]}}\n"
    )
    near, far = scenario.strategies
    assert (near.kind, near.name, far.name) == (EXTRAPOLATE, "extrapolate", "far")
    assert far.model_dump() == {"kind": EXTRAPOLATE, "label": "far", "interval_iterations": 50, "reach": 2.0}
    assert scenario.failures.model_dump()["processes"][1]["shape"] == 4.0
    assert isinstance(strategy_class(far.kind)(far, 6), Strategy)
    assert process_class(GAMMA) is sys.modules["churnlab_extrapolate"].GammaFailures
    assert process_class("compose")(scenario.failures).parts[1][0] == "1/gamma"
    resolved = resolved_yaml(scenario)
    assert parse_scenario(resolved) == scenario
    assert resolved_yaml(parse_scenario(resolved)) == resolved
    assert Scenario.model_validate(scenario.model_dump()) == scenario


def test_options_of_a_class_from_outside_can_be_set(folder):
    scenario = parse_scenario(
        f"name: demo\nstrategies: [none, '{EXTRAPOLATE}']\nfailures: '{GAMMA}'\n",
        overrides=(f"strategies[{EXTRAPOLATE}].reach=3", "failures.shape=5", "failures.downtime.mean_hours=1"),
    )
    assert scenario.strategies[1].model_dump()["reach"] == 3.0
    assert scenario.failures.model_dump()["downtime"]["mean_hours"] == 1.0
    assert scenario.failures.model_dump()["shape"] == 5.0
    config = strategy_class(EXTRAPOLATE).Config(kind=EXTRAPOLATE, reach=3.0)  # type: ignore[call-arg]
    assert Scenario.model_validate({"name": "demo", "strategies": (config,)}).strategies == (config,)


def test_options_of_classes_from_outside_are_checked_like_others(folder):
    assert problems_of(
        f"strategies:\n"
        f"  - {{kind: '{EXTRAPOLATE}', rech: 2}}\n"
        f"  - {{kind: '{EXTRAPOLATE}', label: a/b, interval_iterations: '7'}}\n"
        f"failures:\n"
        f"  kind: '{GAMMA}'\n"
        f"  shape: 10%\n"
        f"  scope: nodes\n"
        f"  downtime: {{mean_hours: 0, sprea: 1}}\n"
    ) == [
        f"line 3, strategies.0.rech: unknown key of '{EXTRAPOLATE}'; nearest: reach; allowed: kind, label, "
        "interval_iterations, reach",
        "line 4, strategies.1.label: found 'a/b'; allowed: a text of letters, digits, '.', '_', '+' and '-', "
        "a letter or digit first, at most 100 characters, or null",
        "line 4, strategies.1.interval_iterations: found '7'; allowed: a whole number, at least 1; write: 7",
        "line 7, failures.shape: found '10%'; allowed: a number, above 0, at most 1,000; write: 0.1",
        "line 8, failures.scope: found 'nodes'; nearest: node; allowed: node, stage, region",
        "line 9, failures.downtime.mean_hours: found 0; allowed: a number, at least 1e-09, at most 1,000,000",
        "line 9, failures.downtime.sprea: unknown key; nearest: spread; allowed: mean_hours, distribution, spread",
    ]


def test_checks_see_classes_from_outside(folder):
    told = problems_of(
        f"strategies: [{{kind: '{EXTRAPOLATE}', label: none}}, none]\n"
        f"failures: {{kind: '{GAMMA}', rate_per_hour: 0.1, mean_uptime_hours: 3, immune_stages: [7]}}\n"
        "cluster: {device: t4}\n"
    )
    assert told[0].startswith("line 2, strategies.0: 'none' needs 17.5 GiB on stage 1")
    assert told[1].startswith("line 2, strategies.1: a second strategy named 'none'")
    assert told[2] == "line 3, failures.immune_stages: no stage 7; allowed: 0 (embedding and head) to 6"
    assert told[3] == "line 3, failures.mean_uptime_hours: give rate_per_hour or mean_uptime_hours, not both"


def run_cell(text: str) -> None:
    """Let a notebook's cell run: its source can be looked up, and its module has no file."""
    name = f"<cell {text!r}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), vars(sys.modules["__main__"]))


def test_a_class_of_a_notebook_is_taken_as_its_cell_was_last_run(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    cell = FILES["churnlab_extrapolate.py"].replace("reach: float = Field(0.5", "reach: float = Field(0.75")
    kind = "__main__:Extrapolate"

    def seen() -> tuple[type, str, Any]:
        config = parse_scenario(f"name: demo\nstrategies: ['{kind}']\n").strategies[0]
        return strategy_class(kind), code_hash(strategy_class(kind)), config.model_dump()

    run_cell(cell)
    first, hash_of_first, options = seen()
    run_cell(cell + "\n")
    again, hash_of_again, _ = seen()
    run_cell(cell.replace('"""Need', '"""Want'))
    _, hash_in_other_words, _ = seen()
    run_cell(cell.replace("if len(kept) > 1 else 0.0", "if len(kept) > 1 else 0.1"))
    _, hash_of_changed, _ = seen()

    assert options == {"kind": kind, "label": "extrapolate", "interval_iterations": 50, "reach": 0.75}
    assert again is not first
    assert hash_of_first == hash_of_again == hash_in_other_words
    assert hash_of_changed != hash_of_first
    linecache.clearcache()
    with pytest.raises(ValueError, match="the code of '__main__:Extrapolate' cannot be read"):
        seen()


HEAD = """
from typing import ClassVar, Literal
from pydantic import Field, field_validator
from models.spec import swapped_routes
from sim.strategies import Strategy, StrategyConfig
from sim.strategies.baselines import Restart

"""
MODULES = {
    "fine": """
        class Inner(StrategyConfig):
            depth: int = Field(1, multiple_of=3, description="a depth")

        class FineConfig(StrategyConfig):
            level: int = Field(3, description="a level")
            inner: Inner | None = Field(None, description="more")
            checkpoint: int = Field(1, ge=1, description="a key that is also the name of a kind")

            @field_validator("level")
            @classmethod
            def _odd(cls, level):
                if level == 0:
                    raise TypeError("no zero")
                if level % 2 == 0:
                    raise ValueError("an odd level\\nis needed")
                return level

        class Fine(Restart):
            kind = "fine"
            Config = FineConfig

        class Looping(Fine):
            def training_variant(self):
                return (*swapped_routes(self.num_stages), *swapped_routes(self.num_stages)[:1])

        class Refusing(Fine):
            serves_as_fallback = False

            @classmethod
            def check(cls, config, workload):
                return f"level {config.level} is too low"
    """,
    "wrong": """
        number = 3

        class Nothing:
            pass

        class Abstract(Strategy):
            kind, summary, Config = "abstract", "", StrategyConfig

        class Bare(Strategy):
            def recover(self, world, failure, position):
                return position

        class Unconfigured(Restart):
            Config = dict

        class Spaced(Restart):
            kind = "two words"

        class FixedConfig(StrategyConfig):
            kind: Literal["fixed"] = "fixed"

        class Fixed(Restart):
            kind, Config = "fixed", FixedConfig

        del Strategy, Restart
    """,
    "bad_syntax": "def f(:\n",
    "needs_more": "import no_such_thing.at_all\n",
    "raises": "raise RuntimeError('a\\nb' * 300)\n",
    "leaves": "import sys\nsys.exit(3)\n",
}


@pytest.fixture
def modules(folder):
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(HEAD + textwrap.dedent(text), encoding="utf-8")
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").touch()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("nowhere:A", "there is no module 'nowhere', installed, on PYTHONPATH or in ."),
        (
            "package.nowhere:A",
            "there is no module 'package.nowhere', installed, on PYTHONPATH or in .",
        ),
        ("nowhere.at.all:A", "there is no module 'nowhere', installed, on PYTHONPATH or in ."),
        ("fine:Fin", "module 'fine' has no 'Fin'; nearest: Fine; allowed: Fine, Looping, Refusing"),
        ("package:A", "module 'package' has no 'A', and no Strategy at all"),
        ("fine:FineConfig", "'FineConfig' is not a Strategy: make it a subclass of sim.strategies.base.Strategy"),
        ("wrong:number", "'number' is not a Strategy: make it a subclass of sim.strategies.base.Strategy"),
        ("wrong:Nothing", "'Nothing' is not a Strategy: make it a subclass of sim.strategies.base.Strategy"),
        ("wrong:Abstract", "'Abstract' lacks the method recover"),
        ("wrong:Bare", "'Bare' lacks the attributes kind, Config, summary"),
        ("wrong:Unconfigured", "the Config of 'Unconfigured' is not a subclass of sim.strategies.base.StrategyConfig"),
        (
            "wrong:Spaced",
            "the kind 'two words' of 'Spaced' is not a name of letters, digits, '.', '_', '+' and '-', a letter or "
            "digit first",
        ),
        ("wrong:Fixed", "the Config of 'Fixed' allows other kinds only: leave the field 'kind' out of it"),
        ("bad_syntax:A", "module 'bad_syntax' cannot be imported: SyntaxError: invalid syntax (bad_syntax.py, line 8)"),
        (
            "needs_more:A",
            "module 'needs_more' cannot be imported: ModuleNotFoundError: No module named 'no_such_thing'",
        ),
        ("raises:A", "module 'raises' cannot be imported: RuntimeError: a " + "ba " * 93),
        ("leaves:A", "module 'leaves' cannot be imported: SystemExit: 3"),
        ("a:b:c", "write package.module:Class, or the name of an installed one"),
        (":", "write package.module:Class, or the name of an installed one"),
        ("fine:Fine.Config", "write package.module:Class, or the name of an installed one"),
        ("../fine:Fine", "write package.module:Class, or the name of an installed one"),
    ],
)
def test_unusable_classes_are_reported_in_one_line_with_place(modules, kind: str, expected: str):
    alone, keyed = problems_of(f"strategies:\n  - '{kind}'\n  - kind: '{kind}'\n    label: x\n")
    assert alone.startswith(f"line 3, strategies.0: found '{kind}': {expected}")
    assert keyed.startswith(f"line 4, strategies.1.kind: found '{kind}': {expected}")
    assert "\n" not in alone
    assert len(alone) < 500
    with pytest.raises(PluginError, match=re.escape(expected)):
        strategy_class(kind)


def test_a_class_is_accepted_for_its_own_contract_only(modules, folder):
    assert problems_of("strategies: [none]\nfailures: fine:Fine\nfallback: fine:Refusing\n") == [
        "line 3, failures: found 'fine:Fine': 'Fine' is not a FailureProcess: make it a subclass of "
        "sim.failures.base.FailureProcess",
        "line 4, fallback: found 'fine:Refusing': 'Refusing' cannot be used here: its 'serves_as_fallback' is not True",
    ]
    fallback = parse_scenario("name: demo\nstrategies: [none]\nfallback: {kind: 'fine:Fine', level: 5}\n").fallback
    assert fallback.model_dump() == {"kind": "fine:Fine", "label": "fine", "level": 5, "inner": None, "checkpoint": 1}
    (folder / "colorsys.py").write_text("raise RuntimeError")
    with pytest.raises(PluginError, match="module 'colorsys' has no 'A', and no Strategy at all"):
        strategy_class("colorsys:A")


def test_messages_of_ones_own_validators_and_needs_are_reported(modules):
    assert problems_of(
        "strategies: [{kind: 'fine:Fine', level: 2, inner: {kind: x, depth: 4}, checkpoint: 0}, "
        "{kind: 'fine:Fine', level: 0}]\n"
    ) == [
        "line 2, strategies.0.level: found 2: an odd level is needed",
        "line 2, strategies.0.inner.depth: found 4; allowed: a whole number, a multiple of 3",
        "line 2, strategies.0.checkpoint: found 0; allowed: a whole number, at least 1",
        "line 2, strategies.1.kind: found 'fine:Fine': its Config fails: TypeError: no zero",
    ]
    routes = "fine:Looping sends them along 3 routes in turn: needs a multiple of 3, found"
    assert problems_of("strategies: ['fine:Refusing', 'fine:Looping']\nworkload: {num_microbatches: 8}\n") == [
        f"line 1, training.num_microbatches: {routes} 4",
        "line 2, strategies.0: 'fine': level 3 is too low",
        "line 2, strategies.1: a second strategy named 'fine': give it a 'label' of its own",
        f"line 3, workload.num_microbatches: {routes} 8",
    ]


# ---- entry points --------------------------------------------------------------------------------
@pytest.fixture
def entry_points(folder, monkeypatch) -> Callable[..., None]:
    """Install packages that consist of entry points alone."""

    def install(package: str, **names: str) -> None:
        info = folder / "site" / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = (f"{name} = {value}\n" for name, value in names.items())
        (info / "entry_points.txt").write_text("".join(["[churnlab.strategies]\n", *lines]))

    monkeypatch.syspath_prepend(str(folder / "site"))
    schema_paths.schema.cache_clear()
    return install


def test_broken_entry_points_matter_only_where_they_are_named(entry_points):
    assert (list(known_strategies()), list(known_processes())) == (list(STRATEGIES), list(PROCESSES))
    entry_points("one", broken="nowhere:A", double=EXTRAPOLATE, none=EXTRAPOLATE, fine=EXTRAPOLATE)
    entry_points("two", double="elsewhere:B", fine=EXTRAPOLATE)
    assert parse_scenario("name: demo\nstrategies: [none, fine]\n").strategies[0] == STRATEGIES["none"].Config()
    broken, double = problems_of("strategies: [broken, {kind: double}]\n")
    assert broken == (
        "line 2, strategies.0: found 'broken': nowhere:A, churnlab.strategies of one: there is no module 'nowhere', "
        "installed, on PYTHONPATH or in ."
    )
    assert double == (
        f"line 2, strategies.1.kind: found 'double': several packages give this name: {EXTRAPOLATE} and elsewhere:B; "
        "write the one you mean"
    )
    listed = known_strategies()
    assert list(listed) == [*STRATEGIES, "broken", "double", "fine"]
    assert listed["none"] is STRATEGIES["none"]
    assert listed["fine"] is strategy_class(EXTRAPOLATE)
    assert "there is no module 'nowhere'" in str(listed["broken"])
    assert "fine" in problems_of("strategies: [fin]\n")[0].partition("allowed")[2]


def test_many_unknown_names_read_the_installed_ones_once(entry_points):
    entry_points("one", fine=EXTRAPOLATE)
    with patch.object(kinds, "entry_points", side_effect=kinds.entry_points) as read:
        assert len(problems_of(f"strategies: [{', '.join(f'wrong{number}' for number in range(50))}]\n")) == 50
    assert read.call_count <= 2
    entry_points("two", fresh=EXTRAPOLATE)
    assert {"fine", "fresh"} <= set(known_strategies())


def test_the_hash_of_ones_code_changes_with_the_code(folder):
    before = code_hash(strategy_class(EXTRAPOLATE))
    (folder / "other.py").write_text("")
    assert code_hash(strategy_class(EXTRAPOLATE)) == before
    with (folder / "churnlab_extrapolate.py").open("a") as file:
        file.write("# more\n")
    assert code_hash(strategy_class(EXTRAPOLATE)) != before
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").write_text("from churnlab_extrapolate import Extrapolate\n")
    (folder / "mine" / "b.py").write_text("from churnlab_extrapolate import Extrapolate as B\nclass C(B): pass\n")
    before = code_hash(strategy_class("mine.b:C"))
    (folder / "mine" / "__init__.py").write_text("")
    assert code_hash(strategy_class("mine.b:C")) != before


# ---- what the tutorial's classes do --------------------------------------------------------------
def extrapolate(folder: Path, **options: Any) -> Any:
    found = strategy_class(EXTRAPOLATE)
    return found(found.Config(kind=EXTRAPOLATE, **options), 6)  # type: ignore[call-arg]


def test_a_lost_stage_goes_on_along_the_line_of_its_checkpoints(folder):
    strategy, world = extrapolate(folder, reach=0.5, interval_iterations=10), WorldOnPaper()
    position = start_of(strategy)
    world.lose(3)
    assert isinstance(rebuild(strategy, world, position.after(5)), UnrecoverableError)
    for num_kept, iteration in ((1, 10), (2, 20), (2, 30)):
        keep(strategy, world, position.after(iteration - 1))
        keep(strategy, world, position.after(iteration))
        kept = [position.after(iteration - 10 * back) for back in range(num_kept)]
        shares = (1.0,) if num_kept == 1 else (1.5, -0.5)
        terms = tuple(Term(3, share, older.moment) for share, older in zip(shares, kept, strict=True))
        now = position.after(iteration + 7)
        expected = now.edited(Edit(stage=3, rule="sum", terms=terms, optimizer="older"))
        assert rebuild(strategy, world, now) == expected
    assert isinstance(rebuild(strategy, world, position.after(5)), UnrecoverableError)  # all kept lie ahead


def test_gamma_uptimes_have_their_mean_and_spread(folder):
    found = process_class(GAMMA)
    process = found(found.Config(kind=GAMMA, shape=4.0, mean_uptime_hours=2.0))  # type: ignore[call-arg]
    uptimes = process.uptimes(np.random.default_rng(0), 3)
    hours = np.array([next(uptimes) for _ in range(20_000)]) / 3600
    assert hours.mean() == pytest.approx(2.0, abs=4 * hours.std() / np.sqrt(len(hours)))
    assert hours.std() == pytest.approx(2.0 / np.sqrt(4.0), rel=0.03)


# ---- what a class from outside does wrong --------------------------------------------------------
FAULTY = """
    class Forgetful(Restart):
        kind = "forgetful"
        Config = StrategyConfig

        def recover(self, world, failure, position):
            yield from ()
            while failure is not None:
                failure = world.bring_back_nodes()
            return position

    class Careless(Forgetful):
        def recover(self, world, failure, position):
            yield from world.bring_back_nodes()
            return [][0]

    class Plain(Forgetful):
        def recover(self, world, failure, position):
            return position

    class Empty(Forgetful):
        def recover(self, world, failure, position):
            yield from world.bring_back_nodes()

    class Unruly(Forgetful):
        def recover(self, world, failure, position):
            yield from world.bring_back_nodes()
            return position.edited(Edit(stage=1, rule="zero"))

    class Waiting(Forgetful):
        def after_iteration(self, world, position):
            yield from ()
            world.attempt(3.0, "checkpoint_save")
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "Forgetful",
            r"faulty.py, line \d+: world.bring_back_nodes\(...\) takes time: write `yield from` before it",
        ),
        ("Careless", r"recover fails at faulty.py, line \d+: IndexError: list index out of range"),
        ("Plain", "recover has no `yield`: begin it with `yield from \\(\\)`"),
        ("Empty", "recover returns the Position to continue from, found NoneType"),
        (
            "Unruly",
            r"recover fails at .*: ValueError: edit of stage 1: no rule 'zero'; allowed: average, ",
        ),
        ("Waiting", r"faulty.py, line \d+: world.attempt\(...\) takes time: write `yield from` before it"),
    ],
)
def test_errors_of_strategies_from_outside_begin_with_their_names(folder, name, expected):
    head = HEAD + "from models.training_state import Edit\n"
    (folder / "faulty.py").write_text(head + textwrap.dedent(FAULTY), encoding="utf-8")
    failures = "failures: {kind: exponential, rate_per_hour: 0.9}\ntraining: {learner: none, steps: 300}\n"
    scenario = parse_scenario(f"name: a\nstrategies: [{{kind: 'faulty:{name}', label: mine}}]\n{failures}")
    with pytest.raises(kinds.PluginError, match=f"^strategy 'mine': {expected}"):
        simulate(scenario, scenario.strategies[0], 0, 0, time_only(scenario))


def test_a_module_that_ends_the_process_is_an_error(folder):
    (folder / "leaving.py").write_text("import os\nos._exit(0)\n")
    (folder / "strange.py").write_text("class Strange(BaseException): pass\nraise Strange('no')\n")
    left, strange = problems_of("strategies: ['leaving:A', 'strange:A']\n")
    assert left.endswith("module 'leaving' cannot be imported: RuntimeError: it calls os._exit(0)")
    assert strange.endswith("module 'strange' cannot be imported: Strange: no")


def test_modules_are_imported_only_from_where_it_is_asked(folder, monkeypatch):
    (folder / "mine.py").write_text(f"{HEAD}\nclass Mine(Restart):\n    kind, Config = 'mine', StrategyConfig\n")
    (folder / "mine.yaml").write_text("name: a\nstrategies: ['mine:Mine']\ntraining: {learner: none}\n")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "200"}
    del environment["CHURNLAB_PLUGINS"]
    alone = churnlab(folder, environment, "validate", "mine.yaml")
    assert alone.stderr.endswith("installed or on PYTHONPATH; to import from the current folder, give --plugins .\n")
    assert churnlab(folder, environment, "validate", "mine.yaml", "--plugins", ".").returncode == 0
    never = churnlab(
        folder, {**environment, "PYTHONPATH": f"{PROJECT}{os.pathsep}."}, "validate", "mine.yaml", "--no-plugins"
    )
    assert never.stderr.endswith("found 'mine:Mine': module 'mine' is not imported: --no-plugins is given\n")
    assert never.returncode == 2
