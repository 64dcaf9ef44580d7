"""Gradients written by hand are those of autograd, to rounding, whatever the sizes, the route and the pass before."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from models.llama_gradients import LONGEST_SEQUENCE, LlamaGradients, is_by_hand
from models.recipe import ApproximateBackward, Pass
from models.spec import ModelSpec
from models.staged_model import StagedModel
from support.examples import examples

VOCABULARY = 19


@pytest.fixture(autouse=True, scope="module")
def in_double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@st.composite
def passes(draw):
    """A model with gains that are not 1, a route that visits some of its stages, and the shape of a batch."""
    num_heads, pairs, num_stages = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(2, 4))
    spec = ModelSpec(
        dim=2 * pairs * num_heads,
        num_heads=num_heads,
        num_stages=num_stages,
        layers_per_stage=draw(st.integers(1, 2)),
        hidden_dim=draw(st.integers(1, 24)),
    )
    num_tokens = draw(st.integers(1, 20))
    model = StagedModel(spec, VOCABULARY, num_tokens, init_seed=draw(st.integers(0, 99)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    for flat in model.flat:
        flat.data += 0.3 * torch.randn(flat.shape, generator=generator)
    route = draw(st.permutations(range(1, num_stages + 1)))[: draw(st.integers(1, num_stages))]
    return model, tuple(route), (draw(st.integers(1, 5)), num_tokens), generator


def a_batch(shape, generator):
    num_sequences, num_tokens = shape
    windows = torch.randint(VOCABULARY, (num_sequences, num_tokens + 1), generator=generator)
    return windows[:, :-1], windows[:, 1:]


def assert_equal_to_autograd(model, route, batch, share, found):
    tokens, targets = batch
    x = model.ends.embed(tokens)
    for number in route:
        x = model.stages[number](x)
    loss = F.cross_entropy(model.ends.logits(x).flatten(0, 1), targets.flatten()) * share
    assert found[0].item() == pytest.approx(loss.item(), rel=1e-10)
    for exact, by_hand in zip(model.gradients(loss), found[1], strict=True):
        torch.testing.assert_close(by_hand, exact, rtol=0.0, atol=1e-9 * max(1e-3, exact.abs().max().item()))


@settings(max_examples=examples(60, 600))
@given(passes(), st.floats(0.05, 1.0))
def test_they_are_those_of_autograd(given_pass, share):
    model, route, shape, generator = given_pass
    by_hand = LlamaGradients(model, route, *shape)
    for _ in range(2):
        batch = a_batch(shape, generator)
        assert_equal_to_autograd(model, route, batch, share, by_hand(*batch, share))


@settings(max_examples=examples(20, 200))
@given(passes())
def test_nothing_of_the_pass_before_is_left(given_pass):
    """Not even where its caller has added to the gradients of stages that no row visits."""
    model, route, shape, generator = given_pass
    batch, other = a_batch(shape, generator), a_batch(shape, generator)
    first = LlamaGradients(model, route, *shape)(*batch, 1.0)
    by_hand = LlamaGradients(model, route, *shape)
    for gradient in by_hand(*other, 1.0)[1]:
        gradient.add_(1.0)
    again = by_hand(*batch, 1.0)
    assert torch.equal(first[0], again[0])
    assert all(map(torch.equal, first[1], again[1]))


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_attention_of_a_single_key_is_exact_where_others_underflow(size):
    """Scores far below the greatest of a query add nothing, as in autograd."""
    spec = ModelSpec(dim=8, num_heads=2, num_stages=2)
    model = StagedModel(spec, VOCABULARY, 12, init_seed=3)
    for stage in model.stages[1:]:
        stage[0].query_key_value.data *= size
    generator = torch.Generator().manual_seed(0)
    batch = a_batch((3, 12), generator)
    assert_equal_to_autograd(model, (1, 2), batch, 1.0, LlamaGradients(model, (1, 2), 3, 12)(*batch, 1.0))


def test_other_passes_are_left_to_autograd(spec):
    assert is_by_hand(spec, Pass(spec.routes[0]))
    assert not is_by_hand(spec, Pass(spec.routes[0], (ApproximateBackward(stage=1, rank=1),)))
    assert not is_by_hand(spec, Pass((1, 2, 1)))
    assert not is_by_hand(spec.model_copy(update={"sequence_length": LONGEST_SEQUENCE + 1}), Pass(spec.routes[0]))
    gpt = spec.model.model_copy(update={"family": "gpt"})
    assert not is_by_hand(spec.model_copy(update={"model": gpt}), Pass(spec.routes[0]))
