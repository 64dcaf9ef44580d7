"""results/paper, and whether fresh numbers are the same: to the bit where text, torch and CPU family are."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.paper.extract import OTHER_TEXT_TOLERANCE, TOLERANCE, differences
from sim.results.storage import read_json

KEPT = Path(__file__).parents[2] / "results" / "paper"

LEARNT = ("validation_loss", "final_validation_loss", "loss_nats")
"""Columns that training makes; all others come from the simulated world, and are the same everywhere."""

EXACT = 1e-9


def made_on() -> dict[str, Any]:
    """What decides the bits of a loss, beside scenario and seeds."""
    import torch

    from models.corpus import load_corpus
    from models.spec import DataSpec
    from models.trajectory import cpu_family

    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": f"{cpu_family()}, {torch.backends.cpu.get_cpu_capability()}",
        "python": platform.python_version(),
        "text": load_corpus(DataSpec(), Path()).content_hash,
    }


def compared(new: Path, old: Path) -> tuple[list[str], bool]:
    """How fresh numbers differ from those kept, in words, and whether they may."""
    here, there = made_on(), read_json(old / "made_on.json")
    others = {name: there.get(name, "unknown") for name, value in here.items() if there.get(name) != value}
    for_losses = (OTHER_TEXT_TOLERANCE if "text" in others else TOLERANCE) if others else 0.0
    names, kept_names = ({path.name for path in folder.glob("*.parquet")} for folder in (new, old))
    lines = [f"{name}: only among those made here" for name in sorted(names - kept_names)]
    lines += [f"{name}: not made here" for name in sorted(kept_names - names)]
    num_equal, agrees = 0, names == kept_names != set()
    for name in sorted(names & kept_names):
        found = differences(pd.read_parquet(new / name), pd.read_parquet(old / name))
        num_equal += not found
        for column, difference in found.items():
            fits = difference <= (for_losses if column in LEARNT else EXACT)
            agrees &= fits
            lines.append(f"{name}: {column} differs by up to {difference:.2g}{'' if fits else ', too much'}")
    shown = old.relative_to(Path.cwd()) if old.is_relative_to(Path.cwd()) else old
    whole = f"{num_equal} of {len(kept_names)} tables agree with {shown} to the bit."
    made = [f"Made here with {name} {here[name]}, kept were made with {value}." for name, value in others.items()]
    return [*made, *lines, whole], agrees
