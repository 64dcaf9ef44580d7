"""Speed of reading long traces, 10,000 and 100,000 intervals, and their ratio: `python -m benchmarks.traces`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from sim.failures.trace_formats import read_churn

NUMBERS = (10_000, 100_000)


def table(number: int, path: Path) -> None:
    """Write so many nodes, each present for 50 s."""
    starts = np.random.default_rng(0).random(number) * 1e6
    lines = (f"n{i},{start:.3f},{start + 50:.3f}\n" for i, start in enumerate(starts))
    path.write_text("node,start,end\n" + "".join(lines), encoding="utf-8")


def main() -> None:
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for number in NUMBERS:
            path = Path(folder) / f"{number}.csv"
            table(number, path)
            began = time.process_time()
            read_churn(path)
            seconds.append(time.process_time() - began)
            print(f"{number:9,} intervals: {seconds[-1]:.2f} s of CPU")
    print(f"{NUMBERS[1] // NUMBERS[0]} times as many take {seconds[1] / seconds[0]:.1f} times as long")


if __name__ == "__main__":
    main()
