"""LLaMA-style residual layer: RMSNorm, rotary positions, causal attention, SwiGLU. No biases, no dropout.

Touvron et al. 2023 (arXiv 2302.13971); RoPE: Su et al. 2021 (arXiv 2104.09864). Shapes: B sequences, T tokens, D = dim,
H heads, F = feed-forward width. Layers also run under `torch.vmap` and bf16 autocast (`models/stacked.py`). What
changes here changes in `models/llama_gradients.py` too, which has the gradients written by hand.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.approximate_backward import of_low_rank
from models.recipe import ApproximateBackward
from models.spec import ModelSpec

NORM_EPSILON = 1e-5
ROPE_BASE = 10_000.0


def rope_tables(sequence_length: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, each [T, head_dim]; sines of the first half are negative."""
    frequencies = ROPE_BASE ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(sequence_length, dtype=torch.float64), frequencies)
    cos, sin = angles.cos().float(), angles.sin().float()
    return torch.cat((cos, cos), dim=1), torch.cat((-sin, sin), dim=1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> Tensor:
    """Rotate the two halves of each head by the angles of its position; x is [..., T, num_heads · head_dim].

    cos and sin have the shape of the last two dimensions: operations on long rows are faster than on each half head.
    """
    first, second = torch.unflatten(x, -1, (num_heads, 2, -1)).unbind(-2)
    return x * cos + torch.cat((second, first), dim=-1).flatten(-2) * sin


class LlamaLayer(nn.Module):
    """Residual layer: x + attention(norm(x)), then x + SwiGLU(norm(x))."""

    def __init__(self, spec: ModelSpec, sequence_length: int) -> None:
        super().__init__()
        dim = spec.dim
        hidden = spec.width_of_feed_forward
        self.num_heads = spec.num_heads
        self.attention_norm = nn.Parameter(torch.empty(dim))
        self.query_key_value = nn.Parameter(torch.empty(3 * dim, dim))
        self.attention_output = nn.Parameter(torch.empty(dim, dim))
        self.feed_forward_norm = nn.Parameter(torch.empty(dim))
        self.gate_and_up = nn.Parameter(torch.empty(2 * hidden, dim))
        self.feed_forward_output = nn.Parameter(torch.empty(dim, hidden))
        cos, sin = rope_tables(sequence_length, dim // spec.num_heads)
        self.register_buffer("cos", cos.repeat(1, 2 * spec.num_heads))  # of all queries and keys
        self.register_buffer("sin", sin.repeat(1, 2 * spec.num_heads))

    def forward(self, x: Tensor, backward: ApproximateBackward | None = None) -> Tensor:
        """Map the residual stream [B, T, D] to [B, T, D]. backward: of an approximate gradient; None: the exact one."""
        a = self.attention(x)
        x = x + (a if backward is None or backward.through_attention else a.detach())
        rank = backward.rank if backward else None
        h = F.rms_norm(x, x.shape[-1:], self.feed_forward_norm, NORM_EPSILON)
        gate, up = F.linear(h, of_low_rank(self.gate_and_up, rank)).chunk(2, dim=-1)  # each [B, T, F]
        return x + F.linear(F.silu(gate) * up, of_low_rank(self.feed_forward_output, rank))

    def attention(self, x: Tensor) -> Tensor:
        """Causal attention of the normalised residual stream."""
        B, T, D = x.shape
        cos, sin = self.get_buffer("cos")[:T], self.get_buffer("sin")[:T]
        h = F.rms_norm(x, (D,), self.attention_norm, NORM_EPSILON)
        qk, v = torch.split(F.linear(h, self.query_key_value), [2 * D, D], dim=-1)
        qk = rotate(qk, cos, sin, 2 * self.num_heads).to(v.dtype)
        q, k = qk.view(B, T, 2, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # each [B, H, T, D / H]
        v = v.view(B, T, self.num_heads, -1).transpose(1, 2)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return F.linear(a.transpose(1, 2).reshape(B, T, D), self.attention_output)


class LlamaEnds(nn.Module):
    """Embedding E and, after the last stage, final norm and de-embedding E⁻¹ (not tied to E)."""

    def __init__(self, spec: ModelSpec, vocabulary_size: int, sequence_length: int) -> None:  # noqa: ARG002
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocabulary_size, spec.dim))
        self.final_norm = nn.Parameter(torch.empty(spec.dim))
        self.de_embedding = nn.Parameter(torch.empty(vocabulary_size, spec.dim))

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T] to residual stream [B, T, D]."""
        return F.embedding(tokens, self.embedding)

    def logits(self, x: Tensor) -> Tensor:
        """Residual stream [B, T, D] to logits [B, T, vocabulary]."""
        return F.linear(F.rms_norm(x, x.shape[-1:], self.final_norm, NORM_EPSILON), self.de_embedding)
