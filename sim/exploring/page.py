"""Page of `churnlab explore` as text: HTML, styles, scripts, and figures in Vega-Lite."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import altair as alt
from jinja2 import Environment, PackageLoader, StrictUndefined

from sim.core.text import capitalized
from sim.exploring.controls import Control
from sim.exploring.learning import Learning
from sim.exploring.outcomes import bucket_colours
from sim.reporting.html.charts import CONFIG, HOURS_TITLE, LOSS_TITLE, vega_bundle
from sim.reporting.html.data import DASHES
from sim.reporting.notes import notes
from sim.reporting.series import styles_by_kind
from sim.strategies import legend_label

HEIGHT, HEIGHT_OF_ROW = 340, 36

SECONDS_AND_LOSSES = (
    "Seconds are those of the target model, simulated afresh for each position of the sliders. Losses are those of the "
    "small proxy model. No number mixes the two."
)


def page(scenario_path: Path, controls: Sequence[Control], learning: Learning) -> str:
    """Return the page with all data for its script, except the answers."""
    environment = Environment(
        loader=PackageLoader("sim.exploring", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    scenario, target = learning.template.scenario, learning.template.scenario.training.target_loss
    styles = styles_by_kind({config.name: config.kind for config in scenario.strategies})
    lines = [
        {"label": legend_label(name), "colour": style.colour, "dashes": list(DASHES[style.line])}
        for name, style in styles.items()
    ]
    content = {
        "controls": [
            {"field": one.field, "label": capitalized(one.label), "values": one.axis.values, "own": one.axis.own}
            for one in controls
        ],
        "command": f"churnlab run {scenario_path}",
        "figures": {"loss": _loss_figure(lines), "ledger": _ledger_figure(lines)},
        "has_losses": bool(learning.predictions),
        "target": target,
    }
    return environment.get_template("explore.html").render(
        name=scenario.name,
        description=scenario.description or "",
        lines=lines,
        buckets=bucket_colours(),
        has_losses=bool(learning.predictions),
        target="" if target is None else f"{target:g}",
        notes=[SECONDS_AND_LOSSES, *learning.notes, notes(scenario, "")[0]],
        content=content,
    )


@cache
def assets() -> dict[str, tuple[str, str]]:
    """Files loaded by the page: media type and text by name."""
    own, report = files("sim.exploring"), files("sim.reporting.html")
    style = report.joinpath("report.css").read_text("utf-8") + own.joinpath("explore.css").read_text("utf-8")
    return {
        "style.css": ("text/css", style),
        "page.js": ("text/javascript", own.joinpath("explore.js").read_text("utf-8")),
        "vega.js": ("text/javascript", vega_bundle()),
    }


def _loss_figure(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    x = {"field": "hours", "type": "quantitative", "title": HOURS_TITLE, "scale": {"zero": True}}
    y = {"field": "loss", "type": "quantitative", "title": LOSS_TITLE, "scale": {"zero": False}}
    numbers = list(range(len(lines)))
    colour = {
        "field": "strategy", "type": "nominal", "legend": None,
        "scale": {"domain": numbers, "range": [line["colour"] for line in lines]},
    }  # fmt: skip
    dashes = {**colour, "scale": {"domain": numbers, "range": [line["dashes"] or [1, 0] for line in lines]}}
    tooltip = [
        {"field": "hours", "type": "quantitative", "title": "hours", "format": ".2f"},
        {"field": "loss", "type": "quantitative", "title": "loss", "format": ".3f"},
    ]
    curves = {"type": "line", "strokeWidth": 2, "tooltip": True, "aria": False}
    encoding = {"x": x, "y": y, "color": colour, "strokeDash": dashes, "tooltip": tooltip}
    rule = {"type": "rule", "strokeDash": [2, 3], "aria": False}
    layers: list[dict[str, Any]] = [
        {"data": {"name": "rows"}, "mark": curves, "encoding": encoding},
        {
            "name": "target",
            "data": {"name": "targets"},
            "mark": rule,
            "encoding": {"y": {"field": "target", "type": "quantitative"}},
        },
    ]
    return _figure(layers, HEIGHT, "Predicted loss against simulated time, a line for each strategy.")


def _ledger_figure(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    colours = bucket_colours()
    bars = {
        "data": {"name": "rows"},
        "mark": {"type": "bar", "size": 22, "aria": False},
        "encoding": {
            "x": {"field": "hours", "type": "quantitative", "title": HOURS_TITLE, "stack": True},
            "y": {"field": "label", "type": "nominal", "title": None, "sort": {"field": "strategy", "op": "min"}},
            "color": {"field": "bucket", "type": "nominal", "legend": None,
                      "scale": {"domain": list(colours), "range": list(colours.values())}},
            "order": {"field": "order", "type": "quantitative"},
            "tooltip": [{"field": "bucket", "type": "nominal", "title": "spent on"},
                        {"field": "hours", "type": "quantitative", "format": ".3f"}],
        },
    }  # fmt: skip
    return _figure([bars], 40 + HEIGHT_OF_ROW * len(lines), "Hours by ledger bucket, a bar for each strategy.")


def _figure(layers: list[dict[str, Any]], height: int, description: str) -> dict[str, Any]:
    about = {"$schema": alt.SCHEMA_URL, "width": "container", "height": height, "description": description}
    return {**about, "layer": layers, "datasets": {"rows": [], "targets": []}, "config": CONFIG}
