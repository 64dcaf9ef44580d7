"""LLaMA-style residual layer: RMSNorm, rotary positions, causal attention, SwiGLU. No biases, no dropout.

Touvron et al. 2023 (arXiv 2302.13971); RoPE: Su et al. 2021 (arXiv 2104.09864). Shapes: B sequences, T tokens, D = dim,
H heads, F = feed-forward width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.spec import ModelSpec

NORM_EPSILON = 1e-5
ROPE_BASE = 10_000.0


def rope_tables(sequence_length: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, each of shape [T, head_dim / 2]."""
    frequencies = ROPE_BASE ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(sequence_length, dtype=torch.float64), frequencies)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the two halves of each head by the angles of its position; x is [..., T, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


class LlamaLayer(nn.Module):
    """Residual layer: x + attention(norm(x)), then x + SwiGLU(norm(x))."""

    def __init__(self, spec: ModelSpec, sequence_length: int) -> None:
        super().__init__()
        dim = spec.dim
        hidden = spec.hidden_dim or -(-8 * dim // 3 // 16) * 16  # 8/3 of dim, rounded up to a multiple of 16
        self.num_heads = spec.num_heads
        self.attention_norm = nn.Parameter(torch.empty(dim))
        self.query_key_value = nn.Parameter(torch.empty(3 * dim, dim))
        self.attention_output = nn.Parameter(torch.empty(dim, dim))
        self.feed_forward_norm = nn.Parameter(torch.empty(dim))
        self.gate_and_up = nn.Parameter(torch.empty(2 * hidden, dim))
        self.feed_forward_output = nn.Parameter(torch.empty(dim, hidden))
        cos, sin = rope_tables(sequence_length, dim // spec.num_heads)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, x: Tensor) -> Tensor:
        """Map the residual stream [B, T, D] to [B, T, D]."""
        B, T, D = x.shape
        cos, sin = self.get_buffer("cos")[:T], self.get_buffer("sin")[:T]
        h = F.rms_norm(x, (D,), self.attention_norm, NORM_EPSILON)
        qkv = F.linear(h, self.query_key_value).view(B, T, 3, self.num_heads, D // self.num_heads)
        qkv = qkv.permute(2, 0, 3, 1, 4)  # [3, B, H, T, D / H]
        q, k = rotate(qkv[:2], cos, sin)
        a = F.scaled_dot_product_attention(q, k, qkv[2], is_causal=True)
        x = x + F.linear(a.transpose(1, 2).reshape(B, T, D), self.attention_output)
        h = F.rms_norm(x, (D,), self.feed_forward_norm, NORM_EPSILON)
        gate, up = F.linear(h, self.gate_and_up).chunk(2, dim=-1)  # each [B, T, F]
        return x + F.linear(F.silu(gate) * up, self.feed_forward_output)


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
