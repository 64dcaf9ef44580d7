"""Forward and backward passes compiled by `torch.compile`: fewer passes over memory than operation by operation.

One function per training spec, route and number of rows, compiled once in a process; its files are in the folder
TORCHINDUCTOR_CACHE_DIR, where other processes find them. Clipping and Adam's update stay in `models.trainer`. Compiled
code adds in another order: its bits are not those of the eager step, but the same in every process with the same
compiler and number of threads, which are part of the names of training states.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor
from torch.func import functional_call, grad_and_value

from models.recipe import Pass
from models.spec import ModelSpec, TrainingSpec
from models.staged_model import StagedModel, WholeModel
from models.training_state import digest

COMPILED_CODE_HASH = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
FOLDER_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
MAX_COMPILED = 64
"""Functions that a process may compile: training specs of a sweep, times routes and numbers of rows on them."""

Gradients = Callable[[list[Tensor], Tensor, Tensor], tuple[list[Tensor], Tensor]]
"""From the weights of each stage, tokens and targets [B, T] to the gradient of each stage and the loss."""


@lru_cache
def compiler_name() -> str:
    """C++ compiler and vector instructions of compiled code. ValueError if `torch.compile` has none that works here."""
    from torch._inductor.cpp_builder import get_compiler_version_info, get_cpp_compiler
    from torch._inductor.cpu_vec_isa import pick_vec_isa
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        compiler = get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ValueError("torch.compile finds no C++ compiler on this machine") from error
    if not (instructions := pick_vec_isa()):  # it compiles a small file for each
        raise ValueError(f"torch.compile cannot build vectorised code with {compiler} on this machine")
    version = hashlib.sha256(get_compiler_version_info(compiler).encode()).hexdigest()[:8]
    return f"{Path(compiler).name} {version} {instructions}"


def compiled_gradients(spec: TrainingSpec, way: Pass, num_sequences: int, share: float) -> Gradients:
    """Compiled gradients of the mean cross-entropy of sequences on a route, weighted by their share of the step's."""
    sizes = spec.vocabulary_size, num_sequences, spec.sequence_length
    return _compiled(spec.model, sizes, share, way, spec.num_threads)


@lru_cache(MAX_COMPILED)
def _compiled(
    model_spec: ModelSpec, sizes: tuple[int, int, int], share: float, way: Pass, num_threads: int
) -> Gradients:
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    vocabulary_size, num_sequences, sequence_length = sizes
    model = StagedModel(model_spec, vocabulary_size, sequence_length, init_seed=0)
    whole = WholeModel(model)  # its weights are never used

    def loss(weights: list[Tensor], tokens: Tensor, targets: Tensor) -> Tensor:
        found: Tensor = functional_call(whole, whole.named(weights), (tokens, targets, *way))
        return found * share

    compiled: Gradients = torch.compile(grad_and_value(loss), fullgraph=True, dynamic=False)
    weights = [torch.zeros_like(flat).detach() for flat in model.flat]
    tokens = torch.zeros(num_sequences, sequence_length + 1, dtype=torch.int64)
    with ExitStack() as stack:
        stack.enter_context(dynamo.patch(recompile_limit=MAX_COMPILED))
        stack.enter_context(inductor.patch({"compile_threads": 1, "cpp.threads": num_threads}))
        if folder := os.environ.get(FOLDER_VARIABLE):
            Path(folder).mkdir(parents=True, exist_ok=True)
            name = digest(f"{model_spec.model_dump_json()} {sizes} {share} {way} {num_threads}")
            stack.enter_context(FileLock(Path(folder) / f"{name}.lock"))  # other processes read what the first wrote
        compiled(weights, tokens[:, :-1], tokens[:, 1:])
    return compiled
