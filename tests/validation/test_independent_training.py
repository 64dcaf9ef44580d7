"""Losses through failures against a second implementation that shares no code with `models/`: plain torch, one file.

It takes the first weights and the batches of the product as data. Model: LLaMA layers (arXiv 2302.13971). Training and
recovery: CheckFree's algorithm 1 (arXiv 2506.15461), Adam (arXiv 1412.6980).
"""

import math

import pytest
import torch

from models.corpus import load_corpus
from models.spec import DataSpec
from models.trainer import Trainer
from models.trajectory import Trajectory
from sim.scenario.loading import parse_scenario
from sim.simulation.run import simulate
from sim.strategies import strategy_class

NUM_STAGES, DIM, NUM_HEADS, LENGTH, NUM_SEQUENCES, NUM_STEPS = 6, 16, 2, 16, 4, 26
RATE, CLIP = 3e-3, 0.5

SCENARIO = """
name: independent
workload: {{num_microbatches: 4, measured: {{forward_seconds: 1, backward_seconds: 2}}}}
cluster: {{device: a100}}
network:
  same_region: {{latency_ms: 0, bandwidth_mbit_per_s: 1e9}}
  storage: {{latency_ms: 0, bandwidth_mbit_per_s: 1e9}}
training:
  steps: 26
  sequences_per_batch: 4
  sequence_length: 16
  model: {{dim: 16, num_heads: 2, num_stages: 6}}
  optimizer: {{learning_rate: 3e-3, clip_norm: 0.5}}
failures:
  kind: script
  losses: [{losses}]
strategies: [{{kind: {strategy}}}]
"""


def rms_norm(x, gain):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * gain


def rotated(x):
    """Rotary positions of [B, H, T, d]: the halves of a head are the two coordinates."""
    half = x.shape[-1] // 2
    speed = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = (torch.arange(x.shape[2], dtype=torch.float64)[:, None] * speed).float()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


def layer(x, w):
    """One residual layer on [B, T, D]; attention written out."""
    B, T, D = x.shape
    qkv = (rms_norm(x, w["attention_norm"]) @ w["query_key_value"].T).reshape(B, T, 3, NUM_HEADS, D // NUM_HEADS)
    q, k, v = (qkv[:, :, index].transpose(1, 2) for index in range(3))
    scores = rotated(q) @ rotated(k).transpose(2, 3) / math.sqrt(D // NUM_HEADS)
    scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf)
    x = x + (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, D) @ w["attention_output"].T
    gate, up = (rms_norm(x, w["feed_forward_norm"]) @ w["gate_and_up"].T).chunk(2, -1)
    return x + (gate * torch.sigmoid(gate) * up) @ w["feed_forward_output"].T


def loss_of(stages, windows, route):
    x = stages[0]["embedding"][windows[:, :-1]]
    for stage in route:
        x = layer(x, stages[stage])
    logits = rms_norm(x, stages[0]["final_norm"]) @ stages[0]["de_embedding"].T
    log_shares = logits - torch.logsumexp(logits, -1, keepdim=True)
    return -log_shares.gather(-1, windows[:, 1:, None]).mean()


class Independent:
    """Weights by stage and name, Adam's moments, gradient norms and rates of the stages."""

    def __init__(self, stages, routes):
        self.stages, self.routes = stages, routes
        self.moments = [{name: [torch.zeros_like(w), torch.zeros_like(w), 0] for name, w in s.items()} for s in stages]
        self.norms, self.factors = [1.0] * len(stages), [1.0] * len(stages)

    def step(self, windows):
        """One microbatch a sequence; microbatch j takes route j mod n."""
        weights = [w for stage in self.stages for w in stage.values()]
        for w in weights:
            w.requires_grad_()
            w.grad = None
        losses = [
            loss_of(self.stages, windows[j : j + 1], self.routes[j % len(self.routes)]) for j in range(NUM_SEQUENCES)
        ]
        loss = sum(losses) / NUM_SEQUENCES
        loss.backward()
        with torch.no_grad():
            for number, stage in enumerate(self.stages):
                self.norms[number] = norm = math.sqrt(sum(float((w.grad.double() ** 2).sum()) for w in stage.values()))
                for name, w in stage.items():
                    self.update(number, name, w, w.grad * min(1.0, CLIP / norm))
        return float(loss.detach())

    def update(self, number, name, w, gradient):
        state = self.moments[number][name]
        state[2] += 1
        state[0].mul_(0.9).add_(gradient, alpha=0.1)
        state[1].mul_(0.999).add_(gradient * gradient, alpha=0.001)
        mean, square = state[0] / (1 - 0.9 ** state[2]), state[1] / (1 - 0.999 ** state[2])
        w -= RATE * self.factors[number] * mean / (square.sqrt() + 1e-8)

    @torch.no_grad()
    def rebuild(self, stage, sources, weight, keeps_norm):
        shares = [weight(self.norms[source]) for source in sources]
        for name, w in self.stages[stage].items():
            w.copy_(
                sum(share * self.stages[source][name] for share, source in zip(shares, sources, strict=True))
                / sum(shares)
            )
            self.moments[stage][name] = [torch.zeros_like(w), torch.zeros_like(w), 0]
        if not keeps_norm:
            mean = sum(share * self.norms[source] for share, source in zip(shares, sources, strict=True))
            self.norms[stage] = mean / sum(shares)
        self.factors[stage] = 1.1


NEIGHBOURS = {stage: (stage - 1, stage + 1) for stage in range(2, 6)} | {1: (2,), 6: (5,)}
TWINS = NEIGHBOURS | {1: (2,), 2: (1,), 5: (6,), 6: (5,)}


def squared(norm):
    return norm**2


def clipped(norm):
    return min(norm, CLIP) + 1e-4


@pytest.mark.parametrize(
    ("strategy", "sources", "weight", "keeps_norm"),
    [
        ("checkfree, end_stages: copy, adjacent_stages: one_after_the_other", NEIGHBOURS, squared, False),
        ("checkfree_plus, adjacent_stages: one_after_the_other", TWINS, squared, False),
        ("checkfree, preset: reference_code", TWINS, clipped, True),
        ("checkfree, preset: reference_code_first_commit, end_stages: copy", NEIGHBOURS, clipped, True),
        ("checkfree_plus, preset: reference_code", TWINS, clipped, True),
    ],
)
def test_losses_equal_those_of_the_second_implementation(tmp_path, strategy, sources, weight, keeps_norm):
    """Every stage is lost, at the ends too, and then two neighbours at once, whose norms the released code keeps."""
    (tmp_path / "text.txt").write_text("".join(f"{i}: {i * i % 89}, " for i in range(4000)))
    corpus = load_corpus(DataSpec(source="text", files=("*.txt",)), tmp_path, None)
    lost = [(3,), (2,), (6,), (1,), (3, 4), (5,)]
    text = ", ".join(f"{{at_seconds: {140 + 130 * n}, stages: {list(stages)}}}" for n, stages in enumerate(lost))
    scenario = parse_scenario(SCENARIO.format(losses=text, strategy=strategy))
    config = scenario.strategies[0]
    routes = strategy_class(config.kind)(config, NUM_STAGES).training_variant()
    spec = scenario.training.spec(corpus.content_hash, corpus.vocabulary_size, 1, 2, routes)
    run = simulate(scenario, config, 0, 0, Trajectory(spec, corpus, None))
    rebuilt = [(event.iteration, event.stage) for event in run.events if event.kind == "failure"]
    assert sorted(stage for _, stage in rebuilt) == [1, 2, 3, 3, 4, 5, 6]
    first = Trainer(spec, corpus).model.stages
    own = Independent([{n: w.detach().clone() for n, w in names(stage)} for stage in first], routes)
    losses = []
    for step in range(NUM_STEPS):
        for stage in sorted(stage for iteration, stage in rebuilt if iteration == step):
            own.rebuild(stage, sources[stage], weight, keeps_norm)
        losses.append(own.step(torch.from_numpy(corpus.batch(2, step, NUM_SEQUENCES, LENGTH))))
    assert [record.train_loss for record in run.iterations] == pytest.approx(losses, abs=2e-5)


def names(stage):
    """Names and weights of a stage; those of a layer without its number."""
    return [(name.rpartition(".")[2], weight) for name, weight in stage.named_parameters()]
