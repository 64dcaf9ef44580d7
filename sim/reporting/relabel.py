"""Labels of a user's own on a figure."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Labels:
    """Labels in place of a figure's own; None leaves them."""

    x: str | None = None
    y: str | None = None
    title: str | None = None


def relabel(figure: Figure, labels: Labels, name: str) -> None:
    """Put labels on the axes and above a figure. ValueError, naming the figure, if its panels have different axes."""
    for which, text in (("x", labels.x), ("y", labels.y)):
        if text is None:
            continue
        named = [axis for axis in figure.axes if getattr(axis, f"get_{which}label")()]
        found = {getattr(axis, f"get_{which}label")() for axis in named}
        common = figure.get_supylabel() if which == "y" else ""
        if common:
            figure.supylabel(text, fontsize="medium")
        elif len(found) > 1:
            axes = " and ".join(repr(" ".join(label.split())) for label in sorted(found))
            raise ValueError(f"--{which}label: the panels of {name} have different {which} axes, {axes}")
        else:
            for axis in named:
                axis.set(**{f"{which}label": text})
    if labels.title is not None:
        figure.suptitle(labels.title, fontsize="medium")
