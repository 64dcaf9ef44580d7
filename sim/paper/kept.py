"""results/paper, and whether fresh numbers are the same: to the bit where text, torch and CPU family are."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pandas as pd

from sim.paper.extract import TOLERANCE, differences
from sim.results import read_json

KEPT = Path(__file__).parents[2] / "results" / "paper"
LEARNT = ("validation_loss", "final_validation_loss", "loss_nats")
"""Columns that training makes; all others come from the simulated world, and are the same everywhere."""
EXACT = 1e-9


def made_on() -> dict[str, Any]:
    """What decides the bits of a loss, beside scenario and seeds."""
    import torch

    from models.corpus import load_corpus
    from models.lineage import DataSpec
    from models.trajectory import cpu_family

    return {
        "torch": torch.__version__,
        "cpu": f"{cpu_family()}, {torch.backends.cpu.get_cpu_capability()}",
        "python": platform.python_version(),
        "text": load_corpus(DataSpec(), Path()).content_hash,
    }


def compared(new: Path, old: Path) -> tuple[list[str], bool]:
    """How fresh numbers differ from those kept, in words, and whether they may."""
    here, there = made_on(), read_json(old / "made_on.json")
    others = [f"{name} {here[name]}, kept were made with {there[name]}" for name in here if here[name] != there[name]]
    lines, num_equal, agrees = [], 0, True
    paths = sorted(old.glob("*.parquet"))
    for path in paths:
        found = differences(pd.read_parquet(new / path.name), pd.read_parquet(path))
        num_equal += not found
        for column, difference in found.items():
            allowed = TOLERANCE if column in LEARNT and others else EXACT if column not in LEARNT else 0.0
            fits = difference <= allowed
            agrees &= fits
            lines.append(f"{path.name}: {column} differs by up to {difference:.2g}{'' if fits else ', too much'}")
    shown = old.relative_to(Path.cwd()) if old.is_relative_to(Path.cwd()) else old
    whole = f"{num_equal} of {len(paths)} tables agree with {shown} to the bit."
    return [*(f"Made here with {other}." for other in others), *lines, whole], agrees
