"""Low-rank gradients of weight matrices, for the approximate backward pass of a stage (`ApproximateBackward`).

What is simulated is what the model learns from such gradients, not the time that they save: the whole gradient is
computed, then projected.
"""

from __future__ import annotations

import torch
from torch import Tensor


def of_low_rank(weights: Tensor, rank: int | None) -> Tensor:
    """Weights [out, in] of the same values, whose gradient is projected on their leading `rank` singular vectors.

    The vectors are those of the smaller side, so that `rank` is at most that side; there, and for None, the gradient is
    exact.
    """
    if rank is None or rank >= min(weights.shape):
        return weights
    is_wide = weights.shape[0] <= weights.shape[1]
    matrix = weights.detach().double().nan_to_num()  # of a training that diverges: its loss says so
    _, vectors = torch.linalg.eigh(matrix @ matrix.T if is_wide else matrix.T @ matrix)  # by ascending eigenvalue
    leading = vectors[:, -rank:]
    projection = (leading @ leading.T).to(weights.dtype)
    projected = projection @ weights if is_wide else weights @ projection
    nothing: Tensor = projected - projected.detach()  # 0, with a gradient
    return weights.detach() + nothing
