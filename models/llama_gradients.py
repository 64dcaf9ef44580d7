"""Gradients of the LLaMA-style proxy, written by hand: the fast way through `models/llama.py` on a CPU.

The function and its derivative are those of the plain model, to rounding; tests hold one to the other. It takes three
quarters of autograd's time (`benchmarks/proxy_steps.py`): there is no graph to build, results go into buffers that are
kept from step to step, gradients of matrices go straight into the vectors that Adam reads, and less memory is passed
over. Gains of norms are multiplied into the matrix behind them, which is smaller than the activations. Attention keeps
its weights, which pays for short sequences. Shapes: as in `models/llama.py`; N = B · T tokens, d = D / H.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.llama import NORM_EPSILON, rope_tables
from models.recipe import Pass, Route
from models.spec import TrainingSpec
from models.staged_model import StagedModel, named_views, shapes_of

LONGEST_SEQUENCE = 128
"""Tokens up to which attention with all of its weights in memory is the faster one."""

LOWEST_EXPONENT = -80.0
"""exp is slow where it underflows; from here on it adds nothing to a sum of at least 1."""

empty = torch.empty
silu = torch.ops.aten.silu.out
silu_backward = torch.ops.aten.silu_backward.grad_input


class LlamaGradients:
    """Mean cross-entropy of `num_sequences` sequences on a route, and its gradient by stage; all buffers are kept."""

    def __init__(self, model: StagedModel, route: Route, num_sequences: int, sequence_length: int) -> None:
        self.gradients = [torch.zeros_like(flat.detach()) for flat in model.flat]
        buffers = Buffers(model, num_sequences, sequence_length)
        views = [
            named_views(vector, shapes_of(stage)) for vector, stage in zip(self.gradients, model.stages, strict=True)
        ]
        self.ends = EndsPass(parameters_of(model.ends), views[0], buffers)
        self.layers = [
            LayerPass(weights, {name: views[number][f"{index}.{name}"] for name in weights}, buffers)
            for number in route
            for index, weights in enumerate(map(parameters_of, model.stages[number].children()))
        ]
        self.not_visited = [self.gradients[number] for number in range(1, len(model.flat)) if number not in route]

    @torch.no_grad()
    def __call__(self, tokens: Tensor, targets: Tensor, share: float) -> tuple[Tensor, list[Tensor]]:
        """The loss of tokens and targets [B, T] times a share, in nats per token, and the gradient of each stage.

        The gradients may be changed by the caller; the next call overwrites them.
        """
        for gradient in self.not_visited:
            gradient.zero_()
        x = self.ends.embed(tokens.reshape(-1))
        for layer in self.layers:
            layer.forward(x)
        loss, gradient = self.ends.loss(x, targets.reshape(-1, 1), share)
        for layer in reversed(self.layers):
            gradient = layer.backward(gradient)
        self.ends.embed_backward(gradient)
        return loss, self.gradients


def is_by_hand(spec: TrainingSpec, way: Pass) -> bool:
    """Whether gradients of a pass are found here: exact ones, of short sequences, on a route that repeats no stage."""
    is_short = spec.model.family == "llama" and spec.sequence_length <= LONGEST_SEQUENCE
    return is_short and not way.backward and len(set(way.route)) == len(way.route)


class Buffers:
    """What all layers of a pass share: sizes, tables of attention, and memory for what is needed at once only."""

    def __init__(self, model: StagedModel, num_sequences: int, sequence_length: int) -> None:
        spec = model.spec
        B, T, D, H = num_sequences, sequence_length, spec.dim, spec.num_heads
        self.sizes = B, T, D, H
        self.hidden = F = spec.width_of_feed_forward
        N, d = B * T, D // H
        cos, sin = (table.to(empty(0).dtype) for table in rope_tables(T, d))
        angles = torch.complex(cos[:, : d // 2], sin[:, d // 2 :])
        self.rotation = torch.stack((angles * d**-0.5, angles))[:, None, None]  # of queries, which are scaled, and keys
        self.rotation_back = self.rotation.conj().resolve_conj()
        self.later = torch.full((T, T), -torch.inf).triu(1)  # keys that a query does not see
        self.not_later = torch.ones(T, T).tril()
        self.of_dim, self.of_hidden, self.of_both = empty(N, D), empty(N, F), empty(N, 2 * F)
        self.of_token, self.of_qkv = empty(N, 1), empty(N, 3 * D)
        self.of_output, self.of_scores, self.of_query = empty(B * H, T, d), empty(B * H, T, T), empty(B * H, T, 1)
        self.of_heads = empty(3, B * H, T, d)
        self.of_norm, self.gradients = empty(N, D), (empty(N, D), empty(N, D))  # of the residual stream: read, written


def parameters_of(module: nn.Module) -> dict[str, Tensor]:
    """The parameters of a layer or of the ends by name, without a gradient."""
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def norm(x: Tensor, scale: Tensor, out: Tensor) -> Tensor:
    """x / RMS(x) of each token; scale [N, 1]: 1 / RMS(x)."""
    torch.linalg.vector_norm(x, dim=-1, keepdim=True, out=scale)
    scale.square_().div_(x.shape[-1]).add_(NORM_EPSILON).rsqrt_()
    return torch.mul(x, scale, out=out)


def norm_backward(gradient: Tensor, y: Tensor, buffers: Buffers) -> Tensor:
    """Gradient of x / RMS(x) = y, but for its factor 1 / RMS(x): g - y · mean(g · y)."""
    mean = torch.sum(torch.mul(gradient, y, out=buffers.of_dim), -1, keepdim=True, out=buffers.of_token)
    return torch.addcmul(gradient, y, mean.div_(-y.shape[-1]), out=buffers.of_dim)


def matrix_backward(
    gradient: Tensor, matrix: Tensor, gain: Tensor, matrix_gradient: Tensor, gain_gradient: Tensor
) -> None:
    """Gradients of a matrix [out, in] and of the gain [in] that is multiplied into it; `gradient` is overwritten."""
    torch.mul(gradient, gain, out=matrix_gradient)
    torch.sum(gradient.mul_(matrix), 0, out=gain_gradient)


class LayerPass:
    """A layer in a pass: its parameters, views for their gradients, and what its backward pass reads and overwrites."""

    def __init__(self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], buffers: Buffers) -> None:
        self.weights, self.gradients, self.buffers = weights, gradients, buffers
        (B, T, D, H), F = buffers.sizes, buffers.hidden
        N, d = B * T, D // H
        self.attention_scale, self.feed_forward_scale = empty(N, 1), empty(N, 1)
        self.normed, self.normed_middle = empty(N, D), empty(N, D)
        self.matrix, self.matrix_middle = empty(3 * D, D), empty(2 * F, D)  # with the gains of the norms before them
        self.heads = empty(3, B, H, T, d)
        self.scores, self.total = empty(B * H, T, T), empty(B * H, T, 1)
        self.output, self.attended = empty(B * H, T, d), empty(N, D)
        self.gate_and_up, self.activated, self.hidden = empty(N, 2 * F), empty(N, F), empty(N, F)

    def forward(self, x: Tensor) -> None:
        """Add attention and SwiGLU to the residual stream [N, D], in place."""
        weights = self.weights
        norm(x, self.attention_scale, self.normed)
        for ours, theirs in self.rows(self.matrix, weights["query_key_value"]):
            torch.mul(theirs, weights["attention_norm"], out=ours)
        self.attend(torch.mm(self.normed, self.matrix.T, out=self.buffers.of_qkv))
        x.addmm_(self.attended, weights["attention_output"].T)
        norm(x, self.feed_forward_scale, self.normed_middle)
        torch.mul(weights["gate_and_up"], weights["feed_forward_norm"], out=self.matrix_middle)
        gate, up = torch.mm(self.normed_middle, self.matrix_middle.T, out=self.gate_and_up).chunk(2, dim=-1)
        torch.mul(silu(gate, out=self.activated), up, out=self.hidden)
        x.addmm_(self.hidden, weights["feed_forward_output"].T)

    def backward(self, gradient: Tensor) -> Tensor:
        """From the gradient of the residual stream after the layer [N, D] to that before it; fills the parameters'."""
        weights, gradients, buffers = self.weights, self.gradients, self.buffers
        gate, up = self.gate_and_up.chunk(2, dim=-1)
        gate_gradient, up_gradient = buffers.of_both.chunk(2, dim=-1)
        torch.mm(gradient.T, self.hidden, out=gradients["feed_forward_output"])
        hidden = torch.mm(gradient, weights["feed_forward_output"], out=self.hidden)
        torch.mul(hidden, self.activated, out=up_gradient)
        silu_backward(torch.mul(hidden, up, out=buffers.of_hidden), gate, grad_input=gate_gradient)
        factors = weights["gate_and_up"], weights["feed_forward_norm"]
        normed = torch.mm(buffers.of_both, self.matrix_middle, out=buffers.of_norm)
        torch.mm(buffers.of_both.T, self.normed_middle, out=self.matrix_middle)
        matrix_backward(self.matrix_middle, *factors, gradients["gate_and_up"], gradients["feed_forward_norm"])
        middle = self.add_norm_backward(gradient, normed, self.normed_middle, self.feed_forward_scale)

        torch.mm(middle.T, self.attended, out=gradients["attention_output"])
        qkv = self.attend_backward(torch.mm(middle, weights["attention_output"], out=self.attended))
        normed = torch.mm(qkv, self.matrix, out=buffers.of_norm)
        torch.mm(qkv.T, self.normed, out=self.matrix)
        for ours, theirs in self.rows(self.matrix, gradients["query_key_value"]):
            torch.mul(ours, weights["attention_norm"], out=theirs)
        for ours, theirs in self.rows(self.matrix, weights["query_key_value"]):
            ours.mul_(theirs)
        torch.sum(self.matrix, 0, out=gradients["attention_norm"])
        return self.add_norm_backward(middle, normed, self.normed, self.attention_scale)

    def add_norm_backward(self, gradient: Tensor, normed: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        """Add the gradient through a norm to that of the residual stream around it."""
        one, other = self.buffers.gradients
        out = other if gradient is one else one
        return torch.addcmul(gradient, norm_backward(normed, y, self.buffers), scale, out=out)

    def rows(self, ours: Tensor, theirs: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        """Rows of two matrices of queries, keys and values that belong together.

        Here the two features that are rotated together lie side by side, as the parts of a complex number do; there
        they are half a head apart. A product of queries and keys is the same in either order.
        """
        _, _, D, H = self.buffers.sizes
        side_by_side = ours[: 2 * D].view(2 * H, -1, 2, D)
        return [(side_by_side, theirs[: 2 * D].view(2 * H, 2, -1, D).transpose(1, 2)), (ours[2 * D :], theirs[2 * D :])]

    def attend(self, qkv: Tensor) -> None:
        """Causal attention of queries, keys and values [N, 3 · D], with rotated queries and keys."""
        B, T, _, H = self.buffers.sizes
        self.heads.copy_(qkv.view(B, T, 3, H, -1).permute(2, 0, 3, 1, 4))
        complex_pairs(self.heads[:2]).mul_(self.buffers.rotation)
        q, k, v = self.heads.flatten(1, 2)  # each [B · H, T, d]
        scores = torch.baddbmm(self.buffers.later, q, k.mT, out=self.scores)
        scores.sub_(torch.amax(scores, -1, keepdim=True, out=self.total)).clamp_(min=LOWEST_EXPONENT)
        scores.exp_().mul_(self.buffers.not_later)
        torch.sum(scores, -1, keepdim=True, out=self.total)
        torch.bmm(scores, v, out=self.output).div_(self.total)
        self.attended.view(B, T, H, -1).copy_(self.output.view(B, H, T, -1).transpose(1, 2))

    def attend_backward(self, attended: Tensor) -> Tensor:
        """From the gradient of the attention's output [N, D] to that of queries, keys and values [N, 3 · D]."""
        buffers = self.buffers
        B, T, _, H = buffers.sizes
        q, k, v = self.heads.flatten(1, 2)
        output = buffers.of_output
        output.view(B, H, T, -1).copy_(attended.view(B, T, H, -1).transpose(1, 2))
        output.div_(self.total)
        mean = torch.sum(self.output.mul_(output), -1, keepdim=True, out=buffers.of_query)
        scores = torch.bmm(output, v.mT, out=buffers.of_scores).sub_(mean).mul_(self.scores)
        torch.bmm(scores, k, out=buffers.of_heads[0])
        torch.bmm(scores.mT, q, out=buffers.of_heads[1])
        torch.bmm(self.scores.mT, output, out=buffers.of_heads[2])
        heads = buffers.of_heads.view(3, B, H, T, -1)
        complex_pairs(heads[:2]).mul_(buffers.rotation_back)
        buffers.of_qkv.view(B, T, 3, H, -1).copy_(heads.permute(1, 3, 0, 2, 4))
        return buffers.of_qkv


def complex_pairs(heads: Tensor) -> Tensor:
    """The features of heads, two by two, as a view of complex numbers."""
    return torch.view_as_complex(torch.unflatten(heads, -1, (-1, 2)))


class EndsPass:
    """Embedding, final norm and de-embedding in a pass, and the loss."""

    def __init__(self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], buffers: Buffers) -> None:
        self.weights, self.gradients, self.buffers = weights, gradients, buffers
        B, T, D, _ = buffers.sizes
        vocabulary_size = len(self.weights["embedding"])
        self.stream, self.normed = empty(B * T, D), empty(B * T, D)
        self.scale, self.logits = empty(B * T, 1), empty(B * T, vocabulary_size)
        self.matrix = empty(vocabulary_size, D)

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens [N] to residual stream [N, D]."""
        self.tokens = tokens
        return torch.index_select(self.weights["embedding"], 0, tokens, out=self.stream)

    def embed_backward(self, gradient: Tensor) -> None:
        """Fill the gradient of the embedding."""
        self.gradients["embedding"].zero_().index_add_(0, self.tokens, gradient)

    def loss(self, x: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of targets [N, 1], times a share, and the gradient of the residual stream [N, D]."""
        weights, gradients, buffers = self.weights, self.gradients, self.buffers
        norm(x, self.scale, self.normed)
        torch.mul(weights["de_embedding"], weights["final_norm"], out=self.matrix)
        logits = torch.mm(self.normed, self.matrix.T, out=self.logits)
        logits.sub_(logits.amax(-1, keepdim=True))
        of_targets = logits.gather(1, targets)
        total = torch.sum(logits.exp_(), -1, keepdim=True)
        loss = (total.log() - of_targets).mean() * share
        each = share / len(targets)
        logits.mul_(each / total).scatter_add_(1, targets, torch.full_like(of_targets, -each))
        normed = torch.mm(logits, self.matrix, out=buffers.of_norm)
        torch.mm(logits.T, self.normed, out=self.matrix)
        factors = weights["de_embedding"], weights["final_norm"]
        matrix_backward(self.matrix, *factors, gradients["de_embedding"], gradients["final_norm"])
        through_norm = norm_backward(normed, self.normed, buffers)
        return loss, torch.mul(through_norm, self.scale, out=buffers.gradients[0])
