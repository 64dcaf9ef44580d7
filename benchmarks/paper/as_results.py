"""Results of a sweep made from its extract, so that the figures of `churnlab plot` can be drawn without its runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from benchmarks.paper.extract import Extract
from sim.reporting.series import at_point
from sim.results.crossed_design import SEEDS
from sim.results.storage import COLUMNS, RUN_FORMAT, SWEEP, SWEEP_FORMAT, Results, resolved_yaml, write_json
from sim.scenario.sweep_points import Point, load_points

CORPUS = "the standard library of Python 3.11.7 as bytes"
"""Training text named in captions; an extract has no description of it."""

TARGET = ("target_validation_loss", "target_reached_iteration", "target_reached_seconds")


@contextmanager
def as_results(scenario: Path, extract: Extract) -> Iterator[Results]:
    """Yield a sweep's extract as results, with the target by the rule. Their folder is temporary.

    Iterations are the validated ones, and there are no events: enough for outcomes and for losses by iteration.
    """
    reached = extract.to_target()
    runs = extract.runs.assign(**{name: reached[name].to_numpy() for name in TARGET})
    iterations = extract.losses.assign(step=extract.losses["iteration"], lineage=extract.losses["kind"])
    events = pd.DataFrame(columns=["run", *COLUMNS["events"]])
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        planned = {run: row for point in load_points(scenario) for run, row in write_about(folder, point, runs)}
        write_json(folder / SWEEP, {"format": SWEEP_FORMAT, "runs": list(planned.values())})
        yield Results(folder, runs, {"iterations": iterations, "events": events})


def write_about(folder: Path, point: Point, runs: pd.DataFrame) -> Iterator[tuple[str, dict[str, object]]]:
    """Write `scenario.yaml` and `run.json` of a point's runs, and yield each run's name and its row of `sweep.json`."""
    text = resolved_yaml(point.scenario)
    for index, strategy in enumerate(point.scenario.strategies):
        parameters = point.parameters_of(index)
        about = {"strategy": strategy.model_dump(mode="json"), "versions": {}, "corpus": CORPUS}
        own = at_point(runs, {"strategy": strategy.name, **parameters})
        for name, *seeds in own[["run", *SEEDS]].itertuples(index=False):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "scenario.yaml").write_text(text, encoding="utf-8")
            write_json(folder / name / "run.json", {"format": RUN_FORMAT, **about})
            row = {"run": name, "point": 0, "strategy": strategy.name, "parameters": parameters, "keeps_records": True}
            yield name, row | dict(zip(SEEDS, seeds, strict=True))
