"""Workers that train: those of the sweep on the CPU, and one process on a GPU.

Every process on a GPU takes some hundred MB of its memory, and several would share its time, so there is one, which
trains replicates together. Simulations run meanwhile on the workers of the sweep, also on those of a Ray cluster.
*Not modelled*: several GPUs; `CUDA_VISIBLE_DEVICES` selects the one that is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from models.spec import TrainingSpec
from sim.experiments.executors import Executor, InProcess, ProcessPool

if TYPE_CHECKING:
    from models.corpus import Corpus


class TrainingWorkers:
    """Executors of training with the texts shared between their workers."""

    def __init__(self, executor: Executor, corpora: Sequence[Corpus]) -> None:
        self._executor = executor
        self._corpora = {corpus.content_hash: corpus for corpus in corpora}
        self._on_gpu: Executor | None = None
        self._texts: dict[tuple[bool, str], Any] = {}

    def of(self, spec: TrainingSpec) -> tuple[Executor, Any]:
        """The executor that trains a recipe, and its text or the placeholder of it."""
        executor = self._executor_of_gpu() if on_gpu(spec) else self._executor
        key = on_gpu(spec), spec.corpus
        if key not in self._texts:
            self._texts[key] = executor.share(self._corpora[spec.corpus])
        return executor, self._texts[key]

    def _executor_of_gpu(self) -> Executor:
        if self._on_gpu is None:
            self._on_gpu = self._executor if isinstance(self._executor, InProcess) else ProcessPool(1)
        return self._on_gpu

    def close(self) -> None:
        """Stop the process on the GPU, if there is one."""
        if self._on_gpu not in (None, self._executor):
            self._on_gpu.close()


def on_gpu(spec: TrainingSpec) -> bool:
    """Whether a recipe is trained on a GPU."""
    return spec.device != "cpu"
