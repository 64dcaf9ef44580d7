"""GPT-2-style residual layer: LayerNorm, learned positions, causal attention, GELU, biases. No dropout.

Source: Radford et al. 2019. Shapes as in `models/llama.py`. E⁻¹ is not tied to E: the ends would exchange gradients.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.approximate_backward import of_low_rank
from models.recipe import ApproximateBackward
from models.spec import ModelSpec


class GPTLayer(nn.Module):
    """Residual layer: x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, spec: ModelSpec, sequence_length: int) -> None:  # noqa: ARG002
        super().__init__()
        dim, hidden = spec.dim, spec.width_of_feed_forward
        self.num_heads = spec.num_heads
        self.attention_norm = nn.Parameter(torch.empty(dim))
        self.attention_norm_bias = nn.Parameter(torch.empty(dim))
        self.query_key_value = nn.Parameter(torch.empty(3 * dim, dim))
        self.query_key_value_bias = nn.Parameter(torch.empty(3 * dim))
        self.attention_output = nn.Parameter(torch.empty(dim, dim))
        self.attention_output_bias = nn.Parameter(torch.empty(dim))
        self.feed_forward_norm = nn.Parameter(torch.empty(dim))
        self.feed_forward_norm_bias = nn.Parameter(torch.empty(dim))
        self.up = nn.Parameter(torch.empty(hidden, dim))
        self.up_bias = nn.Parameter(torch.empty(hidden))
        self.feed_forward_output = nn.Parameter(torch.empty(dim, hidden))
        self.feed_forward_output_bias = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor, backward: ApproximateBackward | None = None) -> Tensor:
        """Map the residual stream [B, T, D] to [B, T, D]. backward: of an approximate gradient; None: the exact one."""
        a = self.attention(x)
        x = x + (a if backward is None or backward.through_attention else a.detach())
        rank = backward.rank if backward else None
        h = F.layer_norm(x, x.shape[-1:], self.feed_forward_norm, self.feed_forward_norm_bias)
        h = F.gelu(F.linear(h, of_low_rank(self.up, rank), self.up_bias), approximate="tanh")  # [B, T, F]
        return x + F.linear(h, of_low_rank(self.feed_forward_output, rank), self.feed_forward_output_bias)

    def attention(self, x: Tensor) -> Tensor:
        """Causal attention of the normalised residual stream."""
        B, T, D = x.shape
        h = F.layer_norm(x, (D,), self.attention_norm, self.attention_norm_bias)
        qkv = F.linear(h, self.query_key_value, self.query_key_value_bias)
        q, k, v = qkv.view(B, T, 3, self.num_heads, D // self.num_heads).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # [B, H, T, D / H]
        return F.linear(a.transpose(1, 2).reshape(B, T, D), self.attention_output, self.attention_output_bias)


class GPTEnds(nn.Module):
    """Token and position embeddings and, after the last stage, the final norm and the de-embedding."""

    def __init__(self, spec: ModelSpec, vocabulary_size: int, sequence_length: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocabulary_size, spec.dim))
        self.positions = nn.Parameter(torch.empty(sequence_length, spec.dim))
        self.final_norm = nn.Parameter(torch.empty(spec.dim))
        self.final_norm_bias = nn.Parameter(torch.empty(spec.dim))
        self.de_embedding = nn.Parameter(torch.empty(vocabulary_size, spec.dim))

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T] to residual stream [B, T, D]."""
        return F.embedding(tokens, self.embedding) + self.positions[: tokens.shape[1]]

    def logits(self, x: Tensor) -> Tensor:
        """Residual stream [B, T, D] to logits [B, T, vocabulary]."""
        h = F.layer_norm(x, x.shape[-1:], self.final_norm, self.final_norm_bias)
        return F.linear(h, self.de_embedding)
