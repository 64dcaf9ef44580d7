"""Training of stacked replicates on a GPU: steps per second, replicates at once, equal bits, distance from the CPU.

    python -m benchmarks.gpu [--device auto] [--minutes 8] [--sizes 48x6 128x6 256x12] [--replicates 1 8 32]

For each size of the proxy (width x stages) and precision: steps per second with several numbers of replicates at once,
and the memory they take; whether ten steps repeated have equal bits, also in another slot and company; and how far
losses are from those of `Trainer` on one CPU thread, which also gives the speed to compare with. All else is as in
scenarios/quickstart.yaml. Each measurement ends at its share of the minutes. On a machine without a GPU the same code
runs on the CPU, where stacking gains nothing: this checks bits and tolerance, and the speeds say nothing of a GPU.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import get_args

import torch

from models.corpus import Corpus
from models.device import device_name, resolved_device
from models.spec import Device, ModelSpec, Precision, TrainingSpec, WantedDevice, plain_routes
from models.stacked import TOLERANCE, Stack
from models.trainer import Trainer
from sim.experiments.training import Texts, training_spec
from sim.scenario.loading import load_scenario

SCENARIO = Path(__file__).parents[1] / "scenarios" / "quickstart.yaml"
SIZES = ["48x6", "128x6", "256x12"]
NUM_REPEATED_STEPS, NUM_STEPS_OF_TOLERANCE, NUM_COMPARED_STEPS = 10, 25, 100


@lru_cache
def quickstart() -> tuple[TrainingSpec, Corpus]:
    """The quickstart's training, and its text."""
    scenario = load_scenario(SCENARIO)
    with tempfile.TemporaryDirectory() as cache:
        corpus = Texts(SCENARIO.parent, Path(cache)).of(scenario)
    assert corpus is not None
    return training_spec(scenario, corpus, 0), corpus


def recipe(size: str, replicates: int, precision: Precision, device: Device) -> TrainingSpec:
    """The quickstart's training with a proxy of another size."""
    dim, num_stages = map(int, size.split("x"))
    changes = {
        "model": ModelSpec(dim=dim, num_heads=max(2, dim // 32), num_stages=num_stages),
        "routes": plain_routes(num_stages),
        "device": device,
        "precision": precision,
        "replicates_at_once": replicates,
    }
    return quickstart()[0].model_copy(update=changes)


def with_seed(spec: TrainingSpec, seed: int) -> TrainingSpec:
    """A replicate."""
    return spec.model_copy(update={"init_seed": seed, "data_seed": seed + 1000})


def loaded(spec: TrainingSpec, corpus: Corpus, seeds: Sequence[int]) -> Stack:
    """A stack of replicates before their first step."""
    stack = Stack(spec, corpus)
    specs = [with_seed(spec, seed) for seed in seeds]
    stack.load([(one, Trainer(one, corpus).snapshot()) for one in specs])
    return stack


def rate(step: Callable[[], object], wait: Callable[[], object], seconds: float) -> float:
    """Steps per second, after some that are not timed."""
    for _ in range(3):
        step()
    wait()
    num_steps, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds or num_steps < 5:
        for _ in range(5):
            step()
        wait()
        num_steps += 5
    return num_steps / passed


def waiter(device: str) -> Callable[[], object]:
    """What waits for the kernels of a device."""
    return {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device, lambda: None)


def bits_of(spec: TrainingSpec, corpus: Corpus, seeds: Sequence[int]) -> dict[int, list[bytes]]:
    """All bits of replicates after some steps, by seed."""
    stack = loaded(spec, corpus, seeds)
    for _ in range(NUM_REPEATED_STEPS):
        stack.train_step()
    results = stack.collect()
    return {
        seed: [repr(results[slot]).encode(), *(tensor.numpy().tobytes() for tensor in stack.snapshot(slot).values())]
        for slot, seed in enumerate(seeds)
    }


def differences(spec: TrainingSpec, corpus: Corpus, seconds: float) -> tuple[list[float], list[float]]:
    """Relative differences of losses from the trainer's on the CPU, step by step, until some time has passed.

    Of a stack; and of the trainer itself when the last bit of all weights is changed at the beginning.
    """
    stack = loaded(spec, corpus, [0])
    trainer, changed = (Trainer(with_seed(spec, 0), corpus) for _ in range(2))
    with torch.no_grad():
        for flat in changed.model.flat:
            flat.mul_(1 + torch.finfo(flat.dtype).eps)
    of_stack, of_change = list[float](), list[float]()
    began = time.perf_counter()
    while len(of_stack) < NUM_COMPARED_STEPS and time.perf_counter() - began < seconds:
        stack.train_step()
        ((result,),) = stack.collect()
        expected = trainer.train_step().train_loss
        of_stack.append(abs(result.train_loss / expected - 1))
        of_change.append(abs(changed.train_step().train_loss / expected - 1))
    return of_stack, of_change


def measure(size: str, precision: Precision, device: Device, replicates: Sequence[int], seconds: float) -> None:
    """Print the rows of one size and precision, within about this time."""
    share, corpus = seconds / (len(replicates) + 4), quickstart()[1]
    trainer = Trainer(recipe(size, 1, "fp32", "cpu"), corpus)
    baseline = rate(trainer.train_step, lambda: None, share)
    print(f"{size} {precision}: trainer on one CPU thread in fp32: {baseline:.1f} steps/s", flush=True)
    for count in replicates:
        print(
            f"  {count:3} at once: {speed(recipe(size, count, precision, device), corpus, share, baseline)}", flush=True
        )
    count = min(8, max(replicates))
    spec = recipe(size, count, precision, device)
    once, again = (bits_of(spec, corpus, range(min(3, count))) for _ in range(2))
    other = bits_of(spec, corpus, [7, 0] if count > 1 else [0])
    print(f"  equal bits: repeated {once == again}, in another slot and company {once[0] == other[0]}")
    of_stack, of_change = differences(spec, corpus, 2 * share)
    early = max(of_stack[:NUM_STEPS_OF_TOLERANCE])
    verdict = "" if precision != "fp32" else f" ({'within' if early <= TOLERANCE else 'BEYOND'} {TOLERANCE:g})"
    num_early = min(len(of_stack), NUM_STEPS_OF_TOLERANCE)
    print(f"  largest relative difference of a loss from the trainer's in {num_early} steps: {early:.1e}{verdict}")
    print(
        f"  in {len(of_stack)} steps: {max(of_stack):.1e}; after a change of the last bit: {max(of_change):.1e}",
        flush=True,
    )


def speed(spec: TrainingSpec, corpus: Corpus, seconds: float, baseline: float) -> str:
    """Steps per second of a full stack, against the trainer's, and the memory it takes."""
    count = spec.replicates_at_once
    if spec.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        stack = loaded(spec, corpus, range(count))
        found = rate(stack.train_step, waiter(spec.device), seconds)
    except torch.OutOfMemoryError:
        return "out of memory"
    stack.collect()
    memory = f", {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB" if spec.device == "cuda" else ""
    gain = f"{found * count / baseline:.2f} x the trainer"
    return f"{found:7.1f} steps/s, {found * count:8.1f} replicate-steps/s, {gain}{memory}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=get_args(WantedDevice), help="where to stack")
    parser.add_argument("--minutes", type=float, help="of all measurements together, about; default 8, on a CPU 2")
    parser.add_argument("--sizes", nargs="+", help="width x stages; default 48x6 128x6 256x12, on a CPU the first")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=get_args(Precision))
    parser.add_argument("--replicates", type=int, nargs="+", help="at once; default 1 8 32, on a CPU 1 4")
    options = parser.parse_args()
    device = resolved_device(options.device)
    print(f"torch {torch.__version__}, stacks on {device_name(device)}")
    if device == "cpu":
        print("No GPU is used: bits and tolerance are checked on the CPU, and speeds say nothing of a GPU.")
    minutes, sizes, replicates = (2.0, ["48x6"], [1, 4]) if device == "cpu" else (8.0, SIZES, [1, 8, 32])
    sizes, replicates = options.sizes or sizes, options.replicates or replicates
    seconds = 60 * (options.minutes or minutes) / (len(sizes) * len(options.precisions))
    for size in sizes:
        for precision in options.precisions:
            measure(size, precision, device, replicates, seconds)


if __name__ == "__main__":
    main()
