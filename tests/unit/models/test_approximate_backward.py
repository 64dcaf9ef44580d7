"""Approximate backward passes: what they leave out, against gradients written by hand."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from models import llama_gradients
from models.approximate_backward import of_low_rank
from models.gpt import GPTLayer
from models.llama import LlamaLayer
from models.recipe import PLAIN, ApproximateBackward, Recipe
from models.spec import ModelSpec, OptimizerSpec
from models.trainer import Trainer
from support.trainings import bits, spec_for

SPEC = ModelSpec(dim=8, num_heads=2, hidden_dim=12)
FAMILIES = [LlamaLayer, GPTLayer]


def layer_of(family):
    layer, generator = family(SPEC, 6), torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return layer, torch.randn(3, 6, 8, generator=generator), torch.randn(3, 6, 8, generator=generator)


def projected(gradient, weights, rank):
    """On the leading singular vectors of the smaller side, by a singular value decomposition."""
    left, _, right = torch.linalg.svd(weights.detach().double(), full_matrices=False)
    gradient = gradient.double()
    if weights.shape[0] <= weights.shape[1]:
        return left[:, :rank] @ left[:, :rank].T @ gradient
    return gradient @ right[:rank].T @ right[:rank]


def gradients_by_hand(layer, x, upstream):
    """Gradients of the two feed-forward matrices and of the input of the feed-forward part, by the chain rule."""
    x = x.requires_grad_()
    if isinstance(layer, LlamaLayer):
        h = F.rms_norm(x, (8,), layer.feed_forward_norm, 1e-5)
        inner = F.linear(h, layer.gate_and_up)
        gate, up = inner.chunk(2, dim=-1)
        hidden = F.silu(gate) * up
    else:
        h = F.layer_norm(x, (8,), layer.feed_forward_norm, layer.feed_forward_norm_bias)
        inner = F.linear(h, layer.up, layer.up_bias)
        hidden = F.gelu(inner, approximate="tanh")
    of_hidden = upstream @ layer.feed_forward_output
    of_inner, of_x = torch.autograd.grad(hidden, (inner, x), of_hidden)
    first = of_inner.flatten(0, 1).T @ h.flatten(0, 1)
    second = upstream.flatten(0, 1).T @ hidden.flatten(0, 1)
    return first, second, upstream + of_x  # by the residual path, and through the feed-forward part


@pytest.mark.parametrize("rank", [None, 1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_written_by_hand(family, rank):
    layer, x, upstream = layer_of(family)
    with torch.no_grad():
        after_attention = x + layer.attention(x)
    first, second, of_x = gradients_by_hand(layer, after_attention.clone(), upstream)
    matrix = layer.gate_and_up if family is LlamaLayer else layer.up
    if rank is not None:
        first, second = projected(first, matrix, rank), projected(second, layer.feed_forward_output, rank)
    x = x.requires_grad_()
    out = layer(x, ApproximateBackward(1, rank=rank))
    assert torch.equal(out, layer(x)), "the forward pass is exact"
    out.backward(upstream)
    for found, expected in ((matrix.grad, first), (layer.feed_forward_output.grad, second), (x.grad, of_x)):
        assert torch.allclose(found.double(), expected.double(), rtol=1e-4, atol=1e-5)
    of_attention = [each for name, each in layer.named_parameters() if name.startswith(("attention", "query"))]
    assert len(of_attention) == (3 if family is LlamaLayer else 6)
    assert all(each.grad is None for each in of_attention)


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_attention_leaves_all_but_the_matrices_exact(family):
    layer, x, upstream = layer_of(family)
    found = []
    for backward in (None, ApproximateBackward(1, through_attention=True, rank=2)):
        layer.zero_grad()
        layer(x, backward).backward(upstream)
        found.append({name: each.grad for name, each in layer.named_parameters()})
    exact, approximate = found
    differing = {name for name in exact if not torch.allclose(exact[name], approximate[name], rtol=1e-4, atol=1e-6)}
    assert differing == {"gate_and_up" if family is LlamaLayer else "up", "feed_forward_output"}
    for name in differing:
        assert torch.linalg.matrix_rank(approximate[name], rtol=1e-4) == 2


@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (8, 8)])
def test_a_projection_is_one(shape):
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    low = of_low_rank(weights, 3)
    assert torch.equal(low, weights)
    (once,) = torch.autograd.grad(low, weights, gradient)
    (twice,) = torch.autograd.grad(of_low_rank(weights, 3), weights, once)
    assert torch.allclose(once, projected(gradient, weights, 3).float(), atol=1e-5)
    assert torch.allclose(once, twice, atol=1e-5)
    assert of_low_rank(weights, 8) is weights
    assert of_low_rank(weights, None) is weights


def test_some_rows_are_approximated_and_others_exact(corpus):
    """The gradient of a batch is the mean of both parts."""

    def gradients(recipe):
        trainer = Trainer(spec_for(corpus, optimizer=OptimizerSpec(clip_norm=None)), corpus)
        trainer.enter(recipe)
        trainer.train_step()
        return [flat.grad for flat in trainer.model.flat]

    approximate = ApproximateBackward(3, rank=4)
    both = gradients(Recipe(backward=(replace(approximate, rows=(1, 2)),)))
    parts = gradients(Recipe(rows=(0, 3))), gradients(Recipe(rows=(1, 2), backward=(approximate,)))
    exact = gradients(PLAIN)
    for number, (found, one, other) in enumerate(zip(both, *parts, strict=True)):
        assert torch.allclose(found, (one + other) / 2, rtol=1e-3, atol=1e-7)
        is_exact = torch.allclose(found, exact[number], rtol=1e-3, atol=1e-7)
        assert is_exact == (number == 4), "what lies behind the stage has the exact gradient"


def test_approximating_nothing_is_exact_to_the_bit(corpus, monkeypatch):
    monkeypatch.setattr(llama_gradients, "LONGEST_SEQUENCE", 0)  # exact gradients by autograd too
    exact, same = (Trainer(spec_for(corpus), corpus) for _ in range(2))
    same.enter(Recipe(backward=(ApproximateBackward(2, through_attention=True, rank=16),)))
    for _ in range(4):
        exact.train_step()
        same.train_step()
    assert bits(exact) == bits(same)
