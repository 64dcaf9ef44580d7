"""Horizontal axis of the charts of a sweep: along the swept field that is chosen on the page.

Vega-Lite fixes the type of a scale, but the fields of a sweep can need different ones. Positions from 0 to 1 are
therefore computed here (linear, logarithmic or evenly spaced), and ticks are labelled with the swept values.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from sim.reporting.html.data import SweepAxis, rounded
from sim.reporting.outcomes import CHARACTERS_OF_TICK, SPAN_FOR_LOG

SHARE_OF_STEP, SHARE_BETWEEN = 0.012, 0.1
"""Distance between neighbouring strategies: of a numeric axis; in sum, of the distance between two other values."""

MARGIN = 0.08  # at both ends of the axis


def along_axis(base: alt.Chart, axes: Sequence[SweepAxis], num_strategies: int) -> alt.Chart:
    """Place the marks of `base` along the axis whose number is the signal `axis`; strategies stand side by side.

    Rows have their `point`, `strategy` and `places` (the value on each axis in words).
    """
    positions = [positions_of(axis) for axis in axes]
    of_points = [[where[place] for place in axis.places] for axis, where in zip(axes, positions, strict=True)]
    steps = [step_of(axis, num_strategies) for axis in axes]
    texts = [[textwrap.wrap(text, CHARACTERS_OF_TICK) for text in axis.values] for axis in axes]
    at = f"{json.dumps(of_points)}[axis][datum.point]"
    at += f" + {json.dumps(steps)}[axis] * (datum.strategy - {(num_strategies - 1) / 2})"
    chosen, label = f"{json.dumps(positions)}[axis]", f"{json.dumps(texts, ensure_ascii=False)}[axis]"
    ticks = alt.Axis(
        values=alt.ExprRef(expr=chosen),
        labelExpr=f"{label}[indexof({chosen}, datum.value)]",
        labelOverlap="greedy" if all(axis.numbers for axis in axes) else False,
    )
    scale = alt.Scale(domain=[-MARGIN, 1.0 + MARGIN], nice=False, zero=False)
    placed: alt.Chart = base.transform_calculate(place="datum.places[axis]", at=at).encode(
        alt.X("at:Q", title=None, scale=scale, axis=ticks)
    )
    return placed


def title_below(axes: Sequence[SweepAxis]) -> dict[str, Any]:
    """Title of the chosen axis, below the chart: Vega-Lite has no title of an axis that follows a signal."""
    text = f"{json.dumps([axis.label for axis in axes], ensure_ascii=False)}[axis]"
    look = {"orient": "bottom", "anchor": "middle", "fontSize": 12, "fontWeight": "normal"}
    return {"text": {"expr": text}, **look}


def positions_of(axis: SweepAxis) -> list[float]:
    """Positions of an axis' values from 0 to 1: in proportion to numbers or their logarithms; of others, even."""
    if len(axis.numbers) < 2:
        return (
            [rounded(at) for at in np.linspace(0.0, 1.0, len(axis.values)).tolist()] if len(axis.values) > 1 else [0.5]
        )
    numbers = np.array(axis.numbers, float)
    low, high = numbers.min(), numbers.max()
    if low > 0 and high / low >= SPAN_FOR_LOG:
        numbers, low, high = np.log(numbers), np.log(low), np.log(high)
    return [rounded(at) for at in ((numbers - low) / (high - low)).tolist()]


def step_of(axis: SweepAxis, num_strategies: int) -> float:
    """Distance between two strategies at a value of an axis."""
    if len(axis.numbers) > 1:
        return SHARE_OF_STEP
    return rounded(SHARE_BETWEEN / max(len(axis.values) - 1, 1) / num_strategies)
