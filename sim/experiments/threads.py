"""The number of training threads in place of `training.num_threads: auto`.

It is the fastest for the size of the proxy, of the numbers that each worker of a sweep can have on this machine.
Threads decide the last bits of a result, and times of steps vary, so what was measured once is kept in the results
folder: a resumed sweep trains with as many threads as it began with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from models.spec import plain_routes
from sim.core.files import atomic_write
from sim.scenario.scenario import MAX_THREADS, Scenario
from sim.scenario.sweep_points import Point

THREADS = "threads.json"
WORTH_A_THREAD = 0.95
"""More threads are taken where they need less than this share of the time of fewer."""

DEFAULT_VOCABULARY = 256


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def with_threads(
    points: Sequence[Point], results_folder: Path, num_workers: int, noted: Callable[[str], None], writes: bool = True
) -> list[Point]:
    """Points with a number in place of `training.num_threads: auto`. noted: receives each choice, in a sentence."""
    found = []
    for point in points:
        if point.scenario.training.num_threads == "auto":
            number = threads_here(point.scenario, results_folder, num_workers, noted, writes)
            training = point.scenario.training.model_copy(update={"num_threads": number})
            point = replace(point, scenario=point.scenario.model_copy(update={"training": training}))
        found.append(point)
    return found


def threads_here(
    scenario: Scenario, results_folder: Path, num_workers: int, noted: Callable[[str], None], writes: bool
) -> int:
    """The number of threads for a scenario's training: as in its results folder, else measured."""
    training = scenario.training
    if training.learner != "torch" or training.device != "cpu":
        return 1
    file = results_folder / scenario.name / THREADS
    known = known_numbers(file)
    size = size_of(scenario)
    if size not in known:
        numbers = numbers_to_try(num_cores(), num_workers)
        known[size] = fastest(measured(scenario, numbers)) if len(numbers) > 1 else 1
        if writes:
            file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(file, json.dumps(known, indent=1))
        workers = f"{num_workers} worker{'s' * (num_workers > 1)}"
        noted(f"training.num_threads: auto is {known[size]} for {workers} on {num_cores()} cores.")
    return known[size]


def known_numbers(file: Path) -> dict[str, int]:
    """Numbers of threads by size, as an earlier sweep wrote them; none from a file that is missing or damaged."""
    try:
        content = json.loads(file.read_text())
        return {str(size): int(number) for size, number in content.items() if 1 <= int(number) <= MAX_THREADS}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def size_of(scenario: Scenario) -> str:
    """The sizes that decide how long a training step takes."""
    training = scenario.training
    batch = f"{training.sequences_per_batch} x {training.sequence_length} tokens"
    return f"{training.model.model_dump_json()}, {batch}, vocabulary {vocabulary_of(scenario)}"


def vocabulary_of(scenario: Scenario) -> int:
    """The size of the vocabulary, at most."""
    data = scenario.training.data
    return DEFAULT_VOCABULARY if data.source != "tokens" and data.tokenizer == "bytes" else data.vocabulary_size


def numbers_to_try(cores: int, num_workers: int) -> list[int]:
    """Powers of two, up to the share of the cores that each worker has."""
    most = min(MAX_THREADS, max(1, cores // num_workers))
    return [2**power for power in range(most.bit_length())]


def measured(scenario: Scenario, numbers: Sequence[int]) -> dict[int, float]:
    """Seconds of a training step by number of threads, on random text."""
    from models.segment import measure_threads

    training = scenario.training.model_copy(update={"num_threads": 1, "compile": "off", "precision": "fp32"})
    training = training.model_copy(update={"replicates_at_once": None})
    spec = training.spec("random", vocabulary_of(scenario), 0, 0, plain_routes(training.model.num_stages))
    return measure_threads(spec, numbers)


def fastest(seconds: dict[int, float]) -> int:
    """The number of threads to take: a larger one only where it is clearly faster."""
    best = 1
    for number in sorted(seconds):
        if seconds[number] < WORTH_A_THREAD * seconds[best]:
            best = number
    return best
