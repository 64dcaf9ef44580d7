"""Model in stages: stage 0 holds the two ends (E, final norm, E⁻¹), stages 1..s the residual layers.

Parameters and gradients of a stage are views of flat tensors: losing, averaging and clipping it are vector operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.gpt import GPTEnds, GPTLayer
from models.llama import LlamaEnds, LlamaLayer
from models.recipe import ApproximateBackward, Route
from models.spec import ModelSpec

Backward = tuple[ApproximateBackward, ...]
INIT_STD = 0.02


class StagedModel:
    """Proxy model. `flat[k]` is the weight vector of stage k (float32)."""

    def __init__(self, spec: ModelSpec, vocabulary_size: int, sequence_length: int, init_seed: int) -> None:
        self.spec = spec
        self.init_seed = init_seed
        layer, ends = (LlamaLayer, LlamaEnds) if spec.family == "llama" else (GPTLayer, GPTEnds)
        self.ends: LlamaEnds | GPTEnds = ends(spec, vocabulary_size, sequence_length)
        self.stages: list[nn.Module] = [self.ends]
        for _ in range(spec.num_stages):
            self.stages.append(nn.Sequential(*(layer(spec, sequence_length) for _ in range(spec.layers_per_stage))))
        for number in range(len(self.stages)):
            self.initialise(number)
        self.flat = [flatten(stage) for stage in self.stages]
        self._parameters = [list(stage.parameters()) for stage in self.stages]

    def loss(self, tokens: Tensor, targets: Tensor, route: Route, backward: Backward = ()) -> Tensor:
        """Mean cross-entropy in nats per token of targets [B, T], layers visited in the order of `route`.

        backward: of stages whose gradient is approximated; the loss is exact.
        """
        x = self.ends.embed(tokens)
        approximate = {each.stage: each for each in backward}
        for number in route:
            for layer in self.stages[number].children():
                x = layer(x, approximate.get(number))
        return F.cross_entropy(self.ends.logits(x).float().flatten(0, 1), targets.flatten())

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Gradient of a loss for each stage, a vector in the order of `flat[k]`; zeros where nothing leads to it."""
        parameters = [parameter for stage in self._parameters for parameter in stage]
        found = iter(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
        return [torch.cat([next(found).reshape(-1) for _ in stage]) for stage in self._parameters]

    @torch.no_grad()
    def initialise(self, number: int, *draw: int) -> None:
        """Norm gains 1, biases 0, matrices normal(0, 0.02), smaller for outputs. draw: of another random stream."""
        seed_words = np.random.SeedSequence((self.init_seed, number, *draw)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(seed_words[0] >> np.uint64(1)))
        num_residual_writes = 2 * self.spec.num_stages * self.spec.layers_per_stage
        for name, parameter in self.stages[number].named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif name.endswith("norm"):
                parameter.fill_(1.0)
            else:
                std = INIT_STD / math.sqrt(num_residual_writes) if name.endswith("output") else INIT_STD
                parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))

    @torch.no_grad()
    def zero(self, number: int, endings: tuple[str, ...]) -> None:
        """Set the tensors of a stage whose names end so to zero. ValueError where there is none."""
        for ending in endings:
            found = [tensor for name, tensor in self.stages[number].named_parameters() if name.endswith(ending)]
            if not found:
                raise ValueError(f"stage {number} has no tensor whose name ends in '{ending}'")
            for tensor in found:
                tensor.zero_()


class WholeModel(nn.Module):
    """A staged model as one module, so that `functional_call` can replace the weights of all its stages."""

    def __init__(self, model: StagedModel) -> None:
        super().__init__()
        self.stages = nn.ModuleList(model.stages)
        self._loss = model.loss
        self.stage_sizes = [flat.numel() for flat in model.flat]
        self._shapes = [shapes_of(stage) for stage in model.stages]

    def forward(self, tokens: Tensor, targets: Tensor, route: Route, backward: Backward = ()) -> Tensor:
        """Mean cross-entropy, in nats per token."""
        return self._loss(tokens, targets, route, backward)

    def named(self, weights: Sequence[Tensor]) -> dict[str, Tensor]:
        """Named parameters from the vector of each stage, as views: the inverse of `flatten`."""
        found: dict[str, Tensor] = {}
        for number, (vector, shapes) in enumerate(zip(weights, self._shapes, strict=True)):
            found |= {f"stages.{number}.{name}": view for name, view in named_views(vector, shapes).items()}
        return found


def shapes_of(module: nn.Module) -> dict[str, torch.Size]:
    """Shapes of a module's parameters, in the order of its flat vector."""
    return {name: parameter.shape for name, parameter in module.named_parameters()}


def named_views(vector: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Views of a flat vector as tensors of these shapes, one after the other."""
    pieces = torch.split(vector, [shape.numel() for shape in shapes.values()])
    return {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def flatten(module: nn.Module) -> nn.Parameter:
    """Move a module's parameters into a flat tensor; its parameters become views of it."""
    parameters = list(module.parameters())
    flat = nn.Parameter(torch.cat([parameter.detach().reshape(-1) for parameter in parameters]))
    pieces = torch.split(flat.data, [parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.data = piece.view_as(parameter)
    return flat
